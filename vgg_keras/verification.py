"""An export compared with the Keras net that it was made of, signature by signature."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vgg_keras.evaluation.predict import predict
from vgg_keras.ilsvrc import label
from vgg_keras.localisation.dense import make_finder
from vgg_keras.localisation.merging import answer
from vgg_keras.localisation.serving import Localisers
from vgg_keras.models import fully_convolutional
from vgg_keras.pipelines.images import decode, rescale
from vgg_keras.runs import Run, RunError, in_precision
from vgg_keras.saved_models.client import connect
from vgg_keras.saved_models.export import read_metadata
from vgg_keras.saved_models.images import BROKEN, Limits, read_sizes
from vgg_keras.saved_models.records import CLASSIFY, Request, examples
from vgg_keras.saved_models.replay import Reply, replay, replay_on_server
from vgg_keras.saved_models.tensors import Tensors, image_inputs

log = logging.getLogger(__name__)

# Of the greatest value: summation in another order; of bfloat16, one of its steps.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Check:
    """Comparison of one signature with the Keras net.

    Attributes:
        signature: name of the signature.
        request: description of the request.
        difference: greatest difference of all outputs, relative to the greatest value. It is
            infinite if a class name or an error message differs, and None if the check was
            skipped.
        tolerance: greatest difference that is allowed.
        seconds: median duration of a request, divided by its number of images. It is None if the
            check was skipped.
        skipped: why a server refused to answer, if it did; else "".
    """

    signature: str
    request: str
    difference: float | None
    tolerance: float
    seconds: float | None
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether the difference is allowed; a skipped check passes."""
        return self.difference is None or self.difference <= self.tolerance


@dataclass(frozen=True, eq=False)
class _Trial:
    """A request, and how far a reply to it is from what the Keras net says."""

    request: Request
    metadata: str
    pictures: int
    difference: Callable[[Tensors], float]


def verify(
    path: str | os.PathLike,
    run: Run,
    photos: Sequence[str | os.PathLike] = (),
    localisers: Localisers | None = None,
    *,
    url: str | None = None,
    repeats: int = 3,
) -> tuple[list[Check], float | None]:
    """Compares all signatures of an export with the run that it was made of.

    A fresh process loads the export and answers the requests, or a server that already runs.

    Args:
        path: version folder.
        run: from `load_run` or `load_weights_file`.
        photos: JPEG or PNG files; by default one that comes with Matplotlib.
        localisers: that the export was made with, if any.
        url: server that serves the export, see `connect`; by default a fresh process. A server
            that refuses `classify`, because it is not made for Predict requests, skips its check.
        repeats: number of requests that are timed.

    Returns:
        A check of every signature, and the number of seconds that loading took; None for a server.

    Raises:
        ExportError: the folder is no export.
        RunError: the run has other classes or another geometry.
        ReplayError: the export cannot be loaded or fails.
        RequestError: the server cannot be reached or refuses a request.
        ValueError: the export refuses one of the photos, or it is broken.
        OSError: a photo cannot be read.
    """
    metadata = read_metadata(path)
    _check_same_net(path, metadata, run)
    names = [os.fspath(photo) for photo in photos] or [_photo_of_matplotlib()]
    encoded = [Path(name).read_bytes() for name in names]
    _refuse_refused(names, encoded, Limits(**metadata["limits"]))
    run = in_precision(run, metadata["precision"])
    trials = _trials(run, metadata, names, encoded)
    if localisers:
        runs = [in_precision(one, metadata["precision"]) for one in localisers.runs]
        trials.append(_of_boxes(run, replace(localisers, runs=runs), metadata, names, encoded))
    log.info("%d requests, %d times each", len(trials), repeats + 1)
    requests = [trial.request for trial in trials]
    load_seconds = None
    if url is None:
        replies, load_seconds = replay(path, requests, repeats)
    else:
        replies = replay_on_server(connect(url), requests, repeats)
    tolerance = TOLERANCES[metadata["precision"]]
    checks = [_check(trial, r, tolerance) for trial, r in zip(trials, replies, strict=True)]
    return checks, load_seconds


def _check(trial: _Trial, reply: Reply, tolerance: float) -> Check:
    signature = trial.request.signature
    if reply.error:
        return Check(signature, trial.metadata, None, tolerance, None, reply.error)
    seconds = float(np.median(reply.seconds)) / trial.pictures
    return Check(signature, trial.metadata, trial.difference(reply.outputs), tolerance, seconds)


def _trials(
    run: Run, metadata: dict[str, Any], photos: Sequence[str], encoded: Sequence[bytes]
) -> list[_Trial]:
    """A request to each signature with what the Keras net says; `images` gets one a photo."""
    scales, flip, mean = metadata["test_scales"], metadata["flip"], np.float32(metadata["mean"])
    dense = {"flip": flip, "map_average": metadata["map_average"]}
    names = np.array([label(name) for name in run.class_names], object)
    count = f"{len(photos)} photo{'s' * (len(photos) > 1)}"

    posteriors = predict(run, photos, test_scales=scales, **dense).posteriors
    at_first = posteriors
    if len(scales) > 1:
        at_first = predict(run, photos, test_scales=scales[:1], **dense).posteriors
    trials = [
        _Trial(
            Request("serving_default", image_inputs(encoded)),
            count,
            len(photos),
            lambda found: max(
                top_difference(found["classes"], found["probabilities"], posteriors),
                name_difference(found["class_names"], names[found["classes"]]),
                name_difference(found["error"], ""),
            ),
        ),
        _Trial(
            Request("classify", examples(encoded), CLASSIFY),
            count,
            len(photos),
            lambda found: max(
                value_difference(found["scores"], _top(posteriors, metadata["top"])),
                value_difference(
                    found["scores"], _posteriors_of(found["classes"], names, posteriors)
                ),
            ),
        ),
        _Trial(
            Request("features", image_inputs(encoded)),
            count,
            len(photos),
            lambda found: max(
                value_difference(found["features"], descriptors),
                name_difference(found["error"], ""),
            ),
        ),
    ]
    pictures = [decode(picture) for picture in encoded]
    descriptors = np.stack([_descriptor(run, picture, scales, flip, mean) for picture in pictures])

    images = [rescale(picture, scales[0])[None].numpy() for picture in pictures]
    maps = fully_convolutional(run.model)
    for image, expected in zip(images, at_first, strict=True):
        score_map = maps.predict_on_batch(image - mean)["score_map"]
        trials.append(_of_image(image, score_map, expected))
    side = run.recipe.crop_size
    crops = np.concatenate([image[:, :side, :side] for image in images])
    scores = run.model.predict_on_batch(crops - mean)  # (B, classes): a map of one place
    trials.append(
        _Trial(
            Request("crops", {"crops": crops}),
            f"{len(crops)} x {side} x {side}",
            len(crops),
            lambda found: max(
                value_difference(found["probabilities"], tf.nn.softmax(scores).numpy()),
                value_difference(found["score_map"], scores[:, None, None]),
            ),
        )
    )
    return trials


def _of_image(image: np.ndarray, score_map: np.ndarray, posteriors: np.ndarray) -> _Trial:
    return _Trial(
        Request("images", {"images": image}),
        f"{image.shape[1]} x {image.shape[2]}",
        1,
        lambda found: max(
            value_difference(found["score_map"], score_map),
            value_difference(found["probabilities"][0], posteriors),
        ),
    )


def _of_boxes(run: Run, localisers: Localisers, metadata, photos, encoded) -> _Trial:
    """`localise`: the boxes that finding and merging, picture by picture, give for its classes."""
    flip, scales = metadata["flip"], metadata["test_scales"]
    dense = {"flip": flip, "map_average": metadata["map_average"]}
    posteriors = predict(run, photos, test_scales=scales, **dense).posteriors
    finders = [(make_finder(one, [run], flip), q) for one, q in localisers.passes()]

    def difference(found):
        expected = []
        for picture, classes in zip(encoded, found["classes"], strict=True):
            image = decode(picture)
            views = [find(rescale(image, q)[None], classes[None])[0] for find, q in finders]
            height, width = image.shape[:2]
            boxes = answer(tf.concat(views, 1), localisers.threshold)
            expected.append(boxes.numpy() * [width, height, width, height])
        return max(
            top_difference(found["classes"], found["probabilities"], posteriors),
            value_difference(found["boxes"], np.stack(expected)),
            name_difference(found["error"], ""),
        )

    count = f"{len(photos)} photo{'s' * (len(photos) > 1)}"
    return _Trial(Request("localise", image_inputs(encoded)), count, len(photos), difference)


def _descriptor(run, picture, scales, flip, mean) -> np.ndarray:
    """§B from Keras's own layers, picture by picture; float32 `(D,)`, L2 norm 1."""
    penultimate = keras.Model(run.model.input, run.model.get_layer("fc2").output)
    parts = []
    for scale in scales:
        image = rescale(picture, scale)[None].numpy() - mean
        for view in (image, image[:, :, ::-1])[: 1 + flip]:
            activations = penultimate.predict_on_batch(np.ascontiguousarray(view))
            parts.append(np.asarray(activations, np.float32).mean((0, 1, 2)))
    descriptor = np.mean(parts, 0)
    return descriptor / max(np.linalg.norm(descriptor), 1e-6)


def value_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Greatest difference, relative to the greatest value; infinite where there is none."""
    if found.shape != expected.shape or not np.isfinite([found, expected]).all():
        return float("inf")
    difference = np.abs(found.astype(np.float64) - expected).max(initial=0)
    return float(difference / max(np.abs(expected).max(initial=0), 1e-30))


def name_difference(found: np.ndarray, expected: np.ndarray | str) -> float:
    """0 where all names are the expected ones, else infinite."""
    decoded = np.vectorize(bytes.decode, otypes=[object])(found)
    return 0.0 if np.all(decoded == expected) else float("inf")


def _posteriors_of(labels: np.ndarray, names: np.ndarray, posteriors: np.ndarray) -> np.ndarray:
    """Posteriors of classes by their labels, NaN for an unknown one."""
    places = {name.encode(): i for i, name in enumerate(names)}
    return np.array(
        [
            [row[places[name]] if name in places else np.nan for name in of_photo]
            for of_photo, row in zip(labels, posteriors, strict=True)
        ]
    )


def top_difference(classes: np.ndarray, probabilities: np.ndarray, posteriors: np.ndarray) -> float:
    """The same for the most probable classes; those as probable as each other may change places."""
    named = np.take_along_axis(posteriors, classes.clip(0), 1)
    expected = _top(posteriors, classes.shape[1])
    return max(value_difference(probabilities, named), value_difference(probabilities, expected))


def _top(posteriors: np.ndarray, k: int) -> np.ndarray:
    return np.sort(posteriors, 1)[:, ::-1][:, :k]


def _refuse_refused(photos: Sequence[str], encoded: Sequence[bytes], limits: Limits) -> None:
    errors = [error.decode() for error in read_sizes(tf.constant(encoded), limits)[1].numpy()]
    for i, picture in enumerate(encoded):
        try:
            errors[i] or decode(picture)
        except tf.errors.InvalidArgumentError:
            errors[i] = BROKEN
    for photo, error in zip(photos, errors, strict=True):
        if error:
            raise ValueError(f"{photo} {error}. Give other photos to compare on.")


def _check_same_net(path, metadata: dict[str, Any], run: Run) -> None:
    mine = {
        "net": run.recipe.net,
        "crop_size": run.recipe.crop_size,
        "width": run.recipe.width,
        "pool_rounding": run.pool_rounding,
        "class_names": list(run.class_names),
    }
    other = [name for name, value in mine.items() if metadata[name] != value]
    if other:
        raise RunError(f"{path} was made of another net than {run.path}: {', '.join(other)} differ")


def _photo_of_matplotlib() -> str:
    from matplotlib.cbook import get_sample_data

    return str(get_sample_data("grace_hopper.jpg", asfileobj=False))
