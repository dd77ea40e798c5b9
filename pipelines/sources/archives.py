"""Files of a folder, or of a tar archive that is not unpacked."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.sources.image_index import Entry, IndexedFile, index_files
from vgg_keras.pipelines.sources.listing import list_files, text_of_path
from vgg_keras.pipelines.sources.reading import PythonReadSplit
from vgg_keras.pipelines.sources.tar_files import tar_members

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Archive:
    """Files below a folder or in an uncompressed tar archive.

    Folders are listed by `list_files`. Hidden files of archives are ignored too.

    Attributes:
        root: path of the folder or the archive.
        files: names of the files below the root, sorted, each with offset and length of its bytes
            in the archive; None in a folder.
        index: the index of the archive; None for a folder.
    """

    root: Path
    files: Mapping[str, tuple[int, int] | None]
    index: IndexedFile | None = None

    @classmethod
    def open(
        cls, root: str | os.PathLike, expected: str, data_dir: str | os.PathLike | None = None
    ) -> Archive:
        """Lists the files. Those of an archive are listed once, see `index_files`.

        Args:
            root: folder or archive.
            expected: name and origin of the archive, for error messages.
            data_dir: see `open_source`.

        Raises:
            SourceError: there is neither a folder nor an archive, or the archive is compressed or
                damaged, or has symbolic links or sparse files.
        """
        root = Path(root).expanduser().absolute()
        if root.is_dir():
            return cls(root, dict.fromkeys(list_files(root)))
        if not root.is_file():
            raise SourceError(
                f"There is no folder or archive {text_of_path(root)}. Expected: {expected}."
            )
        try:
            (index,) = index_files([os.fspath(root)], "tar", _scan, data_dir)
        except SourceError as error:
            raise SourceError(
                f"{error}. Unpack it and give the folder. Expected: {expected}."
            ) from error
        texts, offsets, lengths = (
            index.table[key].to_pylist() for key in ("name", "offset", "length")
        )
        names = (os.fsdecode(text.encode("latin-1")) for text in texts)
        extents = dict(zip(names, zip(offsets, lengths, strict=True), strict=True))
        return cls(root, extents, index)

    def read(self, name: str) -> bytes:
        """All bytes of a file.

        Raises:
            SourceError: there is no file of that name, or the archive has changed.
            OSError: the file cannot be read.
        """
        if name not in self.files:
            raise SourceError(f"{text_of_path(self.root)} holds no {text_of_path(name)}.")
        extent = self.files[name]
        if extent is None or self.index is None:
            return (self.root / name).read_bytes()
        return self.index.read(*extent)

    def path_of(self, name: str) -> str:
        """The path by which splits and messages name a file."""
        return os.fspath(self.root / name)


def _scan(path: str, *unused: object) -> Iterator[Entry]:
    """The files of an archive, sorted. Of files with the same name the last one counts."""
    files: dict[str, Entry] = {}
    for member in tar_members(path):
        if member.is_file:
            # An index holds no surrogates, so each byte of a name is one character of it.
            text = os.fsencode(member.name).decode("latin-1")
            files[member.name] = Entry(member.offset, member.size, -1, "", text)
        elif not member.is_folder:
            log.warning("skipped, not a regular file: %s", text_of_path(f"{path}/{member.name}"))
    yield from (files[name] for name in sorted(files) if not f"/{name}".count("/."))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ArchiveSplit(PythonReadSplit, FolderSplit):
    """Images of an `Archive`; `root` is the archive's."""

    archive: Archive = dataclasses.field(kw_only=True)

    def _states(self) -> Iterable[str]:
        if self.archive.index is None:
            return super()._states()
        return itertools.repeat(self.archive.index.state, len(self))

    def bytes_of(self, index: int) -> bytes:
        return self.archive.read(self.paths[index][len(self.root) + 1 :])
