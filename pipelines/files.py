"""Atomic writes, which never lose what was saved before, and locks between processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from vgg_keras.pipelines.errors import WriteError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, size: int = 0) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and moves the file into place when the block ends.

    The temporary name keeps the suffix, from which some writers choose the format. After an error,
    such as a full disk, the temporary file is removed and `path` is unchanged. The next write
    overwrites a temporary file that a killed process left behind.

    Args:
        path: the file to write.
        size: bytes that must be free before anything is written, for writers that do not survive
            a full disk (HDF5 can crash the process).

    Raises:
        OSError: the disk is full, or writing fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp{''.join(path.suffixes)}")
    try:
        if size:
            _reserve(temporary, size)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _reserve(path: Path, size: int) -> None:
    """Reserves `size` bytes, which quotas and limits can refuse too, and releases them."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(0)


def atomic_write(path: str | os.PathLike, text: str) -> None:
    """Writes a text file through `atomic_path`.

    Raises:
        WriteError: the file cannot be written. The message names it.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WriteError(
            f"{path} could not be written; what was saved before is intact: {error}"
        ) from error


@contextlib.contextmanager
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Holds a lock between processes. The end of a process frees its locks, even if it is killed.

    Args:
        path: the file that stands for the lock. It is created if it does not exist.
        wait: whether to wait until the lock is free.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        OSError: the file cannot be created, or its file system has no locks.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise BlockingIOError(f"Another process holds the lock {path}.") from error
    except NotImplementedError as error:  # how filelock 3 reports a file system without locks
        raise OSError(f"The file system of {path} has no locks: {error}") from error
    try:
        yield
    finally:
        lock.release()
