"""The clients, with servers that answer anything: always an answer in its form or RequestError."""

from __future__ import annotations

import base64
import contextlib
import gzip
import importlib
import json
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.saved_models.servers import grpc_server
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.saved_models.client import Answer, classify, connect
from vgg_keras.saved_models.errors import RequestError
from vgg_keras.saved_models.records import Request
from vgg_keras.saved_models.replay import Reply
from vgg_keras.serving.expectations import Expectation

OUTPUTS = {
    "classes": [[1, 0]],
    "class_names": [["a", "b"]],
    "probabilities": [[0.9, 0.1]],
    "error": [""],
}
FUZZ = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class RawServer:
    """A server that sends what `answer` yields, and remembers the requests."""

    def __init__(self):
        self.answer = list
        self.requests = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):  # the socket is closed
            while True:
                connection, _ = self._socket.accept()
                with connection, contextlib.suppress(OSError):  # the client closed the connection
                    self.requests.append(self._receive(connection))
                    for part in self.answer():
                        connection.sendall(part)

    @staticmethod
    def _receive(connection):
        with connection.makefile("rb") as file:
            lines = list(iter(file.readline, b"\r\n"))
            sizes = [int(line.split()[1]) for line in lines if b"Content-Length:" in line]
            file.read(*sizes)
        return b"".join(lines).decode()

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture(scope="module")
def shared_server():
    server = RawServer()
    yield server
    server.close()


@pytest.fixture
def server(shared_server):
    shared_server.requests.clear()
    return shared_server


def response(body, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def ask(server, credentials="", **limits):
    url = f"http://{credentials}{server.address}/v1/models/m"
    return list(classify(connect(url, **limits), [b"image"]))


def outputs(**changes):
    return response(json.dumps({"outputs": OUTPUTS | changes}).encode())


def test_the_form_that_is_accepted(server):
    server.answer = lambda: [outputs()]
    assert ask(server) == [Answer((1, 0), ("a", "b"), (0.9, 0.1))]


def test_boxes_are_those_of_the_signature_localise():
    box = [0, 1.5, 30, 40]
    asked = []

    class Model:
        boxes = ((box, box),)

        def predict(self, inputs, signature):
            asked.append(signature)
            texts = {"class_names": [[b"a", b"b"]], "error": [b""]}
            arrays = {k: np.array(v, object) for k, v in texts.items()}
            numbers = {"classes": [[1, 0]], "probabilities": [[0.9, 0.1]], "boxes": self.boxes}
            return arrays | {k: np.array(v) for k, v in numbers.items()}

    (answer,) = classify(Model(), [b"image"], signature="localise")
    assert answer == Answer((1, 0), ("a", "b"), (0.9, 0.1), "", (tuple(box), tuple(box)))
    (plain,) = classify(Model(), [b"image"])
    assert plain.boxes == ()
    assert asked == ["localise", "serving_default"]
    for boxes, message in (
        ([[box]], "one probability for each class"),
        ([[[-1, 0, 1, 1]] * 2], "'boxes' that are not from 0"),
        ([box], "lacks the output 'boxes'"),
    ):
        Model.boxes = boxes
        with pytest.raises(RequestError, match=f"model's localise .*{message}"):
            list(classify(Model(), [b"image"], signature="localise"))
    with pytest.raises(ArgumentError, match="signature must be one of serving_default, localise"):
        list(classify(Model(), [b"image"], signature="crops"))


MALFORMED = {
    # text of the message: parts of the answer
    'answers 200 OK: {"outputs":[[[': [response(b'{"outputs":' + b"[" * 100_000)],
    r"answers 500 \x1b]0;title\x07": [
        response(json.dumps({"error": "\x1b]0;title\x07"}).encode(), "500 Oops")
    ],
    'answers 500 Oops: {"error": 3}': [response(b'{"error": 3}', "500 Oops")],
    "answers 404 Not Found: xxx": [response(b"x" * 10**6, "404 Not Found")],
    "answers 201 Created": [response(json.dumps({"outputs": OUTPUTS}).encode(), "201 Created")],
    "Redirects are not followed": [response(b"", "302 Found", "Location: file:///etc/passwd")],
    "not asked for: gzip": [
        response(gzip.compress(bytes(10**6)), "200 OK", "Content-Encoding: gzip")
    ],
    "more than 1,048,576 lists": [response(b"[" + b"[]," * 2**20 + b"1]")],
    "more than max_bytes=100,000": [response(bytes(100_001))],
    "more than max_bytes=100,000 ": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        *[b"10000\r\n" + bytes(2**16) + b"\r\n"] * 10,
    ],
    "more than max_bytes=100,000  ": [b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(2**16)] * 10],
    "does not answer: IncompleteRead": [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"],
    "does not answer: IncompleteRead ": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n{}"
    ],
    "without response": [],
    r"does not answer: \x00\x01": [b"\0\1\2\3\n\n"],
    "got more than 100 headers": [b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000],
    "got more than 65536 bytes": [b"HTTP/1.1 200 OK\r\na: " + b"b" * 10**5],
    "probabilities": [outputs(probabilities=[[float("nan"), 0.1]])],
    "probabilities ": [outputs(probabilities=[[2, 0.1]])],
    "output classes that": [outputs(classes=[[10**40, 0]])],
    "classes": [outputs(classes=[[-2, 0]])],
    "output class_names that": [outputs(class_names=[["\ud800", "b"]])],
    "output class_names that ": [outputs(class_names=[["a", 1]])],
    "one name and one probability for each class": [outputs(class_names=[["a"]])],
    "each class": [outputs(probabilities=[[0.5, 0.3, 0.2]])],
    "'error' for each of 1 images": [outputs(error=["", ""])],
}


@pytest.mark.parametrize("message", MALFORMED)
def test_malformed_answers_are_named_in_short_printable_messages(message, server):
    server.answer = lambda: MALFORMED[message]
    with pytest.raises(RequestError) as refusal:
        ask(server, max_bytes=100_000 if "max_bytes" in message else 2**26)
    text = str(refusal.value)
    assert message.strip() in text
    assert len(text) < 600
    assert text.isprintable()


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", outputs()[:-50]])
def test_the_timeout_holds_for_the_whole_answer(server, start):
    """A server that sends a byte from time to time does not keep the client."""

    def drip():
        yield start
        for _ in range(200):
            time.sleep(0.05)
            yield b"X"

    server.answer = drip
    began = time.monotonic()
    with pytest.raises(RequestError, match="timed out"):
        ask(server, timeout=0.3)
    assert time.monotonic() - began < 5


def test_redirects_are_not_followed(server):
    other = RawServer()
    try:
        server.answer = lambda: [response(b"", "307 X", f"Location: http://{other.address}/")]
        with pytest.raises(RequestError, match="Redirects are not followed"):
            ask(server)
    finally:
        other.close()
    assert not other.requests


def test_credentials_are_only_those_of_the_url_and_are_not_shown(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login joe password from-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.answer = lambda: [response(b"", "401 Unauthorized")]
    for credentials in ("", "joe:s3cr%40t@"):
        with pytest.raises(RequestError) as refusal:
            ask(server, credentials)
        assert "s3cr" not in str(refusal.value)
        assert "answers 401 Unauthorized" in str(refusal.value)
    first, second = server.requests
    assert "Authorization" not in first
    assert f"Authorization: Basic {base64.b64encode(b'joe:s3cr@t').decode()}\r\n" in second


@pytest.mark.parametrize(
    "url",
    [
        "http://joe:s3cret@[::1/v1/models/m",
        "http://joe:s3cret@h:99999/v1/models/m",
        "http://joe:s3cret@h/v1/models/m?x",
        "http://joe:s3c/ret@h/v1/models/m",
        "joe:s3cret@h/v1/models/m",
        "grpc://joe:s3cret@h:8500/m",
        "http://h\r\nX: 1/v1/models/m",
        "http://h/v1/models/m\n",
        "http://h:0/v1/models/m",
    ],
)
def test_urls_that_are_refused_show_no_credentials(url):
    with pytest.raises(ArgumentError, match="url must be http") as refusal:
        connect(url)
    assert "s3c" not in str(refusal.value)


def json_values():
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*OUTPUTS, "b64", ""]), inner, max_size=3)
        ),
        max_leaves=8,
    )


def is_answer(answer):
    """Whether all attributes of an answer are as documented."""
    ranks = zip(answer.classes, answer.class_names, answer.probabilities, strict=True)
    return isinstance(answer.error, str) and all(
        type(index) is int and index >= -1 and isinstance(name, str) and 0 <= probability <= 1.001
        for index, name, probability in ranks
    )


@FUZZ
@given(
    st.fixed_dictionaries({k: st.just(v) | json_values() for k, v in OUTPUTS.items()}).map(
        lambda found: {"outputs": found}
    )
    | st.builds(lambda found: {"outputs": found}, json_values())
    | json_values()
)
def test_any_json_is_an_answer_or_an_error(server, found):
    server.answer = lambda: [response(json.dumps(found).encode())]
    with contextlib.suppress(RequestError):
        assert all(map(is_answer, ask(server)))


class AnyService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers with `response`."""

    def __init__(self):
        self.response = predict_pb2.PredictResponse()
        self.compression = grpc.Compression.NoCompression

    def Predict(self, request, context):
        context.set_compression(self.compression)
        return self.response


@pytest.fixture(scope="module")
def service():
    found = AnyService()
    with grpc_server(found) as found.address:
        yield found


def ask_grpc(service, changes, **limits):
    service.response = predict_pb2.PredictResponse()
    for name, values in OUTPUTS.items():
        proto = service.response.outputs[name]
        proto.CopyFrom(tf.make_tensor_proto(np.array(values)))
        for change in changes.get(name, ()):
            change(proto)
    return list(classify(connect(f"grpc://{service.address}/m", **limits), [b"image"]))


def reshape(*sides):
    def change(proto):
        del proto.tensor_shape.dim[:]
        for side in sides:
            proto.tensor_shape.dim.add(size=side)

    return change


def assign(name, value):
    return lambda proto: setattr(proto, name, value)


def texts(*values):
    def change(proto):
        proto.string_val[:] = values

    return change


PROTO_CHANGES = st.one_of(
    st.builds(
        lambda sides: reshape(*sides), st.lists(st.integers(-2, 4) | st.just(2**40), max_size=3)
    ),
    st.builds(assign, st.just("dtype"), st.integers(0, 30) | st.integers(100, 131)),
    st.builds(assign, st.just("tensor_content"), st.binary(max_size=20)),
    st.builds(lambda values: texts(*values), st.lists(st.binary(max_size=3), max_size=3)),
    st.just(lambda proto: setattr(proto.tensor_shape, "unknown_rank", True)),
    st.just(lambda proto: proto.Clear()),
)


def test_the_form_that_is_accepted_by_grpc(service):
    assert ask_grpc(service, {}) == [Answer((1, 0), ("a", "b"), (0.9, 0.1))]


@FUZZ
@given(st.dictionaries(st.sampled_from([*OUTPUTS]), st.lists(PROTO_CHANGES, max_size=2)))
def test_any_tensors_are_an_answer_or_an_error(service, changes):
    with contextlib.suppress(RequestError):
        assert all(map(is_answer, ask_grpc(service, changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": [reshape(1, 250_000_000)]}, r"shape \[1, 250000000\] in 33 bytes"),
        ({"probabilities": [reshape(1, -2)]}, "probabilities that is not a tensor"),
        ({"class_names": [texts(b"\xff", b"b")]}, "'class_names' that are not UTF-8 strings"),
        ({"error": [texts(b"\xff")]}, "'error' that are not UTF-8 strings"),
        ({"error": [texts(bytes(2000))]}, "RESOURCE_EXHAUSTED"),
    ],
)
def test_tensors_that_claim_more_than_they_hold_are_refused(changes, message, service):
    with pytest.raises(RequestError, match=message):
        ask_grpc(service, changes, max_bytes=1000)


def test_answers_are_not_decompressed(service, monkeypatch):
    monkeypatch.setattr(service, "compression", grpc.Compression.Gzip)
    with pytest.raises(RequestError, match="gzip"):
        ask_grpc(service, {"error": [texts(bytes(10**6))]})


def test_verify_names_a_server_that_answers_with_other_outputs():
    expected = Expectation(
        Request("features", {}), "1 photo", 1, lambda found: found["features"].max()
    )
    reply = Reply({"error": np.array([b""], object)}, seconds=(0.1,))
    check = importlib.import_module("vgg_keras.serving.verify")._check
    with pytest.raises(RequestError, match=r"of features must .* Received: error object \(1,\)"):
        check(expected, reply, 1e-5)
