"""Lists the files of a folder. What is not listed is hidden, or is named in a warning."""

from __future__ import annotations

import logging
import os

from vgg_keras.pipelines.errors import SourceError

log = logging.getLogger(__name__)

_FILE, _FOLDER, _SPECIAL = range(3)


def list_files(folder: str | os.PathLike[str]) -> list[str]:
    """Lists all files below a folder, in all its folders, sorted.

    Links are followed, except those to a folder that contains the link. Hidden files and folders
    are ignored, such as the `._NAME` files of macOS. FIFOs, sockets and devices are skipped,
    because reading them may never end. A warning names each.

    Types of files come from the folders' entries: only links and folders cost a system call.

    Returns:
        Paths relative to `folder`, with "/" between their parts. Bytes of a name that are not
        UTF-8 are surrogates, as `os.fsdecode` makes them.

    Raises:
        SourceError: a folder cannot be read.
    """
    files: list[str] = []
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        prefix, above = pending.pop()
        path = os.path.join(folder, prefix)
        entries = _visible_entries(path)
        status = os.stat(path)
        identity = status.st_dev, status.st_ino
        if identity in above:
            log.warning("skipped, a link to a folder that contains it: %s", text_of_path(path))
            continue
        for entry in entries:
            kind = _kind_of(entry)
            if kind == _FILE:
                files.append(prefix + entry.name)
            elif kind == _FOLDER:
                pending.append((f"{prefix}{entry.name}/", above | {identity}))
            else:
                log.warning("skipped, not a regular file: %s", text_of_path(entry.path))
    return sorted(files)


def list_folders(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in a folder that are not hidden, sorted. Links are followed.

    Raises:
        SourceError: the folder cannot be read.
    """
    return sorted(e.name for e in _visible_entries(folder) if _kind_of(e) == _FOLDER)


def text_of_path(path: str | os.PathLike[str]) -> str:
    r"""A path as text that can be printed and saved. Bytes that are not UTF-8 become `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _visible_entries(folder: str | os.PathLike[str]) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"{text_of_path(folder)} cannot be read: {error.strerror}.") from error


def _kind_of(entry: os.DirEntry) -> int:
    """The kind of an entry. A link that leads nowhere counts as a file, which cannot be read."""
    try:
        if entry.is_file():
            return _FILE
        if entry.is_dir():
            return _FOLDER
        return _SPECIAL if os.path.exists(entry.path) else _FILE
    except OSError:  # a link to itself, or into a folder that may not be read
        return _FILE
