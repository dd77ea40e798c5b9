"""Tables of what nets say, in files that fill up row by row, so that a kill costs a batch."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np

from vgg_keras.pipelines.files import atomic_path
from vgg_keras.version import __version__


def open_row_cache(
    folder: Path | None, name: str, metadata: Any, shape: tuple[int, ...]
) -> np.ndarray:
    """A float32 table, NaN where rows are still to be made; what is written to it stays.

    Args:
        folder: for the file; None for a table in memory alone.
        name: the file's name begins with it.
        about: all that decides the rows, as can be written as JSON; tables of anything else,
            or of another version of this package, are other files.
        shape: rows first.

    Raises:
        OSError: the folder cannot be written, or a file in it is damaged.
    """
    if folder is None:
        return np.full(shape, np.nan, np.float32)
    text = json.dumps([metadata, __version__])
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    path = folder / f"{name}-{digest}.npy"
    try:
        if not path.exists():
            with atomic_path(path, size=4 * math.prod(shape)) as temporary:
                np.save(temporary, np.full(shape, np.nan, np.float32))
        size = path.stat().st_size
        table = np.load(path, mmap_mode="r+")
    except (ValueError, EOFError) as error:
        raise OSError(f"{path} holds no results: {error}. Remove it.") from error
    except OSError as error:
        raise OSError(
            f"Rows cannot be cached in {folder}: {error}. Give another folder with --cache-dir, or "
            f"none with --cache-dir ''."
        ) from error
    if table.shape != shape:
        raise OSError(f"{path} holds no results of shape {shape}. Remove it.")
    lost = table.nbytes - (size - table.offset)
    if lost > 0:  # np.load has filled up a file that was cut short with zeros
        table.reshape(-1)[-math.ceil(lost / table.itemsize) :] = np.nan
    return table


def digest_of(model: keras.Model) -> str:
    """Of a net and its weights."""
    digest = hashlib.blake2b(model.to_json().encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
