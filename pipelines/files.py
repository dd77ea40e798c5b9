"""Atomic writes, which never lose what was saved before, pairs of files, and locks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from vgg_keras.pipelines.errors import UserError, WriteError

log = logging.getLogger(__name__)

DIGEST_KEY = "sha256"  # key of a file's digest in its description

_PREFIX = ".tmp-"  # of the temporary folders
_LOCK = ".lock"
_PATIENCE = 1.0  # seconds of waiting for a lock in silence
_UNLOCKED_SECONDS = 60  # far more than a process takes to lock the folder that it has made


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, size: int = 0) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and moves the file into place when the block ends.

    Each call has a temporary folder of its own, so that several processes can write the same file:
    the last one wins, and every reader sees a whole file. A file that is replaced keeps its mode.
    If `path` is a link, the file that it points to is replaced. The temporary name keeps the
    suffix, from which some writers choose the format. After an error, such as a full disk, the
    temporary file is removed and `path` is unchanged. A later write to the folder removes what a
    killed process left behind.

    Args:
        path: the file to write.
        size: bytes that must be free before anything is written, for writers that do not survive
            a full disk (HDF5 can crash the process).

    Raises:
        OSError: the disk is full, writing fails, or `path` is not a regular file.
    """
    with _atomic_paths(path) as (temporary,):
        if size:
            _reserve(temporary, size)
        yield temporary


@contextlib.contextmanager
def _atomic_paths(*paths: str | os.PathLike) -> Iterator[list[Path]]:
    """`atomic_path` for several files: none is moved into place before all are on the disk."""
    targets = [_regular_target(path) for path in paths]
    with contextlib.ExitStack() as folders:
        # The end of a name has its suffixes, and keeps the longest names that a system allows.
        temporary = [
            folders.enter_context(_temporary_folder(target.parent)) / f".{target.name[-40:]}"
            for target in targets
        ]
        try:
            yield temporary
            for file in temporary:
                with open(file, "rb") as opened:
                    os.fsync(opened.fileno())
            for file, target in zip(temporary, targets, strict=True):
                if target.exists():
                    os.chmod(file, stat.S_IMODE(target.stat().st_mode))
                os.replace(file, target)
        except OSError as error:
            for file, target in zip(temporary, targets, strict=True):
                if error.filename in (file, os.fspath(file)):
                    error.filename = os.fspath(target)
            raise


def _regular_target(path: str | os.PathLike) -> Path:
    """The file that a write to `path` replaces; makes its folder.

    Raises:
        OSError: it is a folder, a device or the like, or its folder cannot be made.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is not a regular file, so it cannot be replaced.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


@contextlib.contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder that only this user can read, locked for as long as it is in use."""
    _remove_leftovers(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with contextlib.ExitStack() as lock:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                lock.enter_context(locked(folder / _LOCK, wait=False))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    """Removes the temporary folders of processes that were killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        # Folders that are gone meanwhile, in use, or of other users are skipped.
        with contextlib.suppress(OSError):
            if time.time() - folder.lstat().st_mtime > _UNLOCKED_SECONDS:
                with locked(folder / _LOCK, wait=False):
                    shutil.rmtree(folder, ignore_errors=True)


def write_pair(
    path: str | os.PathLike,
    description_path: str | os.PathLike,
    write: Callable[[Path], object],
    description: Mapping[str, Any],
    *,
    indent: int | None = None,
    size: int = 0,
) -> None:
    """Writes a file and another one that describes it, as JSON.

    Neither is moved into place before both are on the disk, and the description has the digest of
    the file. A process that is killed between the two moves therefore leaves no pair that
    `check_pair` accepts.

    Args:
        path: the file.
        description_path: its description.
        write: writes the file, given its temporary path.
        description: contents of the description.
        indent: see `json.dumps`.
        size: see `atomic_path`.

    Raises:
        OSError: see `atomic_path`. What was saved before is intact.
    """
    with _atomic_paths(description_path, path) as (text, file):
        if size:
            _reserve(file, size)
        write(file)
        contents = {**description, DIGEST_KEY: file_digest(file)}
        text.write_text(json.dumps(contents, indent=indent) + "\n", encoding="utf-8")


def check_pair(
    path: Path, description_path: Path, description: Mapping[str, Any], error: type[UserError]
) -> None:
    """Checks that a description is that of a file.

    A description without a digest, as earlier versions wrote it, is accepted.

    Raises:
        UserError: it is that of another file; of the class `error`.
    """
    if DIGEST_KEY in description and description[DIGEST_KEY] != file_digest(path):
        raise error(
            f"{path} is not the file that {description_path} describes: saving them was "
            f"interrupted, or one of the two was replaced. Save both again."
        )


def file_digest(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_state(path: str | os.PathLike | int) -> str:
    """Size and time of modification, by which a change of a file is noticed without reading it.

    Args:
        path: the file, or the descriptor of an open file.
    """
    try:
        found = os.stat(path)
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


def _reserve(path: Path, size: int) -> None:
    """Reserves `size` bytes, which quotas and limits can refuse too, and releases them."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(0)


def check_writable(path: str | os.PathLike) -> None:
    """Checks that `atomic_path` could write a file, before hours of work whose result it takes.

    Raises:
        OSError: it could not.
    """
    with _temporary_folder(_regular_target(path).parent):
        pass


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
        wait: whether to wait until the lock is free. A log line says so after a second.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        OSError: the file cannot be created, or its file system has no locks.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, fallback_to_soft=False)  # a soft one survives a killed process
    try:
        lock.acquire(timeout=_PATIENCE if wait else 0)
    except filelock.Timeout as error:
        if not wait:
            raise BlockingIOError(f"Another process holds the lock {path}.") from error
        log.info("waiting for another process, which holds the lock %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
