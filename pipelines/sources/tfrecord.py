"""TFRecord files with the features that the ImageNet scripts of TF-Slim and of Cloud TPU write.

    image/encoded       the image file
    image/class/label   the label, from 1; 0 is the background, which no image has
    image/class/synset  WordNet id of the class; image/class/text has its names
    image/filename      name of the image file
    image/object/bbox/{xmin,ymin,xmax,ymax}  edges of the boxes, as shares

A record is its length (8 bytes), a checksum of the length (4), a `tf.train.Example`, and a checksum
(4). Of the `Example` only the small features are parsed; the bytes of the image are not touched.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from vgg_keras.pipelines.sources.image_index import Entry

_IMAGE, _LABEL, _FILE_NAME = "image/encoded", "image/class/label", "image/filename"
_CLASS_NAMES = ("image/class/synset", "image/class/text")  # the first that an image has
_EDGES = tuple(f"image/object/bbox/{edge}" for edge in ("xmin", "ymin", "xmax", "ymax"))
_PARSED = {_LABEL, _FILE_NAME, *_CLASS_NAMES, *_EDGES}
_LARGEST_FEATURE = 2**20  # bytes of a feature other than the image
_HEADER, _CHECKSUM = struct.Struct("<QI"), 4


def scan_tfrecord(path: str, *unused: object) -> Iterator[Entry]:
    """Finds the images of a file.

    Raises:
        ValueError: the file is damaged, cut short, compressed, or has other features. The message
            names the record.
    """
    with open(path, "rb") as file:
        if not file.seek(0, 2):  # which cannot be mapped
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:2] == b"\x1f\x8b":
                raise ValueError("it is compressed. Decompress it with gzip.")
            for number, (start, stop) in enumerate(_records(data)):
                try:
                    yield _entry(data, start, stop)
                except Exception as error:
                    raise ValueError(f"record {number}, at byte {start}: {error}") from error


def _records(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """First byte of each record's message, and the byte after its last."""
    position = number = 0
    while position < len(data):
        start = position + _HEADER.size
        problem = f"record {number}, at byte {position}"
        if start > len(data):
            raise ValueError(f"{problem}, is cut short")
        length, checksum = _HEADER.unpack_from(data, position)
        if _masked_checksum(data[position : position + 8]) != checksum:
            raise ValueError(f"{problem}: the checksum of its length is wrong")
        position, number = start + length + _CHECKSUM, number + 1
        if position > len(data):
            raise ValueError(f"{problem}, is cut short: it has {length} bytes")
        yield start, start + length


def _entry(data: mmap.mmap, start: int, stop: int) -> Entry:
    image, found, keys = None, {}, []
    for key, first, last in _features(data, start, stop):
        keys.append(key)
        if key == _IMAGE:
            image = _only_bytes(data, first, last)
        elif key in _PARSED:
            if last - first > _LARGEST_FEATURE:
                raise ValueError(f"{key} has {last - first} bytes")
            found[key] = tf.train.Feature.FromString(data[first:last])
    if image is None:
        raise ValueError(f"it has no {_IMAGE}. Its features: {', '.join(sorted(keys)[:20])!a}")
    names = [name for key in _CLASS_NAMES if (name := _text(found, key))]
    label = _values(found, _LABEL, "int64_list")
    if label is not None and (len(label) != 1 or label[0] < 0):
        raise ValueError(f"{_LABEL} must be one integer from 0. Received: {label[:3]}")
    return Entry(
        *image,
        label[0] if label else -1,
        names[0] if names and label else "",
        _text(found, _FILE_NAME).rpartition("/")[2],
        _boxes(found),
    )


def _values(found: dict[str, Any], key: str, kind: str) -> list | None:
    """The values of a feature; None if there is no such feature."""
    if key not in found:
        return None
    if found[key].WhichOneof("kind") not in (kind, None):
        raise ValueError(f"{key} must be a {kind}. Received: {found[key].WhichOneof('kind')}")
    return list(getattr(found[key], kind).value)


def _text(found: dict[str, Any], key: str) -> str:
    values = _values(found, key, "bytes_list")
    return values[0].decode("utf-8", "backslashreplace") if values else ""


def _boxes(found: dict[str, Any]) -> list[float] | None:
    edges = [_values(found, key, "float_list") for key in _EDGES]
    stated = [values for values in edges if values is not None]
    if not stated:
        return None
    if len(stated) < len(edges) or len(set(map(len, stated))) > 1:
        numbers = [0 if values is None else len(values) for values in edges]
        raise ValueError(f"{', '.join(_EDGES)} must be equally many. Received: {numbers}")
    return [edge for box in zip(*stated, strict=True) for edge in box]


def _features(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
    """Key of each feature of an `Example`, and where its `Feature` is.

    Example {Features features = 1}, Features {map<string, Feature> feature = 1}: an entry of the
    map is a message of the key (1) and the value (2).
    """
    for _, *features in _fields(data, start, stop):
        for _, *entry in _fields(data, *features):
            parts = {number: (first, last) for number, first, last in _fields(data, *entry)}
            if 1 in parts and 2 in parts:
                first, last = parts[1]
                yield data[first : min(last, first + 256)].decode("utf-8", "replace"), *parts[2]


def _only_bytes(data: mmap.mmap, start: int, stop: int) -> tuple[int, int]:
    """Offset and length of the only value of a `Feature` {BytesList {repeated bytes value = 1}}."""
    kinds = list(_fields(data, start, stop))
    values = [value for number, *extent in kinds for value in _fields(data, *extent) if number == 1]
    if len(kinds) != 1 or len(values) != 1:
        raise ValueError(f"{_IMAGE} must be one string of bytes")
    _, first, last = values[0]
    return first, last - first


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte and end of the fields of a message, all of which have a length."""
    while start < stop:
        tag, start = _varint(data, start, stop)
        if tag & 7 != 2:
            raise ValueError("it is not a tf.train.Example")
        length, start = _varint(data, start, stop)
        if length > stop - start:
            raise ValueError("a part of it ends after the record")
        yield tag >> 3, start, start + length
        start += length


def _varint(data: mmap.mmap, position: int, stop: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and the byte after it."""
    value = shift = 0
    while position < stop and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("it is not a tf.train.Example")


def _crc32c_step(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = [_crc32c_step(byte) for byte in range(256)]


def _masked_checksum(data: bytes) -> int:
    """CRC-32C, rotated and with a constant added, as the format has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
