"""`.caffemodel`: the few messages of caffe.proto that hold weights.

Field numbers are those of Caffe's src/caffe/proto/caffe.proto. The VGG team's release is of
2014, whose layers are `V1LayerParameter`; later files have `LayerParameter`.
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
from vgg_keras.weights.stored import Stored, StoredTensor

_KEPT = 2**20  # numbers; a larger tensor is parsed again when it is wanted
_LARGEST = 2**29  # bytes of a layer; the nets' largest has 411 million
# In NetParameter: where its layers are, and as which message.
_LAYERS = {2: "V1LayerParameter", 100: "LayerParameter"}
# By message: name, number and kind of the fields that matter. Packed floats lie there as a run
# of little-endian numbers, so `data` can be declared as bytes: no number is unpacked in Python.
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
    """A `.caffemodel` file; names are `LAYER/0` for weights and `LAYER/1` for biases.

    Layers are parsed one at a time, large ones again when they are wanted.
    """
    with open(path, "rb") as file:
        tensors = {}
        for message, start, length in _layers(file):
            _check(file, message, start, length)
            layer = _parse(file, message, start, length)
            for i, blob in enumerate(layer.blobs):
                name = f"{layer.name}/{i}"
                if name in tensors:
                    raise WeightsError(f"it has {layer.name} twice")
                shape = _shape(blob)
                if math.prod(shape) > _KEPT:
                    read = functools.partial(_read, file, message, start, length, i, name)
                else:
                    read = functools.partial(np.copy, _numbers(blob, name))
                tensors[name] = StoredTensor(shape, "float32", read)
        yield Stored(tensors)


def _shape(blob: Any) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _numbers(blob: Any, name: str) -> np.ndarray:
    numbers, shape = np.frombuffer(blob.data, "<f4"), _shape(blob)
    if numbers.size != math.prod(shape):
        raise WeightsError(f"{name} declares shape {shape} and has {numbers.size:,} numbers.")
    return numbers.reshape(shape)


def _read(file: IO[bytes], message: str, start: int, length: int, i: int, name: str) -> np.ndarray:
    return _numbers(_parse(file, message, start, length).blobs[i], name)


def _parse(file: IO[bytes], message: str, start: int, length: int) -> Any:
    file.seek(start)
    return _messages()[message].FromString(file.read(length))


def _layers(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """(message, first byte, length) of each layer."""
    for number, start, length in _fields(file, 0, os.fstat(file.fileno()).st_size, 10_000):
        if number in _LAYERS:
            if length > _LARGEST:
                raise WeightsError(
                    f"it has a layer of {length:,} bytes, more than any of these nets"
                )
            yield _LAYERS[number], start, length


def _check(file: IO[bytes], message: str, start: int, length: int) -> None:
    """Refuses a layer whose messages would take much more memory than its bytes."""
    (blobs,) = (number for name, number, _ in _FIELDS[message] if name == "blobs")
    found = [
        place for number, *place in _fields(file, start, start + length, 1000) if number == blobs
    ]
    for place, size in found:
        rest = sum(
            n for number, _, n in _fields(file, place, place + size, 20) if number not in (5, 6)
        )
        if len(found) > 2 or rest > 256:  # kernel and bias; data, gradients, and a shape
            raise WeightsError(f"its layer at byte {start} is none of weights and biases")


def _fields(file: IO[bytes], place: int, end: int, most: int) -> Iterator[tuple[int, int, int]]:
    """(number, first byte, length) of the fields of a message, numbers of one value left out.

    https://protobuf.dev/programming-guides/encoding: a field is a key, number * 8 + wire type,
    and a payload.
    """
    for _ in range(most):
        if place >= end:
            return
        file.seek(place)
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
            raise WeightsError(f"it is no .caffemodel, or is damaged at byte {place}")
        start = file.tell()
        if start + length > end or number == 0:
            raise WeightsError(
                f"it is cut off or damaged: a field at byte {start} claims {length} bytes of "
                f"{end - start}"
            )
        place = start + length
        if wire_type == 2:
            yield number, start, length
    if place < end:
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
    raise ValueError("it ends in the middle of a number")


@functools.cache
def _messages() -> dict[str, Any]:
    """Classes of the messages in `_FIELDS`."""
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
