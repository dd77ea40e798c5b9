"""Compares an export with the Keras net that it was made of, signature by signature."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vgg_keras.errors import ArgumentError, RunError
from vgg_keras.pipelines.images import decode
from vgg_keras.saved_models.client import connect
from vgg_keras.saved_models.errors import RequestError, excerpt
from vgg_keras.saved_models.images import BROKEN, Limits, read_sizes
from vgg_keras.saved_models.records import Request
from vgg_keras.saved_models.replay import Reply, replay, replay_on_server
from vgg_keras.serving.expectations import Expectation, Expectations
from vgg_keras.serving.localise import Localisers
from vgg_keras.serving.source import load_localisers, load_source, read_export
from vgg_keras.trained import TrainedNet

log = logging.getLogger(__name__)

# Relative to the greatest value: what another order of summation makes; for bfloat16, the distance
# of neighbouring numbers.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Check:
    """Comparison of one signature with the Keras net.

    Attributes:
        signature: name of the signature.
        request: description of the request, in words.
        difference: greatest difference of all outputs, relative to the greatest value. It is
            infinite if a class name or an error message differs, and None if the check was
            skipped.
        tolerance: greatest difference that is allowed.
        seconds: median duration of a request, divided by its number of images. It is None if the
            check was skipped.
        skipped: why a server refused to answer, if it did; else "".

    Example:
        checks, load_seconds = verify("exports/vgg16/1")
        print([check.signature for check in checks if not check.passed])
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


def verify(
    path: str | os.PathLike,
    net: TrainedNet | None = None,
    photos: Sequence[str | os.PathLike] = (),
    localisers: Localisers | None = None,
    *,
    url: str | None = None,
    repeats: int = 3,
    verbose: int | str = "auto",
) -> tuple[list[Check], float | None]:
    """Compares all signatures of an export with the net that it was made of.

    A fresh process loads the export and answers the requests. With `url` a server answers them.

    Args:
        path: folder of the version.
        net: net that the export was made of; by default loaded from where the export was made.
        photos: JPEG or PNG files; by default one that comes with Matplotlib.
        localisers: localisation nets that the export was made with; by default loaded from where
            the export was made.
        url: server that serves the export, see `connect`; by default a fresh process. A server
            that refuses `classify`, because it is not made for Predict requests, skips its check.
        repeats: number of requests that are timed.
        verbose: 0 for silence; 1 or "auto" for progress on standard error.

    Returns:
        Checks of every signature, and the number of seconds that loading took; None for a server.

    Raises:
        ExportError: the folder is no export, or was made of a model in memory: give `net`.
        RunError, WeightsError: the net is another one, or cannot be loaded.
        ReplayError: the export cannot be loaded or fails.
        RequestError: the server cannot be reached, refuses a request, or gives other outputs.
        ArgumentError: the export refuses one of the photos, or a photo cannot be read.

    Example:
        checks, load_seconds = verify("exports/vgg16/1", photos=["cat.jpg"])
        assert all(check.passed for check in checks)
    """
    metadata = read_export(path)
    if net is None:
        net = load_source(metadata)
    _check_same_net(path, metadata, net)
    names = [os.fspath(photo) for photo in photos] or [_photo_of_matplotlib()]
    _check_photos(names, Limits(**metadata["limits"]))
    localisers = localisers or load_localisers(metadata)
    if localisers:
        localisers = localisers.in_precision(metadata["precision"])
    net = net.in_precision(metadata["precision"])
    expectations = Expectations(net, metadata, names, verbose).all(localisers)
    log.log(logging.INFO if verbose else logging.DEBUG, "%d requests", len(expectations))
    requests = [expectation.request for expectation in expectations]
    replies, load_seconds = _send(path, requests, url, repeats)
    tolerance = TOLERANCES[metadata["precision"]]
    checks = [_check(e, r, tolerance) for e, r in zip(expectations, replies, strict=True)]
    return checks, load_seconds


def _send(
    path: str | os.PathLike, requests: Sequence[Request], url: str | None, repeats: int
) -> tuple[list[Reply], float | None]:
    """Replies of a fresh process or of a server, and the seconds that loading took."""
    if url is None:
        return replay(path, requests, repeats)
    return replay_on_server(connect(url), requests, repeats), None


def _check(expectation: Expectation, reply: Reply, tolerance: float) -> Check:
    signature, description = expectation.request.signature, expectation.description
    if reply.error:
        return Check(signature, description, None, tolerance, None, reply.error)
    seconds = float(np.median(reply.seconds)) / expectation.count
    try:
        difference = expectation.difference(reply.outputs)
    except (LookupError, TypeError, ValueError) as error:
        shapes = ", ".join(f"{k} {v.dtype} {v.shape}" for k, v in reply.outputs.items())
        raise RequestError(
            f"The answer of {signature} must have the outputs of the export. Received: "
            f"{excerpt(shapes)} ({excerpt(repr(error))})"
        ) from error
    return Check(signature, description, difference, tolerance, seconds)


def _check_photos(photos: Sequence[str], limits: Limits) -> None:
    """Raises ArgumentError for a photo that the export refuses."""
    files = [Path(photo).read_bytes() for photo in photos]
    errors = [error.decode() for error in read_sizes(tf.constant(files), limits)[1].numpy()]
    for photo, file, error in zip(photos, files, errors, strict=True):
        try:
            error or decode(file)
        except tf.errors.InvalidArgumentError:
            error = BROKEN
        if error:
            raise ArgumentError(f"{photo} {error}. Give other photos to compare on.", "photos")


def _check_same_net(path: str | os.PathLike, metadata: Mapping[str, Any], net: TrainedNet) -> None:
    facts = net.metadata() | {"class_names": list(net.class_names)}
    decisive = ("net", "crop_size", "width", "pool_rounding", "class_names")
    different = [name for name in decisive if metadata[name] != facts[name]]
    if different:
        raise RunError(
            f"{path} was made of another net than {net.name}: {', '.join(different)} differ"
        )


def _photo_of_matplotlib() -> str:
    from matplotlib.cbook import get_sample_data

    return str(get_sample_data("grace_hopper.jpg", asfileobj=False))
