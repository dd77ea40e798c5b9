"""Members of uncompressed tar archives, each with where its bytes are."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from vgg_keras.pipelines.sources.listing import text_of_path


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
        name: its normalised name.
        offset, size: where its bytes are; of a hard link those of the file that it names.
        is_file: whether it is a regular file or a hard link to an earlier one.
        is_folder: whether it is a folder.
    """

    name: str
    offset: int
    size: int
    is_file: bool
    is_folder: bool


def tar_members(path: str | os.PathLike) -> Iterator[Member]:
    """Reads the headers of an archive, one after another.

    Raises:
        ValueError: the archive is compressed, damaged or cut short, or has symbolic links or sparse
            files. The message names the member.
        OSError: the archive cannot be read.
    """
    total = os.stat(path).st_size
    files: dict[str, tuple[int, int]] = {}
    try:
        # Not compressed, so that any member can be read by its offset.
        with tarfile.open(path, "r:") as opened:
            while (member := opened.next()) is not None:
                opened.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
                name = os.path.normpath(member.name)
                if member.size < 0 or member.offset_data + member.size > total:
                    raise ValueError(
                        f"{text_of_path(name)}, of {member.size} bytes, does not end inside the "
                        f"file, of {total}: it is damaged or cut short"
                    )
                if member.issym() or member.issparse():
                    raise ValueError(
                        "it must not have symbolic links or sparse files. Received: "
                        f"{text_of_path(name)}"
                    )
                extent = member.offset_data, member.size
                linked = files.get(os.path.normpath(member.linkname)) if member.islnk() else None
                if linked or member.isreg():
                    files[name] = linked or extent
                yield Member(
                    name, *files.get(name, extent), bool(linked or member.isreg()), member.isdir()
                )
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"it is not an uncompressed tar archive ({error})") from error
