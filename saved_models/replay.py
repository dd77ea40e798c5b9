"""Requests sent to an export in a process of its own: `python -m vgg_keras.saved_models.replay`.

A fresh process shows that an export needs nothing of the code that wrote it. A loader is one of
TensorFlow's two: Python's, and the C++ one of TensorFlow Serving.
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

import numpy as np
from vgg_keras.saved_models.records import Request, pack, read_lines, unpack, write_lines
from vgg_keras.saved_models.tensors import Tensors

PYTHON, CPP = "python", "c++"


class ReplayError(ValueError):
    """An export failed in a process of its own. The message is what that process said."""


@dataclass(frozen=True, eq=False)
class Reply:
    """What a signature gave.

    Attributes:
        outputs: by name.
        seconds: of the requests, but the first.
        first_seconds: of the first, in which a net is laid out anew.
    """

    outputs: Tensors
    seconds: tuple[float, ...]
    first_seconds: float


def replay(
    path: str | os.PathLike, requests: Sequence[Request], loader: str, repeats: int = 3
) -> tuple[list[Reply], float]:
    """Sends requests to an export, in a process of its own.

    Args:
        path: version folder.
        requests: sent one after the other.
        loader: "python" or "c++".
        repeats: how often each is sent for its time, after a first time.

    Returns:
        A reply to each request, and the seconds that loading took.

    Raises:
        ReplayError: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "requests", Path(folder) / "replies"
        write_lines(given, requests)
        files = [str(path), str(given), str(found)]
        command = [
            sys.executable,
            "-P",
            "-m",
            "vgg_keras.saved_models.replay",
            *files,
            "--loader",
            loader,
            "--repeats",
            str(repeats),
        ]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ReplayError(
                f"{path} failed in the {loader} loader, exit status {done.returncode}: "
                f"{said[-1] if said else 'it said nothing'}"
            )
        load_seconds, *replies = [json.loads(line) for line in found.read_text().splitlines()]
    return [Reply(unpack(o), tuple(s), first) for o, s, first in replies], load_seconds


def load(path: str | os.PathLike, loader: str) -> Callable[[str, Tensors], Tensors]:
    """An export as a function from a signature's name and inputs to its outputs."""
    if loader == CPP:
        from vgg_keras.saved_models.cpp_loader import CppModel

        return CppModel(path).run
    import tensorflow as tf

    model = tf.saved_model.load(str(path))

    def run(signature: str, inputs: Tensors) -> Tensors:
        # Keeps `model`, without which its variables would go.
        tensors = {name: tf.convert_to_tensor(array) for name, array in inputs.items()}
        return {k: v.numpy() for k, v in model.signatures[signature](**tensors).items()}

    return run


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("path", "requests", "replies"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--loader", choices=(PYTHON, CPP), required=True)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    requests = read_lines(arguments.requests)
    run, load_seconds = _timed(lambda: load(arguments.path, arguments.loader))
    lines = [load_seconds]
    for request in requests:
        ask = lambda request=request: run(request.signature, request.inputs)  # noqa: E731
        outputs, first = _timed(ask)
        seconds = [_timed(ask)[1] for _ in range(arguments.repeats)]
        lines.append((pack({k: np.asarray(v) for k, v in outputs.items()}), seconds, first))
    arguments.replies.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _timed(function: Callable):
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    _main()
