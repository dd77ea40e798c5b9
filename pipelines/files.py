"""Writing so that what was there before is never lost, and by one process at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, size: int = 0) -> Iterator[Path]:
    """Gives a path beside `path` to write to; moves it into place when the block ends well.

    The temporary name keeps the suffix, which some writers go by. After an error, a full disk
    say, the temporary file is removed and `path` is as it was; what a kill leaves behind is
    overwritten by the next write.

    Args:
        path: where the file is to be.
        size: bytes that must be free before anything is written, for writers that do not
            survive a full disk (HDF5 can crash the process).

    Raises:
        OSError: there is no room, or writing fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp{''.join(path.suffixes)}")
    try:
        if size:
            _find_room(temporary, size)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _find_room(path: Path, size: int) -> None:
    """Reserves `size` bytes, which quotas and limits can refuse too, and gives them back."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(0)


def atomic_write(path: str | os.PathLike, text: str) -> None:
    """Writes a text file through `atomic_path`.

    Raises:
        OSError: as there; the message names the file.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(
            f"{path} could not be written, what was saved before is whole: {error}"
        ) from error


@contextlib.contextmanager
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Holds a lock by the file `path`, which is made; a process that is killed lets go.

    On Windows nothing is locked.

    Raises:
        BlockingIOError: another process holds it, and we are not to wait.
        OSError: the file cannot be made, or its file system has no locks.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
