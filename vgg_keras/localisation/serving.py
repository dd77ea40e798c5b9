"""The `localise` signature of an export: bytes in, classes with boxes out (§A.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from vgg_keras.localisation.dense import Finder, make_finder
from vgg_keras.localisation.evaluate import ANSWERS, check_together, scales_of
from vgg_keras.localisation.merging import THRESHOLD, answer, check_threshold
from vgg_keras.nets import STRIDE
from vgg_keras.pipelines.images import rescaled_size
from vgg_keras.runs import Run
from vgg_keras.saved_models.images import Limits, apply_by_size, read_sizes


@dataclass(frozen=True, eq=False)
class Localisers:
    """Localisation nets that go into an export with the classifier.

    Attributes:
        runs: of localisation nets, of the classifier's classes and crop size.
        test_scales: Q of all of them, or a sequence for each; by default each one's own.
        threshold: see `vgg_keras.localisation.merging.merge`.
    """

    runs: Sequence[Run]
    test_scales: Sequence[int] | Sequence[Sequence[int]] | None = None
    threshold: float = THRESHOLD

    def check(self, classifier: Run) -> None:
        """Raises ValueError where the nets cannot go together."""
        check_together(self.runs, [classifier])
        check_threshold(self.threshold)
        self.passes()

    def passes(self) -> list[tuple[Run, int]]:
        """Each net at each of its scales."""
        scales = scales_of(self.runs, self.test_scales)
        return [(r, q) for r, of_run in zip(self.runs, scales, strict=True) for q in of_run]


def localise_signature(
    localisers: Localisers,
    classifier: Run,
    classify: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    names: Callable[[tf.Tensor], tf.Tensor],
    *,
    flip: bool,
    limits: Limits,
    group_pixels: int,
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function from encoded pictures, string `(B,)`, to five classes of each with their boxes.

    Args:
        localisers: nets, scales and threshold.
        classifier: its posteriors rate the boxes.
        classify: from encoded pictures to posteriors `(B, classes)` and errors `(B,)`.
        names: from class indices to names.
        flip: look at mirror images too.
        limits: which pictures to refuse.
        group_pixels: see `apply_by_size`.

    Returns:
        A function that gives `classes` int64 `(B, 5)`, -1 where there is an error,
        `class_names`, `probabilities`, `boxes` float32 `(B, 5, 4)`, `[x_min, y_min, x_max,
        y_max]`, edges in pixels of the upright picture, zeros where there is an error, and
        `error`.
    """
    crop = classifier.recipe.crop_size
    finders = [(make_finder(run, [classifier], flip), q) for run, q in localisers.passes()]

    def localise(image_bytes):
        posteriors, errors = classify(image_bytes)
        sizes, _ = read_sizes(image_bytes, limits)
        probabilities, classes = tf.math.top_k(posteriors, min(ANSWERS, posteriors.shape[1]))
        found = []
        for find, scale in finders:
            seen, errors = _seen(
                find, image_bytes, sizes, errors, classes, scale, crop, flip, group_pixels
            )
            found.append(seen)
        boxes = tf.map_fn(
            lambda predictions: answer(predictions, localisers.threshold),
            tf.concat(found, 2),
            fn_output_signature=tf.TensorSpec((classes.shape[1], 4), tf.float32),
        )
        sides = tf.cast(tf.gather(sizes, [1, 0, 1, 0], axis=1), tf.float32)
        is_good = tf.equal(errors, "")
        classes = tf.where(is_good[:, None], tf.cast(classes, tf.int64), -1)
        return {
            "classes": classes,
            "class_names": names(classes),
            "probabilities": tf.where(is_good[:, None], probabilities, 0),
            "boxes": tf.where(is_good[:, None, None], boxes * sides[:, None], 0),
            "error": errors,
        }

    return localise


def _seen(
    find: Finder, image_bytes, sizes, errors, classes, scale: int, crop: int, flip: bool, pixels
) -> tuple[tf.Tensor, tf.Tensor]:
    """Predictions at one scale, `(B, A, P, 5)`, and errors; NaN fills up to the longest map."""
    good = tf.boolean_mask(sizes, tf.equal(errors, ""))
    scaled = tf.map_fn(lambda size: rescaled_size(size, scale), good)
    # Rounded up, for nets whose poolings do so.
    of_each = tf.reduce_prod((scaled + STRIDE - 1) // STRIDE - crop // STRIDE + 1, 1)
    most = (1 + flip) * tf.reduce_max(tf.concat([of_each, [1]], 0))
    shape = tf.stack([tf.size(errors), tf.shape(classes)[1], most, 5])

    def look(images, places):
        found = find(images, tf.gather(classes, places))
        missing = most - tf.shape(found)[2]
        filled = tf.pad(found, [[0, 0], [0, 0], [0, missing], [0, 0]], constant_values=float("nan"))
        return tf.reshape(filled, (-1, tf.reduce_prod(shape[1:])))

    found, errors = apply_by_size(
        look,
        image_bytes,
        sizes,
        errors,
        test_scale=scale,
        outputs=tf.reduce_prod(shape[1:]),
        group_pixels=pixels,
    )
    return tf.reshape(found, shape), errors
