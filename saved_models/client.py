"""Client of TensorFlow Serving: one interface for REST and gRPC.

    server = connect("http://localhost:8501/v1/models/vgg16")      # REST
    server = connect("grpc://localhost:8500/vgg16")                # gRPC
    for answer in classify(server, [Path("photo.jpg").read_bytes()]):
        print(answer.class_names[0], answer.probabilities[0], answer.error)

gRPC sends image files as they are. REST sends them as base64, which is a third longer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import numpy as np

from vgg_keras.pipelines.checks import check_at_least, check_choice
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.saved_models.errors import RequestError, excerpt
from vgg_keras.saved_models.grpc_client import GrpcServer
from vgg_keras.saved_models.rest_client import RestServer
from vgg_keras.saved_models.tensors import MAX_BYTES, TIMEOUT, Tensors, image_inputs

CLASSIFICATION, LOCALISATION = SIGNATURES = "serving_default", "localise"


class Server(Protocol):
    """A model on a server.

    ```python
    server: Server = connect("http://localhost:8501/v1/models/vgg16")
    server.predict({"images": pixels}, "images")["score_map"]
    ```
    """

    def predict(self, inputs: Tensors, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Sends one request and returns the outputs by name; strings are bytes.

        Raises:
            RequestError: the server cannot be reached, takes too long, or refuses the request;
                or its answer is too large or has no tensors.
        """
        ...


@dataclass(frozen=True)
class Answer:
    """Classification of one image by a server.

        (answer,) = classify(connect(url), [Path("photo.jpg").read_bytes()])
        print(answer.class_names[0], answer.probabilities[0], answer.error)

    Attributes:
        classes: indices of the most probable classes, best first; -1 if the image was refused.
        class_names: names of these classes.
        probabilities: probabilities of these classes, in 0..1.
        error: why the image was refused; "" if it was not.
        boxes: a box of each class, `(x_min, y_min, x_max, y_max)` in pixels of the upright image;
            empty if the signature gives none.
    """

    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str = ""
    boxes: tuple[tuple[float, ...], ...] = ()


def connect(url: str, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES) -> Server:
    """Returns a client for a model on a server. It sends nothing yet.

        connect("grpc://localhost:8500/vgg16").predict({"images": pixels}, "images")["score_map"]

    Args:
        url: `http[s]://HOST:PORT/v1/models/NAME[/versions/N]` for REST, or
            `grpc://HOST:PORT/NAME[/versions/N]`. `http[s]://USER:PASSWORD@HOST...` sends basic
            authentication.
        timeout: number of seconds for a request and its answer.
        max_bytes: largest number of bytes of an answer. Numbers in REST's text take several times
            as much memory.

    Raises:
        ArgumentError: the URL has another form, or a limit is not above 0.
    """
    if not timeout > 0:
        raise ArgumentError(f"timeout must be above 0 seconds. Received: {timeout}", "timeout")
    check_at_least("max_bytes", max_bytes, 1)
    match = _URL.fullmatch(url)
    if not match or not _has_valid_port(url):
        raise ArgumentError(
            "url must be http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME, either of them "
            f"with /versions/N at the end or without. Received: {_without_credentials(url)!r}",
            "url",
        )
    if match["grpc"]:
        version = int(match["version"]) if match["version"] else None
        return GrpcServer(match["grpc"], match["name"], version, timeout, max_bytes)
    return RestServer(url.rstrip("/"), timeout, max_bytes)


_NAME = r"[^/:?#\x00-\x1f\x7f]+"
_URL = re.compile(
    rf"(grpc://(?P<grpc>[^/?#@\s]+)/(?P<name>{_NAME})|https?://[^/?#\s]+/v1/models/{_NAME})"
    r"(/versions/(?P<version>\d{1,18}))?/?",
    re.ASCII,
)


def _has_valid_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:  # no number, above 65535, or a bracket that is not closed
        return False


def _without_credentials(url: str) -> str:
    """The URL without what stands before the last @, which may be a password."""
    return re.sub(r"(?s)(?<=//).*@", "", url) if "//" in url else url.rpartition("@")[2]


def classify(
    server: Server,
    images: Iterable[bytes],
    batch_size: int = 8,
    signature: str = CLASSIFICATION,
) -> Iterator[Answer]:
    """Classifies images on a server: yields one answer for each image, in order.

        for answer in classify(connect(url), [Path("photo.jpg").read_bytes()]):
            print(answer.error or answer.class_names[0])

    Args:
        server: server from `connect`.
        images: JPEG or PNG files. They are read one batch at a time.
        batch_size: number of images in a request, 1 or more.
        signature: "serving_default", or "localise" for boxes too, if the export has it.

    Raises:
        RequestError: see `Server.predict`; or the model was not exported by vgg-keras.
        ArgumentError: the batch size is below 1, or there is no such signature.
    """
    check_at_least("batch_size", batch_size, 1)
    check_choice("signature", signature, SIGNATURES)
    images = iter(images)
    while batch := list(itertools.islice(images, batch_size)):
        yield from _answers(server.predict(image_inputs(batch), signature), len(batch), signature)


class _Rule(NamedTuple):
    """What an output of a signature must be: kinds of its dtype, dimensions, and range."""

    kinds: str
    ndim: int
    low: float = -np.inf
    high: float = np.inf


_RULES = {
    "classes": _Rule("iu", 2, low=-1),
    "class_names": _Rule("O", 2),
    "probabilities": _Rule("fiu", 2, 0, 1.001),  # JSON has whole numbers; means are rounded
    "error": _Rule("O", 1),
}


_BOXES = {"boxes": _Rule("fiu", 3, 0)}  # of the signature `localise`


class _Outputs(NamedTuple):
    """The outputs of a signature for a number of images."""

    outputs: Tensors
    images: int
    signature: str

    def column(self, name: str, rule: _Rule) -> np.ndarray:
        """An output with one row for each image; strings are decoded."""
        column = self.outputs.get(name)
        if column is None or column.dtype.kind not in rule.kinds or column.ndim != rule.ndim:
            raise self.malformed(
                f"lacks the output {name!r} in the form that exports of vgg-keras have"
            )
        if len(column) != self.images:
            raise self.malformed(f"has not one value of {name!r} for each of {self.images} images")
        if rule.kinds == "O":
            try:
                return np.vectorize(bytes.decode, otypes=[object])(column)
            except (TypeError, UnicodeDecodeError) as error:
                raise self.malformed(f"has {name!r} that are not UTF-8 strings") from error
        if not ((column >= rule.low) & (column <= rule.high)).all():  # NaN is not in it either
            raise self.malformed(f"has {name!r} that are not from {rule.low} to {rule.high}")
        return column

    def malformed(self, reason: str) -> RequestError:
        """The error about outputs that are not those of an export."""
        shapes = ", ".join(f"{k} {array.dtype} {array.shape}" for k, array in self.outputs.items())
        return RequestError(
            f"The model's {self.signature} {reason}. Its outputs: {excerpt(shapes)}"
        )


def _answers(outputs: Tensors, count: int, signature: str) -> Iterator[Answer]:
    """Answers for `count` images.

    Raises:
        RequestError: the outputs are not those of an export of vgg-keras for so many images.
    """
    rules = _RULES | (_BOXES if signature == LOCALISATION else {})
    found = _Outputs(outputs, count, signature)
    columns = {name: found.column(name, rule) for name, rule in rules.items()}
    if len({column.shape[:2] for column in columns.values() if column.ndim > 1}) > 1:
        raise found.malformed("does not have one name and one probability for each class")
    boxes = columns.get("boxes", np.empty((count, 0, 4)))
    of_classes = (columns[name] for name in _RULES)
    for classes, names, probabilities, error, of_image in zip(*of_classes, boxes, strict=True):
        yield Answer(
            tuple(map(int, classes)),
            tuple(names),
            tuple(map(float, probabilities)),
            error,
            tuple(tuple(map(float, box)) for box in of_image),
        )
