"""The signature `localise` of an export: from bytes to classes with boxes (§A.1)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from vgg_keras.localisation.dense import Finder, make_finder
from vgg_keras.localisation.merging import MERGE_THRESHOLD, best_boxes, check_threshold
from vgg_keras.localisation.procedure import ANSWERS, check_together, scales_by_net
from vgg_keras.nets import STRIDE
from vgg_keras.pipelines.images import rescaled_size
from vgg_keras.saved_models.export import Endpoint
from vgg_keras.saved_models.images import apply_by_size, read_sizes
from vgg_keras.saved_models.tensors import image_inputs
from vgg_keras.serving.signatures import Signatures
from vgg_keras.trained import TrainedNet


@dataclass(frozen=True, eq=False)
class Localisers:
    """Localisation nets that are exported together with a classification net.

    Attributes:
        nets: localisation nets with the classes and the crop size of the classification net.
        test_scales: Q of all nets, or a sequence for each net; by default the training scale of
            each.
        threshold: see `vgg_keras.localisation.merging.merge`.

    Example:
        export(net, "exports/vgg16", localisers=Localisers([TrainedNet.load("runs/boxes")]))
    """

    nets: Sequence[TrainedNet]
    test_scales: Sequence[int] | Sequence[Sequence[int]] | None = None
    threshold: float = MERGE_THRESHOLD

    def check(self, classifier: TrainedNet) -> None:
        """Raises ArgumentError if the nets cannot be used together."""
        check_together(self.nets, [classifier])
        check_threshold(self.threshold)
        self.scales()

    def scales(self) -> list[tuple[int, ...]]:
        """Q of each net."""
        return scales_by_net(self.nets, self.test_scales)

    def passes(self) -> list[tuple[TrainedNet, int]]:
        """Each net at each of its scales."""
        return [(n, q) for n, of_net in zip(self.nets, self.scales(), strict=True) for q in of_net]

    def in_precision(self, policy: str) -> Localisers:
        """The same with nets in another Keras dtype policy."""
        return replace(self, nets=[net.in_precision(policy) for net in self.nets])


def localise_endpoint(localisers: Localisers, signatures: Signatures) -> Endpoint:
    """The signature `localise`.

    Args:
        localisers: localisation nets, scales and threshold.
        signatures: those of the classification net, which names the classes and scores the boxes.
    """
    return Endpoint(
        _Localise(localisers, signatures).localise,
        [tf.TensorSpec((None,), tf.string, "image_bytes")],
        image_inputs([signatures.example_file]),
    )


@dataclass(frozen=True, eq=False)
class _Localise:
    localisers: Localisers
    signatures: Signatures

    def localise(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """The most probable classes of encoded images, string `(B,)`, each with its box.

        Returns:
            `classes` int64 `(B, 5)`, -1 for an image with an error, `class_names` string `(B, 5)`,
            `probabilities` float32 `(B, 5)`, `boxes` float32 `(B, 5, 4)`,
            `[x_min, y_min, x_max, y_max]`, edges in pixels of the upright image, zeros for an
            image with an error, and `error` string `(B,)`. There are fewer than 5 classes if the
            net has fewer.
        """
        posteriors, errors = self.signatures.posteriors(image_bytes)
        sizes, _ = read_sizes(image_bytes, self.signatures.limits)
        probabilities, classes = tf.math.top_k(posteriors, min(ANSWERS, posteriors.shape[1]))
        predictions = []
        for find, scale in self._finders:
            found, errors = self._predictions(find, scale, image_bytes, sizes, errors, classes)
            predictions.append(found)
        boxes = tf.map_fn(
            lambda of_image: best_boxes(of_image, self.localisers.threshold),
            tf.concat(predictions, 2),
            fn_output_signature=tf.TensorSpec((classes.shape[1], 4), tf.float32),
        )
        sides = tf.cast(tf.gather(sizes, [1, 0, 1, 0], axis=1), tf.float32)
        is_good = tf.equal(errors, "")
        classes = tf.where(is_good[:, None], tf.cast(classes, tf.int64), -1)
        return {
            "classes": classes,
            "class_names": self.signatures.class_names.lookup(classes),
            "probabilities": tf.where(is_good[:, None], probabilities, 0),
            "boxes": tf.where(is_good[:, None, None], boxes * sides[:, None], 0),
            "error": errors,
        }

    @functools.cached_property
    def _finders(self) -> list[tuple[Finder, int]]:
        net, flip = self.signatures.net, self.signatures.flip
        return [(make_finder(n, [net], flip), q) for n, q in self.localisers.passes()]

    def _predictions(
        self,
        find: Finder,
        scale: int,
        image_bytes: tf.Tensor,
        sizes: tf.Tensor,
        errors: tf.Tensor,
        classes: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Predictions of one net at one scale, float32 `(B, A, P, 5)`, and errors.

        P is the number of positions of the largest map of the batch; smaller maps are filled up
        with NaN.
        """
        positions = self._most_positions(tf.boolean_mask(sizes, tf.equal(errors, "")), scale)
        shape = tf.stack([tf.size(errors), tf.shape(classes)[1], positions, 5])
        outputs = tf.reduce_prod(shape[1:])

        def predict(images: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
            found = find(images, tf.gather(classes, indices))
            missing = [[0, 0], [0, 0], [0, positions - tf.shape(found)[2]], [0, 0]]
            filled = tf.pad(found, missing, constant_values=float("nan"))
            return tf.reshape(filled, (-1, outputs))

        found, errors = apply_by_size(
            predict,
            image_bytes,
            sizes,
            errors,
            test_scale=scale,
            outputs=outputs,
            group_pixels=self.signatures.group_pixels,
        )
        return tf.reshape(found, shape), errors

    def _most_positions(self, sizes: tf.Tensor, scale: int) -> tf.Tensor:
        """Positions of the largest map, with those of the mirror image."""
        crop_size = self.signatures.net.architecture.crop_size
        scaled = tf.map_fn(lambda size: rescaled_size(size, scale), sizes)
        # Sides are rounded up, for nets whose pooling does so.
        sides = (scaled + STRIDE - 1) // STRIDE - crop_size // STRIDE + 1
        positions = tf.concat([tf.reduce_prod(sides, 1), [1]], 0)
        return (1 + self.signatures.flip) * tf.reduce_max(positions)
