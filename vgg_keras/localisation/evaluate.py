"""Where nets say that objects are, by the two protocols of §A.1."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vgg_keras.distribution import on_all_devices
from vgg_keras.evaluation.cache import digest_of, open_row_cache
from vgg_keras.evaluation.evaluate import labels_of_the_run, plan, score
from vgg_keras.evaluation.meter import Meter
from vgg_keras.evaluation.predictions import Predictions, top_classes
from vgg_keras.localisation.dense import Finder, boxes_of, make_finder
from vgg_keras.localisation.merging import THRESHOLD, answer, check_threshold
from vgg_keras.localisation.results import Localised
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.boxes import from_window
from vgg_keras.pipelines.checks import check_test_scale
from vgg_keras.pipelines.evaluation import grid_crops, grid_origins, whole_images
from vgg_keras.pipelines.images import rescaled_size, upright_size
from vgg_keras.pipelines.screening import naming_bad_images
from vgg_keras.pipelines.splits import VALIDATION, Source, Split
from vgg_keras.recipes import LocalisationRecipe
from vgg_keras.runs import Run

ANSWERS = 5  # classes with a box each, the ILSVRC rule
_ANY_SIZE = [  # one trace for pictures of all sizes
    tf.TensorSpec((None, None, None, 3), tf.float32),
    tf.TensorSpec((None, None), tf.int64),
]
_CHUNK = 256  # pictures that go through all nets and scales before their boxes are merged


def centre_of_true_class(
    run: Run,
    source: Source,
    split: str = VALIDATION,
    *,
    test_scale: int | None = None,
    batch_size: int = 64,
    on_bad_image: str = "stop",
    boxes: str | os.PathLike | None = None,
) -> Localised:
    """The first protocol: the central crop, and the box of the true class.

    Args:
        run: of a localisation net.
        source, split: pictures with boxes whose classes the run knows.
        test_scale: Q; by default the training scale.
        batch_size: crops that pass through the net together.
        on_bad_image: "stop", or "skip" for pictures whose boxes cannot be used.
        boxes: file of the true boxes, see `boxed_split`; by default the run's.

    Raises:
        SourceError, BadImageError: the data cannot be used.
        ValueError: no localisation net, or a scale below the crop size.
    """
    pictures, truth, labels = _pictures(run, source, split, on_bad_image, boxes)
    ((scale,),) = scales_of([run], (test_scale,) if test_scale else None)
    see, answers = boxes_of(run), np.zeros((len(pictures), 1, 4), np.float32)
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
                answers[place, 0] = np.clip(from_window(one, frame), 0, 1)
    names = tuple(pictures.ids_of(range(len(pictures))))
    metadata = _about([run], [(scale,)], source, split, "centre-gt")
    return Localised(names, labels, truth, labels[:, None], answers, run.class_names, metadata)


def localise(
    runs: Sequence[Run],
    source: Source,
    split: str = VALIDATION,
    *,
    classifiers: Sequence[Run],
    test_scales: Sequence[int] | Sequence[Sequence[int]] | None = None,
    predictions: Predictions | None = None,
    threshold: float = THRESHOLD,
    flip: bool = True,
    batch_size: int = 64,
    on_bad_image: str = "stop",
    boxes: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Localised:
    """The full protocol: boxes at every place and scale, merged, for the five best classes.

    Args:
        runs: of localisation nets; with several the union of their boxes is merged.
        source, split: pictures with boxes whose classes the runs know.
        classifiers: classification runs of the same classes. The mean of their dense posteriors
            names five classes; that at each place rates the boxes seen from there.
        test_scales: Q of all runs, or a sequence for each (Table 9's fusion); by default each
            net's training scale.
        predictions: of the same pictures, to take the five classes from, such as a fusion of
            the best nets (§4.5); by default the classifiers' own, dense.
        threshold: of `merge`.
        flip: look at mirror images too, as in classification (§3.2).
        batch_size: memory, as for `PassRunner`.
        on_bad_image: "stop", or "skip" for pictures whose boxes cannot be used.
        boxes: file of the true boxes, see `boxed_split`; by default that of the first run.
        cache_dir: folder for answers while they are made; a run that was killed goes on from there.

    Raises:
        SourceError, BadImageError: the data cannot be used.
        PredictionsError: `predictions` are of other pictures or classes.
        ValueError: nets that do not go together, or a scale below the crop size.
        OSError: the folder to keep answers in cannot be written.
    """
    check_together(runs, classifiers)
    check_threshold(threshold)
    cache_dir = Path(cache_dir) if cache_dir else None
    scales = scales_of(runs, test_scales)
    pictures, truth, labels = _pictures(runs[0], source, split, on_bad_image, boxes)
    names = tuple(pictures.ids_of(range(len(pictures))))
    if predictions is None:
        posteriors = _posteriors(classifiers, pictures, batch_size, cache_dir)
    else:
        posteriors = predictions.of(names, runs[0].class_names)
    classes = top_classes(posteriors, min(ANSWERS, posteriors.shape[1]))[0]
    passes = [(run, scale) for run, of_run in zip(runs, scales, strict=True) for scale in of_run]
    metadata = _about(runs, scales, source, split, "dense") | {
        "classifiers": [str(c.path) for c in classifiers],
        "merge_threshold": threshold,
        "flip": flip,
    }
    # All that decides the answers, but for the contents of the pictures.
    decisive = [names, classes.tolist(), threshold, flip, [(runs.index(r), q) for r, q in passes]]
    if cache_dir:
        nets = [*runs, *classifiers]
        decisive += [[digest_of(one.model), one.statistics.mean] for one in nets]
    answers = open_row_cache(cache_dir, "answers", decisive, (*classes.shape, 4))
    finders = {
        id(run): tf.function(
            functools.partial(on_all_devices, run.model, make_finder(run, classifiers, flip)),
            input_signature=_ANY_SIZE,
            autograph=False,
        )
        for run in runs
    }
    # A row that was cut off by a kill still holds NaN.
    to_do = np.flatnonzero(np.isnan(answers).any((1, 2)))
    merge = tf.function(
        lambda found: answer(found, threshold),
        input_signature=[tf.TensorSpec((None, None, 5), tf.float32)],
        autograph=False,
    )
    with Meter(float(len(to_do) * sum(scale**2 for _, scale in passes))) as meter:
        for chunk in np.split(to_do, range(_CHUNK, len(to_do), _CHUNK)):
            seen: dict[int, list] = {place: [] for place in chunk}
            for run, scale in passes:
                find = finders[id(run)]
                devices = run.model.distribute_strategy.num_replicas_in_sync
                pixels = batch_size * devices * run.recipe.crop_size**2 // (1 + flip)
                meter.start(f"{run.path.name} Q={scale}", len(chunk), float(scale**2))
                for batch, found in _found(find, pictures, chunk, scale, classes, pixels):
                    for place, of_picture in zip(batch, found, strict=True):
                        seen[place].append(of_picture)
                    meter.advance(len(batch))
                meter.finish()
            for place in chunk:
                answers[place] = merge(np.concatenate(seen[place], 1))
    return Localised(
        names, labels, truth, classes, np.array(answers), runs[0].class_names, metadata
    )


def _found(
    find: Finder, pictures: Split, chunk: np.ndarray, scale: int, classes: np.ndarray, pixels: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of some pictures, `(B,)`, and what is found in them, `(B, A, P, 5)`."""
    wanted = np.zeros(len(pictures), bool)
    wanted[chunk] = True
    with naming_bad_images(pictures):
        for places, views in whole_images(
            pictures, test_scale=scale, batch_pixels=pixels, wanted=wanted
        ):
            yield places.numpy(), find(views[:, 0], classes[places.numpy()]).numpy()


def scales_of(
    runs: Sequence[Run], test_scales: Sequence[int] | Sequence[Sequence[int]] | None
) -> list[tuple[int, ...]]:
    """Q of each run: what is given for all of them, or for each, or its training scale.

    Raises:
        ValueError: a scale below the crop size, or sequences that are not one a run.
    """
    given: list = list(test_scales or [(run.recipe.validation_scale,) for run in runs])
    if all(isinstance(scale, int) for scale in given):
        given = [given] * len(runs)
    scales = [tuple(of_run) for of_run in given]
    if len(scales) != len(runs):
        raise ValueError(
            f"test_scales must be those of all runs, or a sequence for each of them. Received: "
            f"{len(scales)} for {len(runs)} runs"
        )
    for run, of_run in zip(runs, scales, strict=True):
        for scale in of_run:
            check_test_scale(scale, run.recipe.crop_size)
    return scales


def _posteriors(
    classifiers: Sequence[Run], pictures: Split, batch_size: int, cache_dir
) -> np.ndarray:
    """The mean of the classifiers' dense posteriors (§3.2)."""
    return np.mean(
        [
            score(c, pictures, plan(c.recipe, "dense"), batch_size=batch_size, cache_dir=cache_dir)[
                1
            ]
            for c in classifiers
        ],
        0,
    )


def _centre_frame(size: np.ndarray, scale: int, crop_size: int) -> np.ndarray:
    """Of the middle crop of `grid_crops`."""
    scaled = rescaled_size(size, scale).numpy()
    row, column = grid_origins(scaled, crop_size, 1).numpy()[:, 0]
    frame = np.array([column, row, crop_size, crop_size]) / np.tile(scaled[::-1], 2)
    return frame.astype(np.float32)


def _pictures(run: Run, source: Source, split: str, on_bad_image: str, boxes):
    """The pictures with usable boxes, those boxes, and labels as indices into the run's classes."""
    labels = labels_of_the_run(run, source, split)
    file = boxes or recipe_of(run).boxes or None
    boxed = boxed_split(source, source[split], file, skip_bad=on_bad_image == "skip")
    kept = np.isin(source[split].names_of(range(len(labels))), list(boxed.skipped), invert=True)
    return boxed.split, boxed.boxes, labels[kept]


def _original_sizes(pictures: Split) -> np.ndarray:
    examples = pictures.in_order().map(
        lambda e: upright_size(pictures.read(e)), num_parallel_calls=tf.data.AUTOTUNE
    )
    return np.array(list(examples.as_numpy_iterator())).reshape(-1, 2)


def check_together(runs: Sequence[Run], classifiers: Sequence[Run]) -> None:
    """Raises ValueError for nets that cannot localise together; the message names one."""
    if not runs or not classifiers:
        raise ValueError("Give one localisation run and one classification run at least.")
    for run in runs:
        recipe_of(run)
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


def recipe_of(run: Run) -> LocalisationRecipe:
    """The recipe of a localisation net; raises ValueError for another's."""
    if not isinstance(run.recipe, LocalisationRecipe):
        raise ValueError(f"{run.path} is no run of a localisation net.")
    return run.recipe


def _about(
    runs: Sequence[Run], scales: Sequence[Sequence[int]], source: Source, split: str, protocol: str
) -> dict:
    """What was measured: of one run its own keys, of several `members`, as in classification."""
    members = [
        {
            "run": str(run.path),
            "net": run.recipe.net,
            "regression": recipe_of(run).regression,
            "tuned": recipe_of(run).tuned,
            "train_scale": list(run.recipe.train_scale),
            "crop_size": run.recipe.crop_size,
            "width": run.recipe.width,
            "test_scales": list(of_run),
            "precision": run.recipe.precision,
        }
        for run, of_run in zip(runs, scales, strict=True)
    ]
    nets = members[0] if len(members) == 1 else {"members": members}
    return nets | {"protocol": protocol, "data": source.spec, "split": split}
