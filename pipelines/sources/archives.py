"""Files of a folder, or of a tar archive that is not unpacked."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.files import file_state
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.sources.listing import list_files, text_of_path

log = logging.getLogger(__name__)


class Extent(NamedTuple):
    """Where the bytes of a file are in its archive."""

    offset: int
    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Archive:
    """Files below a folder or in an uncompressed tar archive.

    Folders are listed by `list_files`. Hidden files of archives are ignored too.

    Attributes:
        root: path of the folder or the archive.
        files: the extent of each file by its name below the root, sorted; None in a folder.
    """

    root: Path
    files: Mapping[str, Extent | None]

    @classmethod
    def open(cls, root: str | os.PathLike, expected: str) -> Archive:
        """Lists the files.

        Args:
            root: folder or archive.
            expected: name and origin of the archive, for error messages.

        Raises:
            SourceError: there is neither a folder nor an archive, or the archive is compressed or
                damaged, or has symbolic links or sparse files.
        """
        root = Path(root).expanduser().absolute()
        if root.is_dir():
            return cls(root, dict.fromkeys(list_files(root)))
        if not root.is_file():
            raise SourceError(f"There is no folder or archive {root}. Expected: {expected}.")
        try:
            # Not compressed, so that any file can be read by its extent.
            with tarfile.open(root, "r:") as opened:
                extents = _extents(root, opened)
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(
                f"{root} is not an uncompressed tar archive ({error}). Unpack it and give the "
                f"folder. Expected: {expected}."
            ) from error
        return cls(root, dict(sorted(extents.items())))

    def read(self, name: str) -> bytes:
        """All bytes of a file.

        Raises:
            SourceError: there is no file of that name.
            OSError: the file cannot be read.
        """
        if name not in self.files:
            raise SourceError(f"{self.root} holds no {text_of_path(name)}.")
        extent = self.files[name]
        if extent is None:
            return (self.root / name).read_bytes()
        with open(self.root, "rb") as archive:
            archive.seek(extent.offset)
            return archive.read(extent.size)

    def path_of(self, name: str) -> str:
        """The path by which splits and messages name a file."""
        return os.fspath(self.root / name)


def _extents(root: Path, opened: tarfile.TarFile) -> dict[str, Extent]:
    """The extent of each file of an archive by its name. Hard links are files of their own."""
    extents: dict[str, Extent] = {}
    for member in opened:
        name = os.path.normpath(member.name)
        if member.issym() or member.issparse():
            raise SourceError(
                f"{root} must not have symbolic links or sparse files. Unpack it and give the "
                f"folder. Received: {text_of_path(name)}"
            )
        linked = extents.get(os.path.normpath(member.linkname)) if member.islnk() else None
        if linked or member.isreg():
            extents[name] = linked or Extent(member.offset_data, member.size)
        elif not member.isdir():
            log.warning("skipped, not a regular file: %s", text_of_path(root / name))
    return {name: extent for name, extent in extents.items() if not f"/{name}".count("/.")}


@dataclasses.dataclass(frozen=True, eq=False)
class ArchiveSplit(FolderSplit):
    """Images of an `Archive`; `root` is the archive's."""

    archive: Archive = dataclasses.field(kw_only=True)

    def _states(self) -> Iterable[str]:
        if self.archive.root.is_dir():
            return super()._states()
        return itertools.repeat(file_state(self.archive.root), len(self))

    def read(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        def bytes_of(path: np.ndarray | bytes) -> bytes:  # bytes in a graph, an array eagerly
            name = os.fsdecode(np.asarray(path, object).item())
            return self.archive.read(os.path.relpath(name, self.root))

        return tf.ensure_shape(tf.numpy_function(bytes_of, [example["path"]], tf.string), ())
