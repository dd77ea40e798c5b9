"""TFRecord files with the features that the ImageNet scripts of TF-Slim and of Cloud TPU write.

    image/encoded       the image file
    image/class/label   the label, from 1; 0 is the background, which no image has
    image/class/synset  WordNet id of the class; image/class/text has its names
    image/filename      name of the image file
    image/object/bbox/{xmin,ymin,xmax,ymax}  edges of the boxes, as shares

A record is its length (8 bytes), a checksum of the length (4), a `tf.train.Example`, and a checksum
(4). `tf.data.TFRecordDataset` does not tell where a record is, and allocates any length that a
damaged file states.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import tensorflow as tf

from vgg_keras.pipelines.sources.image_index import LARGEST_IMAGE, Entry

_IMAGE, _LABEL, _FILE_NAME = "image/encoded", "image/class/label", "image/filename"
_CLASS_NAMES = ("image/class/synset", "image/class/text")  # the first that an image has
_EDGES = tuple(f"image/object/bbox/{edge}" for edge in ("xmin", "ymin", "xmax", "ymax"))
_HEADER, _CHECKSUM = struct.Struct("<QI"), 4
_LARGEST_RECORD = LARGEST_IMAGE + 2**20
_COMPARED = 64  # first bytes by which an image is looked for


def scan_tfrecord(path: str, *unused: object) -> Iterator[Entry]:
    """Finds the images of a file.

    Raises:
        ValueError: the file is damaged, cut short, compressed, or has other features. The message
            names the record.
    """
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise ValueError("it is compressed. Decompress it with gzip.")
        file.seek(0)
        for number, (start, record) in enumerate(_records(file)):
            try:
                yield _entry(start, record)
            except Exception as error:
                raise ValueError(f"record {number}, at byte {start}: {error}") from error


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The records, each with the offset of its first byte."""
    size, position, number = os.fstat(file.fileno()).st_size, 0, 0
    while position < size:
        problem = f"record {number}, at byte {position}"
        header, start = file.read(_HEADER.size), position + _HEADER.size
        if len(header) < _HEADER.size:
            raise ValueError(f"{problem}, is cut short")
        length, checksum = _HEADER.unpack(header)
        if _masked_checksum(header[:8]) != checksum:
            raise ValueError(f"{problem}: the checksum of its length is wrong")
        position, number = start + length + _CHECKSUM, number + 1
        if position > size:
            raise ValueError(f"{problem}, is cut short: it states {length} bytes")
        if length > _LARGEST_RECORD:
            raise ValueError(f"{problem}, has {length} bytes")
        record = file.read(length + _CHECKSUM)[:length]
        yield start, record


def _entry(start: int, record: bytes) -> Entry:
    features = tf.train.Example.FromString(record).features.feature
    images = _values(features, _IMAGE, "bytes_list")
    if images is None or len(images) != 1:
        keys = ", ".join(sorted(features)[:20])
        raise ValueError(f"it must have one {_IMAGE}. Its features: {keys!a}")
    offset = record.find(images[0][:_COMPARED])
    if not record.startswith(images[0], offset):
        offset = record.find(images[0])
    names = [name for key in _CLASS_NAMES if (name := _text(features, key))]
    label = _values(features, _LABEL, "int64_list")
    if label is not None and (len(label) != 1 or label[0] < 0):
        raise ValueError(f"{_LABEL} must be one integer from 0. Received: {label[:3]}")
    return Entry(
        start + offset,
        len(images[0]),
        label[0] if label else -1,
        names[0] if names and label else "",
        _text(features, _FILE_NAME).rpartition("/")[2],
        _boxes(features),
    )


def _values(features: Any, key: str, kind: str) -> list | None:
    """The values of a feature; None if there is no such feature."""
    if key not in features:
        return None
    feature = features[key]
    if feature.WhichOneof("kind") not in (kind, None):
        raise ValueError(f"{key} must be a {kind}. Received: {feature.WhichOneof('kind')}")
    return list(getattr(feature, kind).value)


def _text(features: Any, key: str) -> str:
    values = _values(features, key, "bytes_list")
    return values[0].decode("utf-8", "backslashreplace") if values else ""


def _boxes(features: Any) -> list[float] | None:
    edges = [_values(features, key, "float_list") for key in _EDGES]
    stated = [values for values in edges if values is not None]
    if not stated:
        return None
    if len(stated) < len(edges) or len(set(map(len, stated))) > 1:
        numbers = [0 if values is None else len(values) for values in edges]
        raise ValueError(f"{', '.join(_EDGES)} must be equally many. Received: {numbers}")
    return [edge for box in zip(*stated, strict=True) for edge in box]


def _crc32c_step(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = [_crc32c_step(byte) for byte in range(256)]


def _masked_checksum(data: bytes) -> int:
    """CRC-32C, rotated and with a constant added, as the format prescribes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
