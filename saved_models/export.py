"""Writing a model as a version folder that TensorFlow Serving can load as it is."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from vgg_keras.pipelines.contents import read_json
from vgg_keras.pipelines.errors import ArgumentError, WriteError
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.saved_models.errors import ExportError
from vgg_keras.saved_models.records import CLASSIFY, PREDICT, Request, write_warmup
from vgg_keras.saved_models.tensors import Tensors

CLASS_NAMES = "class_names.txt"  # in the folder `assets`
# In a version folder.
ASSETS_EXTRA = "assets.extra"
WARMUP_REQUESTS = "tf_serving_warmup_requests"
METADATA = "export.json"
# Beside the version folders.
MODEL_CONFIG = "model.config"
BATCHING_CONFIG = "batching.config"


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A function to export as one signature.

        spec = tf.TensorSpec((None, 2), tf.float32, "x")
        Endpoint(lambda x: {"y": model(x)}, [spec], {"x": np.ones((1, 2), np.float32)})

    Attributes:
        function: function from tensors, in the order of `inputs`, to a dictionary of tensors.
        inputs: specs of the inputs, each with a name.
        example: example inputs, with which a server is warmed up.
        method: method of TensorFlow Serving that the signature is made for.
    """

    function: Callable[..., Mapping[str, tf.Tensor]]
    inputs: Sequence[tf.TensorSpec]
    example: Tensors
    method: str = PREDICT


def write_class_names(folder: Path, class_names: Sequence[str]) -> Path:
    """Writes `class_names.txt`, one name on each line, in the order of the net's outputs.

    Raises:
        ExportError: a class name is empty or has more than one line.
    """
    for name in class_names:
        if name.splitlines() != [name]:
            raise ExportError(f"A class name must be one line, not empty. Received: {name!r}")
    file = folder / CLASS_NAMES
    file.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
    return file


def class_name_table(folder: Path, class_names: Sequence[str]) -> tf.lookup.StaticHashTable:
    """Returns a table of class names by index (int64), which becomes an asset of the export.

    The table gives "" for an index that is out of range.

        names = class_name_table(Path(folder), ["cat", "dog"])
        names.lookup(tf.constant([1], tf.int64))  # [b"dog"]

    Args:
        folder: folder to write the file to. It must exist until the export is written.
        class_names: names in the order of the net's outputs.

    Raises:
        ExportError: a class name is empty or has more than one line.
    """
    file = write_class_names(folder, class_names)
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
    """Writes endpoints as `folder/VERSION/`, in one atomic step.

        write_version("exports/mine", {"serving_default": endpoint})  # exports/mine/1

    Args:
        folder: folder that TensorFlow Serving watches. Its name is the name of the model.
        endpoints: endpoints by signature name, "serving_default" among them. Variables that they
            share are stored once.
        version: number of the version. By default one more than the greatest that exists.
        resources: other objects with a state that the endpoints use, such as tables.
        metadata: what `read_metadata` returns; must be JSON-serialisable.

    Returns:
        The version folder.

    Raises:
        ExportError, ArgumentError: see `check_version`.
        WriteError: the folder cannot be written.
    """
    folder = Path(folder).resolve()

    def write(temporary: Path) -> None:
        for name, text in _server_files(folder.name).items():
            if not (folder / name).exists():
                atomic_write(folder / name, text)
        _write_model(temporary, endpoints, resources)
        extra = temporary / ASSETS_EXTRA
        extra.mkdir()
        requests = [Request(name, e.example, e.method) for name, e in endpoints.items()]
        write_warmup(extra / WARMUP_REQUESTS, folder.name, requests)
        write_metadata(extra, metadata or {})

    return write_version_folder(folder, write, version)


def write_version_folder(
    folder: str | os.PathLike, write: Callable[[Path], None], version: int | None = None
) -> Path:
    """Writes any files as `folder/VERSION/`, in one atomic step.

    Args:
        folder, version: see `write_version`.
        write: makes the folder whose path it is given, with all files.

    Returns, Raises:
        See `write_version`.
    """
    folder = Path(folder).resolve()
    check_version(folder, version)
    with _atomic_folder(folder) as temporary:
        write(temporary)
        _flush_to_disk(temporary)
        return _move(temporary, folder, version)


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes `export.json` to a folder."""
    (folder / METADATA).write_text(json.dumps(dict(metadata), indent=2) + "\n")


def versions(folder: Path) -> list[int]:
    """Returns the versions in a folder, ascending, as TensorFlow Serving finds them."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())


def check_version(folder: Path, version: int | None) -> None:
    """Raises the errors of `write_version` that can be found before any work is done.

    Raises:
        ExportError: the version exists already, or the name of the folder cannot be the name of a
            model.
        ArgumentError: TensorFlow Serving does not accept the version number.
    """
    name = Path(folder).resolve().name
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise ExportError(
            f"The name of the folder is the name of the model on the server, and must consist of "
            f"letters, digits, '.', '_' and '-'. Received: {name!r}"
        )
    if version is None:
        return
    if not 1 <= version < 2**63:
        raise ArgumentError(f"version must be from 1 to 2**63 - 1. Received: {version}", "version")
    if version in versions(folder):
        raise ExportError(
            f"{folder / str(version)} exists already. A version is never overwritten, because a "
            f"server may have loaded it. Give another version, or none for the next one."
        )


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the metadata of an export.

        read_metadata("exports/vgg16/1")["class_names"]

    Args:
        path: version folder.

    Raises:
        ExportError: the folder is not an export of vgg-keras, or the file is damaged.
    """
    file = Path(path) / ASSETS_EXTRA / METADATA
    if not file.is_file():
        if (other := Path(path) / METADATA).is_file():
            format = read_json(other, dict[str, Any], ExportError).get("format")
            raise ExportError(
                f"{path} must be a SavedModel. Received: a version in the format {format!r}"
            )
        hint = ""
        if found := versions(Path(path)):
            hint = f" Give a version folder, such as {Path(path) / str(found[-1])}."
        raise ExportError(f"{path} is not an export of vgg-keras: there is no {file}.{hint}")
    metadata = read_json(file, dict[str, Any], ExportError)
    if not metadata:
        raise ExportError(f"{path} is not an export of vgg-keras: {file} is empty.")
    return metadata


def _write_model(path: Path, endpoints: Mapping[str, Endpoint], resources: Iterable[Any]) -> None:
    # The archive finds the variables in the endpoints. If it also tracked the model, it would store
    # them twice.
    archive = keras.export.ExportArchive()
    for resource in resources:
        archive.track(resource)
    for name, endpoint in endpoints.items():
        archive.add_endpoint(name, endpoint.function, list(endpoint.inputs))
    archive.write_out(str(path), verbose=False)
    # TensorFlow 2 marks every signature as one for Predict, which a strict server would refuse for
    # Classify.
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
    """Yields a path to write a version to; removes what is left there in the end.

    The path is in a folder beside the versions. No server takes the name of that folder for a
    version.

    Raises:
        WriteError: in place of the errors about files that the system and TensorFlow raise.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".export-", dir=folder, ignore_cleanup_errors=True
        ) as temporary:
            # A folder with the usual permissions, which the temporary one does not have.
            yield Path(temporary) / "version"
    except (OSError, tf.errors.OpError) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error
        raise WriteError(f"The export cannot be written to {folder}: {reason}") from error


def _move(temporary: Path, folder: Path, version: int | None) -> Path:
    """Moves a version into place; takes the next number if another export took this one."""
    while True:
        target = folder / str(version or (versions(folder) or [0])[-1] + 1)
        try:
            os.rename(temporary, target)  # fails if the target exists
            return target
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            check_version(folder, version)


def _flush_to_disk(folder: Path) -> None:
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
        BATCHING_CONFIG: (
            "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 2000 }\n"
            "max_enqueued_batches { value: 100 }\nnum_batch_threads { value: 2 }\n"
        ),
    }
