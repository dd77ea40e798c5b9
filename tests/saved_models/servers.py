"""Servers with the two interfaces of TensorFlow Serving, for an export in the C++ loader."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import json
import re
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from benchmarks.cpp_loader import CppModel, LoaderError

NAME, VERSION = "tiny", 1


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The methods Predict and Classify of the real service."""

    def __init__(self, model):
        self.model = model
        self.batches = []

    def Predict(self, request, context):
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        found = self._run(request.model_spec, inputs, context)
        response = predict_pb2.PredictResponse()
        for name, array in found.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
        return response

    def Classify(self, request, context):
        serialised = [e.SerializeToString() for e in request.input.example_list.examples]
        inputs = {"inputs": np.array(serialised, object)}
        found = self._run(request.model_spec, inputs, context)
        # TensorFlow Serving's Classify requires exactly these two outputs.
        assert set(found) == {"classes", "scores"}
        response = classification_pb2.ClassificationResponse()
        for labels, scores in zip(found["classes"], found["scores"], strict=True):
            row = response.result.classifications.add()
            for label, score in zip(labels, scores, strict=True):
                row.classes.add(label=label.decode(), score=score)
        return response

    def _run(self, spec, inputs, context):
        if spec.name != NAME or (spec.HasField("version") and spec.version.value != VERSION):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: {spec.name}")
        self.batches.append(len(next(iter(inputs.values()))))
        try:
            return self.model.run(spec.signature_name or "serving_default", inputs)
        except LoaderError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


@contextlib.contextmanager
def grpc_server(service):
    """Serves on a free port of the loopback interface; yields HOST:PORT."""
    server = grpc.server(
        futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


class WrongForm(Exception):
    """A request that https://www.tensorflow.org/tfx/serving/api_rest does not describe."""


class RestHandler(BaseHTTPRequestHandler):
    """`POST /v1/models/NAME[/versions/N]:predict` in row or column format, strictly."""

    name = NAME
    model = None

    def do_POST(self):
        try:
            self._reply(200, self._predict())
        except WrongForm as error:
            self._reply(400, {"error": f"wrong form: {error}"})
        except LookupError as error:
            self._reply(404, {"error": str(error.args[0])})
        except LoaderError as error:
            self._reply(400, {"error": str(error)})

    def _predict(self):
        match = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", self.path)
        if not match:
            raise LookupError(f"Malformed request: POST {self.path}")
        if match[1] != self.name or int(match[2] or VERSION) != VERSION:
            raise LookupError(f"Servable not found for request: {match[1]}")
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        except ValueError as error:
            raise WrongForm(f"JSON parse error: {error}") from error
        if not isinstance(body, dict) or set(body) - {"signature_name", "instances", "inputs"}:
            raise WrongForm("only signature_name, instances and inputs are known")
        if ("instances" in body) == ("inputs" in body):
            raise WrongForm("exactly one of instances and inputs must be given")
        signature = body.get("signature_name", "serving_default")
        if signature not in self.model.signatures:
            raise LoaderError(f"Serving signature name: {signature!r} not found")
        specs = self.model.signatures[signature].inputs
        columns = body.get("inputs")
        if columns is None:
            columns = self._columns(body["instances"], specs)
        elif not isinstance(columns, dict):  # a single input may come without its name
            columns = {next(iter(specs)): columns}
        if set(columns) != set(specs):
            raise WrongForm(f"inputs are {', '.join(specs)}, not {', '.join(columns)}")
        inputs = {k: self._tensor(v, tf.as_dtype(specs[k].dtype)) for k, v in columns.items()}
        outputs = {k: self._json(v.tolist()) for k, v in self.model.run(signature, inputs).items()}
        if "instances" in body:
            rows = [
                dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)
            ]
            return {"predictions": [r.popitem()[1] if len(r) == 1 else r for r in rows]}
        return {"outputs": outputs.popitem()[1] if len(outputs) == 1 else outputs}

    @staticmethod
    def _columns(instances, specs):
        if not isinstance(instances, list) or not instances:
            raise WrongForm("instances is a list")
        (name,) = specs
        named = [isinstance(i, dict) and set(i) == {name} for i in instances]
        return {name: [i[name] if all(named) else i for i in instances]}

    def _tensor(self, values, dtype):
        if dtype == tf.string:
            array = np.empty(len(values), object)
            array[:] = [self._string(value) for value in values]
            return array
        try:
            array = np.array(values, dtype.as_numpy_dtype)
        except (TypeError, ValueError) as error:
            raise WrongForm(f"numbers in lists of one shape are expected: {error}") from error
        return array

    @staticmethod
    def _string(value):
        if isinstance(value, str):
            return value.encode()
        if not isinstance(value, dict) or set(value) != {"b64"}:
            raise WrongForm('a binary string is {"b64": ...} and nothing else')
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise WrongForm(f"not base64: {error}") from error

    def _json(self, values):
        if isinstance(values, list):
            return [self._json(value) for value in values]
        return values.decode() if isinstance(values, bytes) else values

    def _reply(self, code, body):
        encoded = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def http_server(handler):
    """Serves on a free port of the loopback interface; yields HOST:PORT."""
    server = ThreadingHTTPServer(("localhost", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def served(version: Path) -> Iterator[str]:
    """HOST:PORT of a REST server for an export, which it loads at the first request.

    It stands for TensorFlow Serving, which has the same loader.
    """
    load = functools.cache(CppModel)
    of_export = {"name": version.parent.name, "model": property(lambda _: load(version))}
    with http_server(type("Handler", (RestHandler,), of_export)) as host:
        yield host
    if load.cache_info().currsize:
        load(version).close()
