"""Writes a version folder that TensorFlow Serving takes as it is."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.saved_models.errors import ExportError
from vgg_keras.saved_models.records import CLASSIFY, PREDICT, Request, write_warmup
from vgg_keras.saved_models.tensors import Tensors

CLASS_NAMES = "class_names.txt"  # an asset
EXTRA, WARMUP, METADATA = "assets.extra", "tf_serving_warmup_requests", "export.json"
MODEL_CONFIG, BATCHING = "model.config", "batching.config"


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A signature.

    Attributes:
        function: from tensors to a dictionary of tensors, in the order of `inputs`.
        inputs: specs, each with a name.
        example: inputs to warm a server up with.
        method: of TensorFlow Serving.
    """

    function: Callable[..., Mapping[str, tf.Tensor]]
    inputs: Sequence[tf.TensorSpec]
    example: Tensors
    method: str = PREDICT


def class_name_table(folder: Path, class_names: Sequence[str]) -> tf.lookup.StaticHashTable:
    """Class names by index (int64), "" for an index that is none, as an asset of an export.

    Args:
        folder: for the file until the export is written.
        class_names: in the order of the net's outputs.

    Raises:
        ExportError: a name is not just one line.
    """
    for name in class_names:
        if name.splitlines() != [name]:
            raise ExportError(f"A class name must be one line, not empty. Received: {name!r}")
    file = folder / CLASS_NAMES
    file.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
    column = tf.lookup.TextFileIndex
    lines = tf.lookup.TextFileInitializer(
        str(file), tf.int64, column.LINE_NUMBER, tf.string, column.WHOLE_LINE, len(class_names)
    )
    return tf.lookup.StaticHashTable(lines, "")


def write_version(
    folder: str | os.PathLike,
    endpoints: Mapping[str, Endpoint],
    *,
    version: int | None = None,
    resources: Iterable[Any] = (),
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `folder/VERSION/` aside and moves it into place whole.

    Args:
        folder: which TensorFlow Serving watches; its name is the model's.
        endpoints: by signature name, "serving_default" among them. Their variables are stored
            once.
        version: by default one more than the greatest that is there.
        resources: other things of the endpoints that have a state, such as tables.
        about: what `read_metadata` is to give; can be written as JSON.

    Returns:
        The version's folder.

    Raises:
        ExportError: see `check_version`.
        OSError: the folder cannot be written.
    """
    folder = Path(folder).resolve()
    check_version(folder, version)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _server_files(folder.name).items():
        if not (folder / name).exists():
            atomic_write(folder / name, text)
    with _atomic_folder(folder) as temporary:
        _write_model(temporary, endpoints, resources)
        extra = temporary / EXTRA
        extra.mkdir()
        requests = [Request(name, e.example, e.method) for name, e in endpoints.items()]
        write_warmup(extra / WARMUP, folder.name, requests)
        (extra / METADATA).write_text(json.dumps(dict(metadata or {}), indent=2) + "\n")
        _to_disk(temporary)
        return _move(temporary, folder, version)


def versions(folder: Path) -> list[int]:
    """The versions in a folder, ascending, as TensorFlow Serving finds them."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())


def check_version(folder: Path, version: int | None) -> None:
    """Refuses what `write_version` would refuse, before there is work to lose.

    Raises:
        ExportError: the version is there already, or is no number that TensorFlow Serving takes;
            or the folder's name is no name of a model.
    """
    name = Path(folder).resolve().name
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise ExportError(
            f"The folder names the model on the server: letters, digits, '.', '_' and '-'. "
            f"Received: {name!r}"
        )
    if version is None:
        return
    if not 1 <= version < 2**63:
        raise ExportError(f"A version must be from 1 to 2**63 - 1. Received: {version}")
    if version in versions(folder):
        raise ExportError(
            f"{folder / str(version)} is there already, and what a server may have loaded is never "
            f"overwritten. Give another --version, or none for the next one."
        )


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """What an export says of itself.

    Raises:
        ExportError: the folder is no export of ours.
    """
    file = Path(path) / EXTRA / METADATA
    try:
        metadata = json.loads(file.read_text())
        if not isinstance(metadata, dict) or not metadata:
            raise ValueError(f"{METADATA} says nothing")
        return metadata
    except (OSError, ValueError) as error:
        hint = ""
        if found := versions(Path(path)):
            hint = f" Give a version's folder, such as {Path(path) / str(found[-1])}."
        raise ExportError(f"{path} is no export of vgg-keras: {error}.{hint}") from error


def _write_model(path, endpoints, resources) -> None:
    # Variables are found in the endpoints; those of a model that is tracked too are stored twice.
    archive = keras.export.ExportArchive()
    for resource in resources:
        archive.track(resource)
    for name, endpoint in endpoints.items():
        archive.add_endpoint(name, endpoint.function, list(endpoint.inputs))
    archive.write_out(str(path), verbose=False)
    # TensorFlow 2 calls every signature a Predict one; servers that check want to be told.
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(path))
    for name, endpoint in endpoints.items():
        if endpoint.method == CLASSIFY:
            updater.replace_method_name(
                signature_key=name,
                method_name=tf.compat.v1.saved_model.signature_constants.CLASSIFY_METHOD_NAME,
            )
    updater.save()


@contextlib.contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder beside the versions whose name no server takes for one; gone in the end.

    Raises:
        OSError: in place of TensorFlow's own errors about files.
    """
    temporary = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    try:
        yield temporary / "version"  # a folder with usual rights, which the outer one has not
    except tf.errors.OpError as error:
        raise OSError(f"The export cannot be written to {folder}: {error.message}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, folder: Path, version: int | None) -> Path:
    while True:
        place = folder / str(version or (versions(folder) or [0])[-1] + 1)
        try:
            os.rename(temporary, place)  # fails where another export came first
            return place
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            check_version(folder, version)


def _to_disk(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())


def _server_files(name: str) -> dict[str, str]:
    """Files for tensorflow_model_server: https://www.tensorflow.org/tfx/serving/serving_config"""
    return {
        MODEL_CONFIG: (
            f'model_config_list {{\n  config {{\n    name: "{name}"\n'
            f'    base_path: "/models/{name}"\n    model_platform: "tensorflow"\n  }}\n}}\n'
        ),
        BATCHING: (
            "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 2000 }\n"
            "max_enqueued_batches { value: 100 }\nnum_batch_threads { value: 2 }\n"
        ),
    }
