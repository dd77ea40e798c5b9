"""NumPy files: `.npz`, and `.npy` with named fields or with a pickled dictionary of arrays."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from vgg_keras.errors import WeightsError
from vgg_keras.weights.pickled import arrays_of_pickle
from vgg_keras.weights.stored import (
    METADATA,
    Stored,
    StoredTensor,
    WeightsMetadata,
    by_name,
    refuse_expansion,
)

_LONGEST_HEADER = 2**16  # bytes
_PICKLED = (
    "holds pickled Python objects, which are not read because unpickling can run any code. If you "
    "trust the file, load it with numpy.load(..., allow_pickle=True) and save the arrays with "
    "numpy.savez"
)


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Stored]:
    """Opens a `.npz` file, compressed or not."""
    with zipfile.ZipFile(path) as archive:
        tensors = by_name(
            (member.filename.removesuffix(".npy"), member.filename, _member(path, archive, member))
            for member in archive.infolist()
        )
        stored = tensors.pop(METADATA, None)
        if stored is None:
            yield Stored(tensors)
            return
        if not stored.dtype.startswith("str") or stored.shape:
            raise WeightsError(f"{path}: the entry {METADATA!r} must be a single string.")
        refuse_expansion(path, int(stored.dtype.removeprefix("str")) // 8)
        yield Stored(tensors, WeightsMetadata.from_json(str(stored.read())))


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> StoredTensor:
    name = member.filename
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WeightsError(f"{path}: {name} has a compression that NumPy does not use.")
    with archive.open(member) as file:
        shape, _, dtype = _header(file)
    if dtype.hasobject:
        raise WeightsError(f"{path}: {name} {_PICKLED}.")

    def read() -> np.ndarray:
        with archive.open(member) as file:
            return npy.read_array(file, allow_pickle=False)

    return StoredTensor(shape, dtype.name, read)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of an array, whose data follow in the file.

    Headers of unreasonable length are refused.
    """
    magic = file.read(npy.MAGIC_LEN)  # ends in the two bytes of the version
    version = magic[-2:]
    digits = file.read(2 if version == b"\1\0" else 4)
    length = int.from_bytes(digits, "little")
    if version not in (b"\1\0", b"\2\0", b"\3\0") or length > _LONGEST_HEADER:
        raise WeightsError("it is not an array of NumPy, or its header is not valid")
    rest = io.BytesIO(magic + digits + file.read(length))
    npy.read_magic(rest)
    read_header = npy.read_array_header_1_0 if version == b"\1\0" else npy.read_array_header_2_0
    return read_header(rest)


@contextlib.contextmanager
def open_npy(path: Path) -> Iterator[Stored]:
    """Opens a `.npy` file that holds one record, or a dictionary that was pickled.

    The tensors are the fields of the record, or the arrays of the dictionary.
    """
    with open(path, "rb") as file:
        _, _, dtype = _header(file)
        if dtype.hasobject:
            yield Stored(by_name(arrays_of_pickle(file)))
            return
    record = np.load(path, mmap_mode="r", allow_pickle=False)
    if not dtype.names or record.size != 1:
        raise WeightsError(f"{path} must be one record of named tensors, not a plain array.")
    yield Stored({name: _field(record, name) for name in dtype.names})


def _field(record: np.ndarray, name: str) -> StoredTensor:
    field = record.reshape(1)[name][0]
    return StoredTensor(field.shape, field.dtype.name, lambda: np.array(field))


def write_npz(path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata) -> None:
    """Writes a `.npz` file with the tensors, and the metadata as one more entry."""
    np.savez(path, allow_pickle=False, **tensors, **{METADATA: np.array(metadata.to_json())})
