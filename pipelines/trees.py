"""Files of a folder, or of a tar archive that stays packed."""

from __future__ import annotations

import dataclasses
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import FolderSplit


@dataclasses.dataclass(frozen=True, eq=False)
class Tree:
    """Regular files below a folder or in an uncompressed tar archive.

    Attributes:
        root: path of the folder or the archive.
        places: first byte and length of each file, by its name below the root, sorted. In a
            folder a file is found by its name alone, and its place is None.
    """

    root: Path
    places: Mapping[str, tuple[int, int] | None]

    @classmethod
    def open(cls, root: str | os.PathLike, archive: str) -> Tree:
        """Lists what is there.

        Args:
            root: folder or archive.
            archive: what it should be, for the message: the name of the archive, and whose.

        Raises:
            SourceError: neither is there, or a compressed or damaged archive.
        """
        root = Path(root).expanduser().absolute()
        if root.is_dir():
            files = (Path(folder, f) for folder, _, names in os.walk(root) for f in names)
            return cls(root, dict.fromkeys(sorted(f.relative_to(root).as_posix() for f in files)))
        if not root.is_file():
            raise SourceError(f"There is no folder or archive {root}. Expected: {archive}.")
        try:
            # Not compressed, so that any file can be read by its place.
            with tarfile.open(root, "r:") as opened:
                members = [m for m in opened if m.isreg()]
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(
                f"{root} is no uncompressed tar archive ({error}): unpack it and give the folder. "
                f"Expected: {archive}."
            ) from error
        places = {os.path.normpath(m.name): (m.offset_data, m.size) for m in members}
        return cls(root, dict(sorted(places.items())))

    def read(self, name: str) -> bytes:
        """All bytes of a file.

        Raises:
            SourceError: there is none of that name.
            OSError: it cannot be read.
        """
        if name not in self.places:
            raise SourceError(f"{self.root} holds no {name}.")
        place = self.places[name]
        if place is None:
            return (self.root / name).read_bytes()
        with open(self.root, "rb") as archive:
            archive.seek(place[0])
            return archive.read(place[1])

    def path_of(self, name: str) -> str:
        """How a file is named to people, and in a split."""
        return os.fspath(self.root / name)


@dataclasses.dataclass(frozen=True, eq=False)
class TreeSplit(FolderSplit):
    """Pictures of a tree; `root` is the tree's."""

    tree: Tree = dataclasses.field(kw_only=True)

    def read(self, example):
        def bytes_of(path) -> bytes:  # bytes in a graph, an array of them outside
            path = np.asarray(path, object).item()
            return self.tree.read(os.path.relpath(os.fsdecode(path), self.root))

        return tf.ensure_shape(tf.numpy_function(bytes_of, [example["path"]], tf.string), ())
