"""Client of TensorFlow Serving: one interface for REST and gRPC.

    server = connect("http://localhost:8501/v1/models/vgg16")      # REST
    server = connect("grpc://localhost:8500/vgg16")                # gRPC
    for answer in classify(server, [Path("photo.jpg").read_bytes()]):
        print(answer.class_names[0], answer.probabilities[0], answer.error)

gRPC sends image files as they are. REST sends them as base64, which is a third longer.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import requests

from vgg_keras.pipelines.checks import check_at_least
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.saved_models.errors import RequestError
from vgg_keras.saved_models.tensors import Tensors, image_inputs

TIMEOUT = 60.0  # seconds


class Server(Protocol):
    """A model on a server."""

    def predict(self, inputs: Tensors, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Sends one request and returns the outputs by name; strings are bytes.

        Raises:
            RequestError: the server cannot be reached, takes too long, or refuses the request.
        """
        ...


@dataclass(frozen=True)
class Answer:
    """Classification of one image by a server.

    Attributes:
        classes: indices of the most probable classes, best first; -1 if the image was refused.
        class_names: names of these classes.
        probabilities: probabilities of these classes, in 0..1.
        error: why the image was refused; "" if it was not.
    """

    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str = ""


def connect(url: str, timeout: float = TIMEOUT) -> Server:
    """Returns a client for a model on a server. It sends nothing yet.

        connect("grpc://localhost:8500/vgg16").predict({"images": pixels}, "images")["score_map"]

    Args:
        url: `http[s]://HOST:PORT/v1/models/NAME[/versions/N]` for REST, or
            `grpc://HOST:PORT/NAME[/versions/N]`.
        timeout: number of seconds to wait for an answer. REST waits as long for the beginning of
            the answer, and then for each part of it.

    Raises:
        ArgumentError: the URL has another form, or the timeout is not above 0.
    """
    parts = urlsplit(url)
    prefix = "" if parts.scheme == "grpc" else "/v1/models"
    match = re.fullmatch(rf"{prefix}/([^/:]+)(?:/versions/(\d+))?/?", parts.path)
    known = parts.scheme in ("http", "https", "grpc") and parts.netloc
    if not known or not match or parts.query or parts.fragment:
        raise ArgumentError(
            "url must be http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME, either of them "
            f"with /versions/N at the end or without. Received: {url!r}",
            "url",
        )
    if not timeout > 0:
        raise ArgumentError(f"timeout must be above 0 seconds. Received: {timeout}", "timeout")
    if parts.scheme == "grpc":
        name, version = match.groups()
        return GrpcServer(parts.netloc, name, int(version) if version else None, timeout)
    return RestServer(url.rstrip("/"), timeout)


def classify(server: Server, images: Iterable[bytes], batch_size: int = 8) -> Iterator[Answer]:
    """Classifies images on a server: yields one answer for each image, in order.

        for answer in classify(connect(url), [Path("photo.jpg").read_bytes()]):
            print(answer.error or answer.class_names[0])

    Args:
        server: server from `connect`.
        images: JPEG or PNG files. They are read one batch at a time.
        batch_size: number of images in a request, 1 or more.

    Raises:
        RequestError: see `Server.predict`; or the model was not exported by vgg-keras.
        ArgumentError: the batch size is below 1.
    """
    check_at_least("batch_size", batch_size, 1)
    images = iter(images)
    while batch := list(itertools.islice(images, batch_size)):
        for classes, names, probabilities, message in _rows(
            server.predict(image_inputs(batch)), len(batch)
        ):
            yield Answer(
                tuple(int(index) for index in classes),
                tuple(name.decode() for name in names),
                tuple(float(probability) for probability in probabilities),
                message.decode(),
            )


def _rows(outputs: Tensors, count: int) -> Iterator[tuple]:
    """Rows of the outputs of `serving_default`, one for each image.

    Raises:
        RequestError: the outputs are not those of an export of vgg-keras for `count` images.
    """
    columns = []
    for name, (kinds, ndim) in _OUTPUTS.items():
        column = outputs.get(name)
        if column is None or column.dtype.kind not in kinds or column.ndim != ndim:
            raise RequestError(
                f"The model's serving_default lacks the output {name!r} in the form that exports "
                f"of vgg-keras have. Its outputs: {_shapes(outputs)}."
            )
        if len(column) != count or not all(isinstance(text, bytes) for text in _texts(column)):
            raise RequestError(
                f"{count} images were sent, and {name!r} does not have one value for each. "
                f"Its outputs: {_shapes(outputs)}."
            )
        columns.append(column)
    return zip(*columns, strict=True)


# By output: kinds of dtype (integers; strings as objects; floats and JSON's whole numbers), and
# the number of dimensions.
_OUTPUTS = {
    "classes": ("iu", 2),
    "class_names": ("O", 2),
    "probabilities": ("fiu", 2),
    "error": ("O", 1),
}


def _texts(column: np.ndarray) -> Iterable:
    return column.flat if column.dtype == object else ()


def _shapes(outputs: Tensors) -> str:
    return ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in outputs.items())


class RestServer:
    """A model on a server with TensorFlow Serving's REST interface, in its column format.

    See https://www.tensorflow.org/tfx/serving/api_rest. Use `connect` to make one.

    Args:
        url: URL of the model.
        timeout: number of seconds to wait for an answer.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT):
        self.url = url
        self.timeout = timeout
        self._session = requests.Session()

    def predict(self, inputs: Tensors, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """See `Server.predict`."""
        body = {
            "signature_name": signature,
            "inputs": {k: _to_json(v.tolist()) for k, v in inputs.items()},
        }
        try:
            response = self._session.post(
                f"{self.url}:predict", data=json.dumps(body), timeout=self.timeout
            )
        except requests.RequestException as error:
            raise RequestError(f"{self.url} does not answer: {error}") from error
        found = _json_object(response)
        if not response.ok or "outputs" not in found:
            text = found.get("error") or f"{response.reason}: {_beginning(response.text)}"
            raise RequestError(f"{self.url} answers {response.status_code} {text}")
        outputs = found["outputs"]
        if not isinstance(outputs, Mapping):  # the only output of a signature comes without a name
            outputs = {"outputs": outputs}
        try:
            return {name: _from_json(values) for name, values in outputs.items()}
        except (ValueError, TypeError) as error:
            raise RequestError(
                f"{self.url} answers with something that is not a tensor ({error}): "
                f"{_beginning(response.text)}"
            ) from error


class GrpcServer:
    """A model on a server with TensorFlow Serving's gRPC interface, `PredictionService`.

    Use `connect` to make one.

    Args:
        address: `HOST:PORT`.
        model: name of the model on the server.
        version: version of the model. By default the server chooses one.
        timeout: number of seconds to wait for an answer.
    """

    def __init__(
        self, address: str, model: str, version: int | None = None, timeout: float = TIMEOUT
    ):
        # These import TensorFlow, which REST does not need.
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        self.timeout = timeout
        self.address = address
        self._errors = grpc.RpcError
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = model
        if version is not None:
            self._request.model_spec.version.value = version
        # Score maps of large images exceed the 4 MB that gRPC allows by default.
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(address, unlimited)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(self, inputs: Tensors, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """See `Server.predict`."""
        import tensorflow as tf

        request = type(self._request)()
        request.CopyFrom(self._request)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        try:
            response = self._stub.Predict(request, timeout=self.timeout)
        except self._errors as error:
            raise RequestError(
                f"grpc://{self.address} answers {error.code().name}: {error.details()}"
            ) from error
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


def _to_json(values: Any) -> Any:
    """Numbers as they are and strings as {"b64": ...}, in lists of any depth."""
    if isinstance(values, list):
        return [_to_json(value) for value in values]
    if isinstance(values, bytes):
        return {"b64": base64.b64encode(values).decode()}
    return values


def _from_json(values: Any) -> np.ndarray:
    array = np.array(values)
    if array.dtype.kind == "U":
        array = np.vectorize(str.encode, otypes=[object])(array)
    return array


def _beginning(text: str) -> str:
    """The first words of an answer, on one line."""
    return " ".join(text[:400].split())[:200] or "nothing"


def _json_object(response: requests.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
