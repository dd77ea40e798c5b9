"""Asking a server of TensorFlow Serving: its REST and its gRPC interface behind one function.

    server = connect("http://localhost:8501/v1/models/vgg16")      # REST
    server = connect("grpc://localhost:8500/vgg16")                # gRPC
    for answer in classify(server, [Path("photo.jpg").read_bytes()]):
        print(answer.class_names[0], answer.probabilities[0], answer.error)

gRPC sends pictures as they are; REST as base64, a third longer.
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
from vgg_keras.saved_models.tensors import Tensors, image_inputs

TIMEOUT = 60.0  # seconds


class RequestError(OSError):
    """A server cannot be reached or refuses a request. The message is what it said."""


class Server(Protocol):
    """A model on a server."""

    def predict(self, inputs: Tensors, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Sends one request; outputs by name, strings as bytes.

        Raises:
            RequestError: the server cannot be reached, takes too long, or refuses.
        """
        ...


@dataclass(frozen=True)
class Answer:
    """What a server says of a picture.

    Attributes:
        classes: indices of the most probable classes, best first; -1 in case of an error.
        class_names: their names.
        probabilities: theirs.
        error: why the picture was refused; "" for a good one.
    """

    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str = ""


def connect(url: str, timeout: float = TIMEOUT) -> Server:
    """A model on a server; nothing is sent yet.

    Args:
        url: `http[s]://HOST:PORT/v1/models/NAME[/versions/N]` for REST, or
            `grpc://HOST:PORT/NAME[/versions/N]`.
        timeout: seconds to wait for an answer; by REST, for its beginning and then for each part.

    Raises:
        ValueError: another form of URL.
        ImportError: gRPC needs `tensorflow-serving-api`.
    """
    parts = urlsplit(url)
    prefix = "" if parts.scheme == "grpc" else "/v1/models"
    match = re.fullmatch(rf"{prefix}/([^/:]+)(?:/versions/(\d+))?/?", parts.path)
    known = parts.scheme in ("http", "https", "grpc") and parts.netloc
    if not known or not match or parts.query or parts.fragment:
        raise ValueError(
            "A server's URL is http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME, each "
            f"with /versions/N or without. Received: {url!r}"
        )
    if timeout <= 0:
        raise ValueError(f"timeout must be above 0 seconds. Received: {timeout}")
    if parts.scheme == "grpc":
        name, version = match.groups()
        return GrpcServer(parts.netloc, name, int(version) if version else None, timeout)
    return RestServer(url.rstrip("/"), timeout)


def classify(server: Server, pictures: Iterable[bytes], batch_size: int = 8) -> Iterator[Answer]:
    """What a server says of pictures: an answer to each, in order.

    Args:
        server: from `connect`.
        pictures: JPEG or PNG files; read as they are needed.
        batch_size: pictures a request.

    Raises:
        RequestError: see `Server.predict`; or what answers is no export of ours.
        ValueError: a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more. Received: {batch_size}")
    pictures = iter(pictures)
    while batch := list(itertools.islice(pictures, batch_size)):
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
    """Rows of the outputs of `serving_default`.

    Raises:
        RequestError: they are not those of an export of ours for so many pictures.
    """
    columns = []
    for name, (kinds, ndim) in _OUTPUTS.items():
        column = outputs.get(name)
        if column is None or column.dtype.kind not in kinds or column.ndim != ndim:
            raise RequestError(
                f"The model's serving_default has no output {name!r} as exports of vgg-keras "
                f"have. Its outputs: {_shapes(outputs)}."
            )
        if len(column) != count or not all(isinstance(text, bytes) for text in _texts(column)):
            raise RequestError(
                f"{count} pictures were sent, and {name!r} is no answer to each. "
                f"Its outputs: {_shapes(outputs)}."
            )
        columns.append(column)
    return zip(*columns, strict=True)


# Kinds of dtype (integers, strings as objects, floats and JSON's whole numbers) and dimensions.
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
    """https://www.tensorflow.org/tfx/serving/api_rest, in its column format.

    Args:
        url: of the model.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT):
        self.url = url
        self.timeout = timeout
        self._session = requests.Session()

    def predict(self, inputs: Tensors, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """See `Server`."""
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
            said = found.get("error") or f"{response.reason}: {_beginning(response.text)}"
            raise RequestError(f"{self.url} answers {response.status_code} {said}")
        outputs = found["outputs"]
        if not isinstance(outputs, Mapping):  # the only output of a signature, without its name
            outputs = {"outputs": outputs}
        try:
            return {name: _from_json(values) for name, values in outputs.items()}
        except (ValueError, TypeError) as error:
            raise RequestError(
                f"{self.url} answers what is no tensor ({error}): {_beginning(response.text)}"
            ) from error


class GrpcServer:
    """PredictionService, by the stubs of `tensorflow-serving-api`.

    Args:
        address: `HOST:PORT`.
        model: its name on the server.
        version: by default the server's choice.
        timeout: seconds to wait for an answer.

    Raises:
        ImportError: `tensorflow-serving-api` is not installed.
    """

    def __init__(
        self, address: str, model: str, version: int | None = None, timeout: float = TIMEOUT
    ):
        try:
            import grpc
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError as error:
            raise ImportError(
                "The gRPC client needs tensorflow-serving-api: pip install 'vgg_keras[serving]'."
            ) from error
        self.timeout = timeout
        self.address = address
        self._errors = grpc.RpcError
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = model
        if version is not None:
            self._request.model_spec.version.value = version
        # Answers with score maps of large images pass the 4 MB that gRPC allows by default.
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(address, unlimited)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(self, inputs: Tensors, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """See `Server`."""
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
    """Numbers as they are, strings as {"b64": ...}, in lists of any depth."""
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


def _json_object(response: requests.Response) -> dict:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
