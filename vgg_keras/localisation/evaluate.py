"""Where nets say that objects are, by the two protocols of §A.1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipelines.box_sources import boxed_split
from pipelines.boxes import from_window
from pipelines.evaluation import check_test_scale, grid_crops, grid_origins
from pipelines.images import rescaled_size, upright_size
from pipelines.screening import naming_bad_images
from pipelines.sources import VALIDATION, Source, Split
from vgg_keras.evaluation.evaluate import labels_of_the_run, plan, score
from vgg_keras.evaluation.meter import Meter
from vgg_keras.evaluation.predictions import top_classes
from vgg_keras.localisation.dense import boxes_of, rater, see_everywhere
from vgg_keras.localisation.merging import THRESHOLD, merge
from vgg_keras.localisation.results import Localised
from vgg_keras.recipes import LocalisationRecipe
from vgg_keras.runs import Run

ANSWERS = 5  # classes with a box each, the ILSVRC rule
_CHUNK = 512  # pictures that go through all nets and scales before their boxes are merged


def centre_of_true_class(
    run: Run, source: Source, split: str = VALIDATION, *, test_scale: int | None = None,
    batch_size: int = 64, on_bad_image: str = "stop",
) -> Localised:  # fmt: skip
    """The first protocol: the central crop, and the box of the true class.

    Args:
        run: of a localisation net.
        source, split: pictures with boxes whose classes the run knows.
        test_scale: Q; by default the training scale.
        batch_size: crops that pass through the net together.
        on_bad_image: "stop", or "skip" for pictures whose boxes cannot be used.

    Raises:
        SourceError, BadImageError: the data cannot be used.
        ValueError: no localisation net, or a scale below the crop size.
    """
    pictures, truth, labels = _pictures(run, source, split, on_bad_image)
    scale = test_scale or run.recipe.validation_scale
    check_test_scale(scale, run.recipe.crop_size)
    see, boxes = boxes_of(run), np.zeros((len(pictures), 1, 4), np.float32)
    crops = grid_crops(
        pictures, test_scale=scale, crop_size=run.recipe.crop_size, grid=1, batch_size=batch_size
    )
    sizes = _original_sizes(pictures)
    with naming_bad_images(pictures):
        for places, views in crops:
            found = see(views[:, 0]).numpy()[:, 0, 0]  # (B, C or 1, 4)
            for place, by_class in zip(places.numpy(), found, strict=True):
                frame = _centre_frame(sizes[place], scale, run.recipe.crop_size)
                one = by_class[labels[place] if len(by_class) > 1 else 0]
                boxes[place, 0] = from_window(one, frame).clip(0, 1)
    names = tuple(pictures.ids_of(range(len(pictures))))
    about = _about([run], source, split, "centre-gt", [scale])
    return Localised(names, labels, truth, labels[:, None], boxes, run.class_names, about)


def localise(
    runs: Sequence[Run],
    source: Source,
    split: str = VALIDATION,
    *,
    classifiers: Sequence[Run],
    test_scales: Sequence[int] | None = None,
    threshold: float = THRESHOLD,
    batch_size: int = 64,
    on_bad_image: str = "stop",
) -> Localised:
    """The full protocol: boxes at every place and scale, merged, for the five best classes.

    Args:
        runs: of localisation nets; with several the union of their boxes is merged.
        source, split: pictures with boxes whose classes the runs know.
        classifiers: classification runs of the same classes. The mean of their dense posteriors
            names five classes; that at each place rates the boxes seen from there.
        test_scales: Q; by default each net's training scale.
        threshold: of `merge`.
        batch_size: memory, as for `PassRunner`.
        on_bad_image: "stop", or "skip" for pictures whose boxes cannot be used.

    Raises:
        SourceError, BadImageError: the data cannot be used.
        ValueError: nets that do not go together, or a scale below the crop size.
    """
    _check_together(runs, classifiers)
    pictures, truth, labels = _pictures(runs[0], source, split, on_bad_image)
    posteriors = np.mean(
        [
            score(c, pictures, plan(c.recipe, "dense"), batch_size=batch_size)[1]
            for c in classifiers
        ],
        0,
    )
    classes = top_classes(posteriors, min(ANSWERS, posteriors.shape[1]))[0]
    scales = [tuple(test_scales or (run.recipe.validation_scale,)) for run in runs]
    for run, of_run in zip(runs, scales, strict=True):
        for scale in of_run:
            check_test_scale(scale, run.recipe.crop_size)
    passes = [(run, scale) for run, of_run in zip(runs, scales, strict=True) for scale in of_run]
    rate = rater(classifiers)
    boxes = np.zeros((*classes.shape, 4), np.float32)
    with Meter(float(len(pictures) * sum(scale**2 for _, scale in passes))) as meter:
        for start in range(0, len(pictures), _CHUNK):
            places = range(start, min(start + _CHUNK, len(pictures)))
            seen = see_everywhere(pictures, places, passes, rate, classes, batch_size, meter)
            for place in places:
                for k in range(classes.shape[1]):
                    merged, _ = merge(*seen[place][k], threshold)
                    boxes[place, k] = merged[0] if len(merged) else (0, 0, 1, 1)
    names = tuple(pictures.ids_of(range(len(pictures))))
    about = _about(runs, source, split, "dense", sorted({scale for _, scale in passes})) | {
        "classifiers": [str(c.path) for c in classifiers],
        "merge_threshold": threshold,
    }
    return Localised(names, labels, truth, classes, boxes, runs[0].class_names, about)


def _centre_frame(size: np.ndarray, scale: int, crop_size: int) -> np.ndarray:
    """Of the middle crop of `grid_crops`."""
    scaled = rescaled_size(size, scale).numpy()
    row, column = grid_origins(scaled, crop_size, 1).numpy()[:, 0]
    return np.array([column, row, crop_size, crop_size]) / np.tile(scaled[::-1], 2)


def _pictures(run: Run, source: Source, split: str, on_bad_image: str):
    """The pictures with usable boxes, those boxes, and labels as indices into the run's classes."""
    labels = labels_of_the_run(run, source, split)
    boxed = boxed_split(source, source[split], _boxes_file(run), skip_bad=on_bad_image == "skip")
    kept = np.isin(source[split].names_of(range(len(labels))), list(boxed.skipped), invert=True)
    return boxed.split, boxed.boxes, labels[kept]


def _boxes_file(run: Run) -> str | None:
    return run.recipe.boxes or None if isinstance(run.recipe, LocalisationRecipe) else None


def _original_sizes(pictures: Split) -> np.ndarray:
    examples = pictures.in_order().map(
        lambda e: upright_size(pictures.read(e)), num_parallel_calls=tf.data.AUTOTUNE
    )
    return np.array(list(examples.as_numpy_iterator())).reshape(-1, 2)


def _check_together(runs: Sequence[Run], classifiers: Sequence[Run]) -> None:
    if not runs or not classifiers:
        raise ValueError("Give one localisation run and one classification run at least.")
    for run in runs:
        if not isinstance(run.recipe, LocalisationRecipe):
            raise ValueError(f"{run.path} is no run of a localisation net.")
    for classifier in classifiers:
        if isinstance(classifier.recipe, LocalisationRecipe):
            raise ValueError(f"{classifier.path} is a localisation net; classifiers rate boxes.")
    for other in [*runs, *classifiers]:
        if other.class_names != runs[0].class_names:
            raise ValueError(f"{other.path} has other classes than {runs[0].path}.")
        if other.recipe.crop_size != runs[0].recipe.crop_size:
            raise ValueError(
                f"Nets must have one crop size, so that their maps have the same places. "
                f"Received: {other.recipe.crop_size} of {other.path} and "
                f"{runs[0].recipe.crop_size} of {runs[0].path}"
            )


def _about(runs, source: Source, split: str, protocol: str, scales: Sequence[int]) -> dict:
    recipe = runs[0].recipe
    return {
        "runs": [str(run.path) for run in runs],
        "net": recipe.net,
        "regression": recipe.regression,
        "tuned": recipe.tuned,
        "train_scale": [list(run.recipe.train_scale) for run in runs],
        "crop_size": recipe.crop_size,
        "width": recipe.width,
        "protocol": protocol,
        "test_scales": list(scales),
        "precision": recipe.precision,
        "data": source.spec,
        "split": split,
    }
