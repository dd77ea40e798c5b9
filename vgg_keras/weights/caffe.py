"""Reads `.caffemodel` files: the messages of caffe.proto that hold weights.

Field numbers are those of Caffe's src/caffe/proto/caffe.proto. The files that the VGG team released
in 2014 have layers of the type `V1LayerParameter`. Later files have `LayerParameter`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.weights.protobuf import Field, fields
from vgg_keras.weights.stored import Stored, StoredTensor, by_name

_KEPT = 2**20  # numbers of a tensor that stays in memory; a larger one is parsed again to read it
_LARGEST = 2**29  # bytes of a layer; the largest of these nets has 411 million
_LONGEST_NAME, _LONGEST_SHAPE = 1000, 256  # bytes
_MOST_BLOBS = 8  # batch normalisation, which can stand beside the layers of a net, has 3 to 5
_DATA = (5, 6)  # numbers of the fields of a blob's data and gradients
# Field numbers of the layers in NetParameter, and the types of their messages.
_LAYERS = {2: "V1LayerParameter", 100: "LayerParameter"}
# Name, number and type of the needed fields of each message. Packed floats are stored as a run of
# little-endian numbers. So `data` is declared as bytes, and no number is unpacked in Python.
_FIELDS: dict[str, tuple[tuple[str, int, str], ...]] = {
    "BlobShape": (("dim", 1, "repeated int64"),),
    "BlobProto": (
        ("num", 1, "int32"),
        ("channels", 2, "int32"),
        ("height", 3, "int32"),
        ("width", 4, "int32"),
        ("data", 5, "bytes"),
        ("shape", 7, "BlobShape"),
    ),
    "V1LayerParameter": (("name", 4, "string"), ("blobs", 6, "repeated BlobProto")),
    "LayerParameter": (("name", 1, "string"), ("blobs", 7, "repeated BlobProto")),
}


@contextlib.contextmanager
def open_caffemodel(path: Path) -> Iterator[Stored]:
    """Opens a `.caffemodel` file. The names of the tensors are `LAYER/0` (kernel) and `LAYER/1`.

    Layers are parsed one at a time. A layer with a large tensor is parsed again to read it.
    """
    with open(path, "rb") as file:
        yield Stored(by_name(_tensors(file)))


def _tensors(file: IO[bytes]) -> Iterator[tuple[str, str, StoredTensor]]:
    """Name, layer and contents of each tensor."""
    previous = None
    try:
        for index, (message, field) in enumerate(_layers(file), 1):
            layer = _parse(file, message, field)
            for i, blob in enumerate(layer.blobs):
                name, shape = f"{layer.name}/{i}", _shape(blob)
                if math.prod(shape) > _KEPT:
                    read = functools.partial(_read, file, message, field, i, name)
                else:
                    read = functools.partial(np.copy, _numbers(blob, name))
                yield name, f"layer {index}", StoredTensor(shape, "float32", read)
            previous = layer.name
    except WeightsError as error:
        raise WeightsError(
            f"after layer {previous!r}: {error}" if previous else str(error)
        ) from error


def _shape(blob: Any) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _numbers(blob: Any, name: str) -> np.ndarray:
    numbers, shape = np.frombuffer(blob.data, "<f4"), _shape(blob)
    if numbers.size != math.prod(shape):
        raise WeightsError(f"{name} declares shape {shape} and has {numbers.size:,} numbers")
    return numbers.reshape(shape)


def _read(file: IO[bytes], message: str, layer: Field, i: int, name: str) -> np.ndarray:
    return _numbers(_parse(file, message, layer).blobs[i], name)


def _parse(file: IO[bytes], message: str, layer: Field) -> Any:
    file.seek(layer.payload)
    return _messages()[message].FromString(file.read(layer.length))


def _layers(file: IO[bytes]) -> Iterator[tuple[str, Field]]:
    """Message type and field of each layer, which is checked before it is parsed."""
    for field in fields(file, 0, os.fstat(file.fileno()).st_size, 10_000):
        if field.is_message and field.number in _LAYERS:
            message = _LAYERS[field.number]
            _check(file, message, field)
            yield message, field


def _check(file: IO[bytes], message: str, layer: Field) -> None:
    """Raises WeightsError for a layer whose messages would need much more memory than its bytes."""
    if layer.length > _LARGEST:
        raise WeightsError(
            f"it has a layer of {layer.length:,} bytes, more than any layer of these nets"
        )
    numbers = {name: number for name, number, _ in _FIELDS[message]}
    found = [f for f in fields(file, layer.payload, layer.end, 1000) if f.is_message]
    name = ", ".join(_text(file, f) for f in found if f.number == numbers["name"])
    blobs = [f for f in found if f.number == numbers["blobs"]]
    if len(blobs) > _MOST_BLOBS:
        raise WeightsError(
            f"its layer {name} has {len(blobs)} blobs, more than any layer of these nets"
        )
    for blob in blobs:
        parts = fields(file, blob.payload, blob.end, 20)
        if sum(f.length for f in parts if f.number not in _DATA) > _LONGEST_SHAPE:
            raise WeightsError(f"a blob of its layer {name} does not consist of numbers")


def _text(file: IO[bytes], field: Field) -> str:
    file.seek(field.payload)
    return file.read(min(field.length, _LONGEST_NAME)).decode(errors="replace")


@functools.cache
def _messages() -> dict[str, Any]:
    """Classes of the messages in `_FIELDS`, by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe_weights.proto", package="vgg_keras.caffe")
    for message, needed in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, number, kind in needed:
            repeated, kind = kind.startswith("repeated "), kind.removeprefix("repeated ")
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{file.package}.{message}")
        )
        for message in _FIELDS
    }
