"""Rows of tables cached in files, so that a kill costs one batch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from vgg_keras.errors import WriteError
from vgg_keras.pipelines.contents import naming_file
from vgg_keras.pipelines.files import atomic_path, locked
from vgg_keras.run_files import LOCK
from vgg_keras.version import __version__


def open_row_cache(
    folder: Path | None, name: str, decisive: Any, shape: tuple[int, ...]
) -> np.ndarray:
    """A float32 table with NaN in rows that are not computed yet; what is written to it persists.

    Args:
        folder: folder of the file; None for a table in memory.
        name: beginning of the file's name.
        decisive: everything that decides the rows, as can be written as JSON. Tables of anything
            else, or of another version of this package, are other files.
        shape: shape of the table, rows first.

    Raises:
        WriteError: the folder cannot be written, or a file in it is damaged.
    """
    if folder is None:
        return np.full(shape, np.nan, np.float32)
    text = json.dumps([decisive, __version__])
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    path = folder / f"{name}-{digest}.npy"
    try:
        if not path.exists():
            _create_once(path, shape)
        size = path.stat().st_size
    except OSError as error:
        raise WriteError(
            f"Rows cannot be cached in {folder}: {error}. Give another cache_dir, or none."
        ) from error
    with naming_file(path, WriteError, "cannot be used as cached rows and can be removed"):
        table = np.load(path, mmap_mode="r+")
        if table.shape != shape or table.dtype != np.float32:
            raise ValueError(
                f"it has {table.dtype} of shape {table.shape}, not float32 of {shape}."
            )
    lost = table.nbytes - (size - table.offset)
    if lost > 0:  # np.load has filled up a file that was cut short with zeros
        table.reshape(-1)[-math.ceil(lost / table.itemsize) :] = np.nan
    return table


def _create_once(path: Path, shape: tuple[int, ...]) -> None:
    """Makes the file of a table, unless it exists or another process is making it."""
    with contextlib.ExitStack() as lock:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            lock.enter_context(locked(path.parent / LOCK))
        if not path.exists():
            with atomic_path(path, size=4 * math.prod(shape)) as temporary:
                np.save(temporary, np.full(shape, np.nan, np.float32))
