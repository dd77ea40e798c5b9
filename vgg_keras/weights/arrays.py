"""NumPy's files: `.npz`, and `.npy` of named fields. Nothing is ever unpickled."""

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
from vgg_keras.weights.stored import (
    METADATA,
    Stored,
    StoredTensor,
    WeightsMetadata,
    refuse_expansion,
)

_LONGEST = 2**16  # bytes of a header
_PICKLED = (
    "holds pickled Python objects, which are not read: unpickling can run any code. Where you "
    "trust the file, load it with numpy.load(..., allow_pickle=True) and save the arrays with "
    "numpy.savez"
)


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Stored]:
    """A `.npz` file, compressed or not."""
    with zipfile.ZipFile(path) as archive:
        tensors = {
            name.removesuffix(".npy"): _member(path, archive, name) for name in archive.namelist()
        }
        stored = tensors.pop(METADATA, None)
        if stored is None:
            yield Stored(tensors)
            return
        if not stored.dtype.startswith("str") or stored.shape:
            raise WeightsError(f"{path}: its entry {METADATA!r} is not a line of text.")
        refuse_expansion(path, int(stored.dtype.removeprefix("str")) // 8)
        yield Stored(tensors, WeightsMetadata.from_json(str(stored.read())))


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> StoredTensor:
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WeightsError(f"{path}: {name} is compressed as NumPy does not.")
    with archive.open(name) as file:
        shape, _, dtype = _header(file)
    if dtype.hasobject:
        raise WeightsError(f"{path}: {name} {_PICKLED}.")

    def read() -> np.ndarray:
        with archive.open(name) as file:
            return npy.read_array(file, allow_pickle=False)

    return StoredTensor(shape, dtype.name, read)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype; of a header as long as is sensible."""
    start = file.read(12)  # magic, version, and the header's length in 2 or 4 bytes
    version, length = start[6:8], start[8:10] if start[6:7] == b"\1" else start[8:12]
    if version not in (b"\1\0", b"\2\0", b"\3\0") or int.from_bytes(length, "little") > _LONGEST:
        raise WeightsError("it holds no array of NumPy, or one with a senseless header")
    rest = io.BytesIO(start + file.read(int.from_bytes(length, "little")))
    npy.read_magic(rest)
    read_header = npy.read_array_header_1_0 if version == b"\1\0" else npy.read_array_header_2_0
    return read_header(rest)


@contextlib.contextmanager
def open_npy(path: Path) -> Iterator[Stored]:
    """A `.npy` file of one record whose fields are the tensors."""
    with open(path, "rb") as file:
        _, _, dtype = _header(file)
    if dtype.hasobject:
        raise WeightsError(f"{path} {_PICKLED}.")
    record = np.load(path, mmap_mode="r", allow_pickle=False)
    if not dtype.names or record.size != 1:
        raise WeightsError(f"{path} is a single array, not a record of named tensors.")
    yield Stored({name: _field(record, name) for name in dtype.names})


def _field(record: np.ndarray, name: str) -> StoredTensor:
    field = record.reshape(1)[name][0]
    return StoredTensor(field.shape, field.dtype.name, lambda: np.array(field))


def write_npz(path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata) -> None:
    """Tensors by name, and what is said of them as an entry of text."""
    np.savez(path, allow_pickle=False, **tensors, **{METADATA: np.array(metadata.to_json())})
