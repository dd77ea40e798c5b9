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
from vgg_keras.weights.stored import Stored, StoredTensor, by_name

_KEPT = 2**20  # numbers of a tensor that stays in memory; a larger one is parsed again to read it
_LARGEST = 2**29  # bytes of a layer; the largest of these nets has 411 million
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
    for message, start, length in _layers(file):
        _check(file, message, start, length)
        layer = _parse(file, message, start, length)
        for i, blob in enumerate(layer.blobs):
            name, shape = f"{layer.name}/{i}", _shape(blob)
            if math.prod(shape) > _KEPT:
                read = functools.partial(_read, file, message, start, length, i, name)
            else:
                read = functools.partial(np.copy, _numbers(blob, name))
            yield name, f"the layer at byte {start}", StoredTensor(shape, "float32", read)


def _shape(blob: Any) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _numbers(blob: Any, name: str) -> np.ndarray:
    numbers, shape = np.frombuffer(blob.data, "<f4"), _shape(blob)
    if numbers.size != math.prod(shape):
        raise WeightsError(f"{name} declares shape {shape} and has {numbers.size:,} numbers")
    return numbers.reshape(shape)


def _read(file: IO[bytes], message: str, start: int, length: int, i: int, name: str) -> np.ndarray:
    return _numbers(_parse(file, message, start, length).blobs[i], name)


def _parse(file: IO[bytes], message: str, start: int, length: int) -> Any:
    file.seek(start)
    return _messages()[message].FromString(file.read(length))


def _layers(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """Message type, offset and length of each layer."""
    for number, start, length in _fields(file, 0, os.fstat(file.fileno()).st_size, 10_000):
        if number in _LAYERS:
            if length > _LARGEST:
                raise WeightsError(
                    f"it has a layer of {length:,} bytes, more than any layer of these nets"
                )
            yield _LAYERS[number], start, length


def _check(file: IO[bytes], message: str, start: int, length: int) -> None:
    """Raises WeightsError for a layer whose messages would need much more memory than its bytes."""
    (blobs,) = (number for name, number, _ in _FIELDS[message] if name == "blobs")
    found = [
        span for number, *span in _fields(file, start, start + length, 1000) if number == blobs
    ]
    for first, size in found:
        fields = _fields(file, first, first + size, 20)
        rest = sum(n for number, _, n in fields if number not in (5, 6))  # but data and gradients
        if len(found) > 2 or rest > 256:  # more than kernel and bias; more than a shape
            raise WeightsError(f"its layer at byte {start} does not consist of weights and biases")


def _fields(file: IO[bytes], offset: int, end: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Number, offset and length of the length-delimited fields of a message.

    https://protobuf.dev/programming-guides/encoding: a field is a key, number * 8 + wire type,
    and a payload.
    """
    for _ in range(most):
        if offset >= end:
            return
        file.seek(offset)
        key = _varint(file)
        number, wire_type = key >> 3, key & 7
        if wire_type == 2:
            length = _varint(file)
        elif wire_type in (1, 5):
            length = {1: 8, 5: 4}[wire_type]
        elif wire_type == 0:
            _varint(file)
            length = 0
        else:
            raise WeightsError(f"it is not a .caffemodel, or is damaged at byte {offset}")
        start = file.tell()
        if start + length > end or number == 0:
            raise WeightsError(
                f"it is cut off or damaged: the field at byte {start} claims {length} bytes of "
                f"{end - start}"
            )
        offset = start + length
        if wire_type == 2:
            yield number, start, length
    if offset < end:
        raise WeightsError(f"it has a message of more than {most:,} fields")


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise WeightsError("it ends in the middle of a number")


@functools.cache
def _messages() -> dict[str, Any]:
    """Classes of the messages in `_FIELDS`, by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe_weights.proto", package="vgg_keras.caffe")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
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
