"""Descriptors of pictures with names and labels, kept in files, and stacked (§B)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vgg_keras.errors import FeaturesError
from vgg_keras.metadata import members
from vgg_keras.pipelines.files import atomic_path, atomic_write

FORMATS = (".parquet", ".npy")
_METADATA = b"vgg_keras"  # key of the Parquet file's own metadata
_COLUMNS = ["image", "split", "labels", "difficult"]


@dataclass(frozen=True, eq=False)
class Features:
    """Descriptors of the pictures of a data set.

    Attributes:
        names: of the pictures.
        splits: of which split each is.
        targets: int8 `(N, classes)`: 1 where the class is in the picture, -1 where it is not, 0
            where it is difficult to see, which leaves the picture out of the class's account.
        values: float32 `(N, D)`; rows of length 1.
        class_names: of the columns of `targets`.
        about: how they were made; what can be written as JSON.
    """

    names: Sequence[str]
    splits: Sequence[str]
    targets: np.ndarray
    values: np.ndarray
    class_names: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        sizes = len(self.names), len(self.splits), len(self.targets), len(self.values)
        if len(set(sizes)) > 1 or self.targets.shape[1:] != (len(self.class_names),):
            raise FeaturesError(
                f"Names, splits, targets and values must be of the same pictures. Received: "
                f"{sizes} of each, targets of shape {self.targets.shape} for "
                f"{len(self.class_names)} classes"
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def members(self) -> list[dict[str, Any]]:
        """`metadata` of each descriptor that was stacked; a single one's own."""
        return list(members(self.metadata))

    @property
    def labels(self) -> np.ndarray:
        """The one class of each picture, int64 `(N,)`.

        Raises:
            FeaturesError: a picture has none, or several.
        """
        there = self.targets == 1
        odd = np.flatnonzero(there.sum(1) != 1)
        if len(odd):
            raise FeaturesError(
                f"Every picture must have one label. Received: {self.names[odd[0]]} with "
                f"{there[odd[0]].sum()}, and {len(odd) - 1} others without just one"
            )
        return there.argmax(1)

    def save(self, path: str | os.PathLike) -> None:
        """Writes one Parquet file; or a `.npy` with the values and NAME.npy.json with the rest.

        Columns: `image`, `split`, `labels`, `difficult`, the last two lists of class names, and
        `features`, a list of float32. The class names, and `metadata`, are the file's metadata.

        Raises:
            FeaturesError: the name ends in neither.
            OSError: it cannot be written; what was there before stays.
        """
        path = known_format(path)
        columns = {
            "image": list(self.names),
            "split": list(self.splits),
            "labels": [self.labels_of(row) for row in range(len(self))],
            "difficult": [self.labels_of(row, 0) for row in range(len(self))],
        }
        metadata = {"class_names": list(self.class_names), "about": self.metadata}
        try:
            if path.suffix == ".npy":
                _write_npy(path, self.values, columns | metadata)
            else:
                _write_parquet(path, self.values, columns, metadata)
        except OSError as error:  # PyArrow's do not name the file
            raise OSError(f"{path} cannot be written: {error}") from error

    def labels_of(self, row: int, target: int = 1) -> list[str]:
        """Names of the classes that are in a picture; with a target of 0 of the difficult ones."""
        return [self.class_names[k] for k in np.flatnonzero(self.targets[row] == target)]

    @classmethod
    def load(cls, path: str | os.PathLike) -> Features:
        """Reads what `save` wrote; nothing in it is run.

        Raises:
            FeaturesError: the file is missing or holds something else.
        """
        path = known_format(path)
        if not path.is_file():
            raise FeaturesError(f"There is no {path}; `vgg-keras features --out` writes it.")
        try:
            values, rest = (_read_npy if path.suffix == ".npy" else _read_parquet)(path)
            class_names = tuple(rest["class_names"])
            targets = _targets(rest["labels"], rest["difficult"], class_names)
            if values.ndim != 2 or values.dtype != np.float32 or not np.isfinite(values).all():
                raise ValueError("features must be finite float32, a row a picture")
            return cls(rest["image"], rest["split"], targets, values, class_names, rest["about"])
        except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
            raise FeaturesError(f"{path} holds no features: {error!r}") from error


def stacked(features: Sequence[Features]) -> Features:
    """Descriptors of the same pictures side by side, each as long as the others (§B).

    Raises:
        FeaturesError: none, or other classes, pictures or labels.
    """
    if not features:
        raise FeaturesError("Features to stack are needed. Received: none")
    first, *others = features
    if not others:
        return first
    values = [first.values]
    for other in others:
        rows = _places(first, other)
        if (other.targets[rows] != first.targets).any():
            raise FeaturesError("Features of the same pictures with different labels do not stack.")
        values.append(other.values[rows])
    nets = [net for one in features for net in one.members]
    metadata = {key: value for key, value in first.metadata.items() if key in _SHARED}
    return replace(first, values=side_by_side(values), metadata=metadata | {"members": nets})


_SHARED = ("data", "splits", "skipped")


def _places(first: Features, other: Features) -> np.ndarray:
    """Rows of `other` in the order of `first`'s pictures."""
    places = {key: i for i, key in enumerate(zip(other.splits, other.names, strict=True))}
    keys = list(zip(first.splits, first.names, strict=True))
    differing = set(keys) ^ places.keys()
    if differing or other.class_names != first.class_names:
        what = next(iter(sorted(differing)), ("classes", "are not the same"))
        raise FeaturesError(
            f"Features of different pictures or classes cannot be stacked: {len(first)} and "
            f"{len(other)} pictures; {' '.join(what)}."
        )
    return np.array([places[key] for key in keys], np.int64)


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their Euclidean length, float32; rows of zeros stay.

    Args:
        rows: float `(N, D)`.
    """
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of several descriptors as one: each brought to length 1, stacked, and the whole too.

    Without the first step the descriptor with the greatest activations would count most.
    """
    parts = [normalised(part) for part in parts]
    return parts[0] if len(parts) == 1 else normalised(np.concatenate(parts, 1))


def known_format(path: str | os.PathLike) -> Path:
    """The path, if features can be kept in such a file.

    Raises:
        FeaturesError: it ends in neither .parquet nor .npy.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise FeaturesError(
            f"Features are kept in files that end in {' or '.join(FORMATS)}. Received: {path}"
        )
    return path


def _targets(labels, difficult, class_names: tuple[str, ...]) -> np.ndarray:
    places = {name: k for k, name in enumerate(class_names)}
    targets = np.full((len(labels), len(class_names)), -1, np.int8)
    for row, there, hard in zip(targets, labels, difficult, strict=True):
        row[[places[name] for name in hard]] = 0
        row[[places[name] for name in there]] = 1
    return targets


def _companion(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_npy(path: Path, values: np.ndarray, rest: dict[str, Any]) -> None:
    # The companion goes first and comes last, so that a kill leaves none beside another's values.
    _companion(path).unlink(missing_ok=True)
    with atomic_path(path, size=values.nbytes) as temporary:
        np.save(temporary, values)
    atomic_write(_companion(path), json.dumps(rest) + "\n")


def _read_npy(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    rest = json.loads(_companion(path).read_text())
    return np.load(path, allow_pickle=False), rest


def _write_parquet(path: Path, values: np.ndarray, columns: dict, metadata: dict[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = (pa.string(), pa.string(), pa.list_(pa.string()), pa.list_(pa.string()))
    arrays = {k: pa.array(v, kind) for (k, v), kind in zip(columns.items(), kinds, strict=True)}
    flat = pa.array(np.ascontiguousarray(values).ravel())
    arrays["features"] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    table = pa.table(arrays).replace_schema_metadata({_METADATA: json.dumps(metadata)})
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def _read_parquet(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    from pyarrow import parquet

    table = parquet.read_table(path, columns=[*_COLUMNS, "features"])
    metadata = json.loads(table.schema.metadata[_METADATA])
    width = table.schema.field("features").type.list_size
    flat = table["features"].combine_chunks().flatten().to_numpy()
    rest = {name: table[name].to_pylist() for name in _COLUMNS}
    return flat.reshape(len(table), width), rest | metadata
