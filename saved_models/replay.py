"""Sends requests to an export, in a fresh process or on a server, and times them.

`python -m vgg_keras.saved_models.replay` is the fresh process. It shows that an export loads
without any state of the process that wrote it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from vgg_keras.saved_models.client import Server
from vgg_keras.saved_models.errors import ReplayError, RequestError
from vgg_keras.saved_models.records import (
    CLASSIFY,
    Request,
    pack,
    read_lines,
    unpack,
    write_lines,
)
from vgg_keras.saved_models.tensors import Tensors

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Reply:
    """Outputs of a signature for one request, and how long they took.

        (reply,), load_seconds = replay("exports/vgg16/1", [request])
        print(reply.outputs["class_names"], reply.first_seconds)

    Attributes:
        outputs: by name; none if the request was refused.
        seconds: duration of each repetition.
        first_seconds: duration of the first request, in which TensorFlow prepares the graph for
            the sizes of the inputs.
        error: why a server refused the request; "" if it did not.
    """

    outputs: Tensors
    seconds: tuple[float, ...] = ()
    first_seconds: float = 0.0
    error: str = ""


def replay(
    path: str | os.PathLike, requests: Sequence[Request], repeats: int = 3
) -> tuple[list[Reply], float]:
    """Sends requests to an export that a fresh process loads.

        (reply,), load_seconds = replay("exports/vgg16/1", [request])

    Args:
        path: version folder of the export.
        requests: requests, sent one after the other.
        repeats: number of times that each request is sent again, to time it.

    Returns:
        One reply for each request, and the number of seconds that loading took.

    Raises:
        ReplayError: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "requests", Path(folder) / "replies"
        write_lines(given, requests)
        module = ["-P", "-m", "vgg_keras.saved_models.replay"]
        files = [str(path), str(given), str(found)]
        command = [sys.executable, *module, *files, "--repeats", str(repeats)]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ReplayError(
                f"{path} failed in a fresh process, exit status {done.returncode}: "
                f"{lines[-1] if lines else 'no message'}"
            )
        load_seconds, *replies = [json.loads(line) for line in found.read_text().splitlines()]
    return [Reply(unpack(o), tuple(s), first) for o, s, first in replies], load_seconds


def replay_on_server(server: Server, requests: Sequence[Request], repeats: int = 3) -> list[Reply]:
    """Sends requests to a server, each as a Predict request.

    A server may refuse Predict requests to a signature that was made for another method, such as
    `classify`. The reply to such a request has an `error` and no outputs.

        (reply,) = replay_on_server(connect("grpc://localhost:8500/vgg16"), [request])

    Args:
        server: server from `connect`.
        requests: requests, sent one after the other.
        repeats: number of times that each request is sent again, to time it.

    Returns:
        One reply for each request.

    Raises:
        RequestError: the server cannot be reached, or refuses a request to another signature.
    """
    replies = []
    for request in requests:
        try:
            replies.append(_reply(server.predict, request, repeats))
        except RequestError as error:
            if request.method != CLASSIFY:
                raise
            replies.append(Reply({}, error=str(error)))
    return replies


def _reply(predict: Callable[[Tensors, str], Tensors], request: Request, repeats: int) -> Reply:
    def send() -> Tensors:
        return predict(request.inputs, request.signature)

    outputs, first = _timed(send)
    return Reply(outputs, tuple(_timed(send)[1] for _ in range(repeats)), first)


def load(path: str | os.PathLike) -> Callable[[Tensors, str], Tensors]:
    """Loads an export as a function from inputs and the name of a signature to outputs."""
    import tensorflow as tf

    model = tf.saved_model.load(str(path))

    def predict(inputs: Tensors, signature: str) -> Tensors:
        # The closure keeps `model` alive, and with it the variables.
        tensors = {name: tf.convert_to_tensor(array) for name, array in inputs.items()}
        return {k: v.numpy() for k, v in model.signatures[signature](**tensors).items()}

    return predict


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("path", "requests", "replies"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    predict, load_seconds = _timed(lambda: load(arguments.path))
    lines: list[object] = [load_seconds]
    for request in read_lines(arguments.requests):
        reply = _reply(predict, request, arguments.repeats)
        outputs = {name: np.asarray(array) for name, array in reply.outputs.items()}
        lines.append((pack(outputs), reply.seconds, reply.first_seconds))
    arguments.replies.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _timed(function: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    _main()
