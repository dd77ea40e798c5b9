"""Members of uncompressed tar archives, each with where its bytes are."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from vgg_keras.pipelines.sources.listing import text_of_path

_OCTAL = frozenset(b"01234567")
_LONG_KINDS = b"LKxgX"  # long names and extended headers, which `tarfile` reads whole
_LONGEST_HEADER = 2**20  # bytes of one of them


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


class _Header(tarfile.TarInfo):
    """A tar header. Of regular files only name and size are parsed, which halves the time."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        size, checksum = buf[124:136].strip(b" \0"), buf[148:156].strip(b" \0")
        is_plain = (
            len(buf) == tarfile.BLOCKSIZE
            and buf[156:157] == tarfile.REGTYPE
            and not buf[345]  # the rest of a long name
            and size
            and checksum
            and _OCTAL.issuperset(size + checksum)
            # The checksum counts its own eight bytes as spaces.
            and int(checksum, 8) == sum(buf) - sum(buf[148:156]) + 8 * ord(" ")
        )
        if not is_plain:
            header = super().frombuf(buf, encoding, errors)
            if header.type in _LONG_KINDS and not 0 <= header.size <= _LONGEST_HEADER:
                raise ValueError(f"it has a long name or extended header of {header.size} bytes")
            return header
        header = cls(buf[:100].split(b"\0", 1)[0].decode(encoding, errors))
        header.size = int(size, 8)
        return header


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
        with tarfile.open(path, "r:", tarinfo=_Header) as opened:
            while (member := opened.next()) is not None:
                opened.members.clear()  # type: ignore[attr-defined]  # not to keep all in memory
                name = member.name
                if name.startswith(("/", ".")) or "/." in name or "//" in name or name[-1:] == "/":
                    name = os.path.normpath(name)
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
                extent: tuple[int, int] | None = member.offset_data, member.size
                if member.islnk():
                    extent = files.get(os.path.normpath(member.linkname))
                is_file = extent is not None and (member.islnk() or member.isreg())
                if extent and is_file:
                    files[name] = extent
                yield Member(name, *(extent or (0, 0)), is_file, member.isdir())
            with open(path, "rb") as file:
                end = os.pread(file.fileno(), tarfile.BLOCKSIZE, opened.offset)
            if not end:
                raise ValueError("it lacks the end of an archive: it is cut short")
            if any(end):  # `tarfile` takes a damaged header for the end
                raise ValueError(f"the header at byte {opened.offset} is damaged")
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"it is not an uncompressed tar archive ({error})") from error
