"""Client of TensorFlow Serving's REST interface (https://www.tensorflow.org/tfx/serving/api_rest).

A server is not trusted. Its answer has a limited number of bytes and a limited time, is not
decompressed, and cannot send the client to another address.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from vgg_keras.saved_models.errors import RequestError, excerpt
from vgg_keras.saved_models.tensors import MAX_BYTES, TIMEOUT, Tensors

_CHUNK = 2**20  # bytes
_MAX_LISTS = 2**20  # of JSON; in Python an empty list takes thirty times its two bytes


class RestServer:
    """A model on a server with TensorFlow Serving's REST interface, in its column format.

    Use `connect` to make one. The client connects directly: it follows no redirects and reads
    neither proxy settings nor `.netrc`.

        server = RestServer("http://localhost:8501/v1/models/vgg16")
        server.predict(image_inputs([Path("photo.jpg").read_bytes()]))

    Args:
        url: URL of the model. A user and password in it are sent as basic authentication, and are
            not part of messages.
        timeout: number of seconds for a request and its answer.
        max_bytes: largest number of bytes of an answer.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES):
        parts = urlsplit(url)
        credentials, _, self._address = parts.netloc.rpartition("@")
        self.url = f"{parts.scheme}://{self._address}{parts.path}"
        self.timeout = timeout
        self.max_bytes = max_bytes
        self._connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._path = quote(parts.path, safe="/%:") + ":predict"
        self._headers = {"Content-Type": "application/json", "Connection": "close"}
        if credentials:
            encoded = base64.b64encode(unquote(credentials).encode()).decode()
            self._headers["Authorization"] = f"Basic {encoded}"

    def predict(self, inputs: Tensors, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """See `Server.predict`."""
        request = {
            "signature_name": signature,
            "inputs": {name: _to_json(array.tolist()) for name, array in inputs.items()},
        }
        try:
            status, reason, content = self._post(json.dumps(request).encode())
        except RequestError:
            raise
        except (OSError, HTTPException, UnicodeError) as error:  # the last for names of hosts
            raise RequestError(
                f"{self.url} does not answer: {excerpt(str(error) or type(error).__name__)}"
            ) from error
        if content.count(b"[") + content.count(b"{") > _MAX_LISTS:
            raise RequestError(f"{self.url} answers with more than {_MAX_LISTS:,} lists.")
        found = _json_object(content)
        if status != 200 or "outputs" not in found:
            text = found.get("error")
            if not isinstance(text, str):
                text = f"{reason}: {excerpt(content.decode('utf-8', 'replace'))}"
            raise RequestError(f"{self.url} answers {status} {excerpt(text)}")
        outputs = found["outputs"]
        if not isinstance(outputs, Mapping):  # the only output of a signature comes without a name
            outputs = {"outputs": outputs}
        return {name: self._tensor(name, values) for name, values in outputs.items()}

    def _post(self, body: bytes) -> tuple[int, str, bytes]:
        """Sends a request and returns the status code and reason, and the content."""
        deadline = time.monotonic() + self.timeout
        connection = self._connection(self._address, timeout=self.timeout)
        try:
            connection.request("POST", self._path, body, self._headers)
            timed: Any = _Timed(connection.sock, deadline)  # HTTPResponse only calls its makefile
            response = HTTPResponse(timed, method="POST")
            response.begin()
            if 300 <= response.status < 400:
                raise RequestError(
                    f"{self.url} answers {response.status}. Redirects are not followed."
                )
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding != "identity":
                raise RequestError(
                    f"{self.url} answers in an encoding that was not asked for: {excerpt(encoding)}"
                )
            return response.status, response.reason, self._content(response)
        finally:
            connection.close()

    def _content(self, response: HTTPResponse) -> bytes:
        content = bytearray()
        while chunk := response.read(min(_CHUNK, self.max_bytes + 1)):
            content += chunk
            if len(content) > self.max_bytes:
                raise RequestError(
                    f"{self.url} answers with more than max_bytes={self.max_bytes:,} bytes."
                )
        if response.length:
            raise IncompleteRead(b"", response.length)
        return bytes(content)

    def _tensor(self, name: str, values: Any) -> np.ndarray:
        try:
            return _from_json(values)
        except (ValueError, OverflowError) as error:
            raise RequestError(
                f"{self.url} answers with an output {excerpt(name)} that is not a tensor: "
                f"{excerpt(str(error))}"
            ) from error


class _Timed(io.RawIOBase):
    """What a socket receives until a deadline.

    The timeout of a socket is that of each part of an answer. A server that sends one byte at a
    time never exceeds it.
    """

    def __init__(self, sock: socket.socket, deadline: float):
        self._socket, self._deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)
        return self._socket.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Called by `HTTPResponse`, which takes a socket."""
        return io.BufferedReader(self)


def _to_json(values: Any) -> Any:
    """Numbers as they are and strings as {"b64": ...}, in lists of any depth."""
    if isinstance(values, list):
        return [_to_json(value) for value in values]
    if isinstance(values, bytes):
        return {"b64": base64.b64encode(values).decode()}
    return values


def _from_json(values: Any) -> np.ndarray:
    """Numbers, booleans or strings, in lists of one shape; strings become bytes.

    Raises:
        ValueError, OverflowError: the values are something else, or an integer exceeds 64 bits.
    """
    array = np.array(values, object)  # without a dtype, "1" would stand for 1 beside strings
    kinds = set(map(type, array.flat))
    if kinds == {str}:
        return np.vectorize(str.encode, otypes=[object])(array)
    if kinds == {bool}:
        return array.astype(bool)
    if not kinds <= {int, float}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"lists of one shape with values of one kind are needed, not {names}")
    return array.astype(np.int64 if kinds == {int} else np.float64)


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # the second for an answer nested too deep
        return {}
    return found if isinstance(found, dict) else {}
