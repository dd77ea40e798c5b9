"""Descriptors of images with their names and labels: files of them, and stacking (Appendix B)."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np

from vgg_keras.errors import FeaturesError, WriteError
from vgg_keras.metadata import MetadataInFile, members
from vgg_keras.pipelines.checks import indices_of
from vgg_keras.pipelines.contents import naming_file, parse_json, read_json
from vgg_keras.pipelines.files import atomic_path, check_pair, write_pair
from vgg_keras.pipelines.reprs import ShortRepr

FORMATS = (".parquet", ".npy")
_PARQUET_KEY = b"vgg_keras"  # in the metadata of a Parquet file
_METADATA = "about"  # key of `Features.metadata` in files
_COLUMNS = ["image", "split", "labels", "difficult"]
_SHARED = ("data", "splits", "skipped")  # metadata that stacked features have in common


@dataclass(frozen=True, eq=False, repr=False)
class Features(ShortRepr):
    """Descriptors of the images of a data set, with their names and labels.

    Attributes:
        names: names of the images.
        splits: name of the split of each image.
        targets: int8 `(N, classes)`; 1 if the class is present, -1 if it is absent, 0 if the class
            is present but difficult: the image is ignored for that class.
        values: float32 `(N, D)`, L2-normalised.
        class_names: names of the columns of `targets`.
        metadata: the nets, the procedure and the data; can be written as JSON.

    Example:
        features = Features.load("voc2007.parquet")
        features.values.shape, features.class_names
    """

    names: Sequence[str]
    splits: Sequence[str]
    targets: np.ndarray
    values: np.ndarray
    class_names: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = len(self.names), len(self.splits), len(self.targets), len(self.values)
        if len(set(sizes)) > 1 or self.targets.shape[1:] != (len(self.class_names),):
            raise FeaturesError(
                f"Names, splits, targets and values must be of the same images, with one column of "
                f"targets for each class. Received: {', '.join(map(str, sizes))} images, and "
                f"targets of shape {self.targets.shape} for {len(self.class_names)} classes"
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def members(self) -> list[dict[str, Any]]:
        """The metadata of each stacked descriptor, also if it is a single one."""
        return list(members(self.metadata))

    @property
    def labels(self) -> np.ndarray:
        """The class of each image, int64 `(N,)`.

        Raises:
            FeaturesError: an image has no class, or several.
        """
        is_present = self.targets == 1
        counts = is_present.sum(1)
        others = np.flatnonzero(counts != 1)
        if len(others):
            raise FeaturesError(
                f"Every image must have one label. Received: {self.names[others[0]]} with "
                f"{counts[others[0]]} labels; {len(others)} such images in all"
            )
        return is_present.argmax(1)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a Parquet file, or a `.npy` file with the values and NAME.npy.json with the rest.

        The columns are `image`, `split`, `labels` and `difficult` (lists of class names), and
        `features` (lists of float32). The class names and `metadata` are the metadata of the file.

        Raises:
            FeaturesError: `path` ends in neither .parquet nor .npy.
            WriteError: the file cannot be written; what was there before is intact.
        """
        path = check_format(path)
        columns = {
            "image": list(self.names),
            "split": list(self.splits),
            "labels": [self.labels_of(row) for row in range(len(self))],
            "difficult": [self.labels_of(row, 0) for row in range(len(self))],
        }
        metadata = {"class_names": list(self.class_names), _METADATA: self.metadata}
        try:
            if path.suffix == ".npy":
                _write_npy(path, self.values, columns | metadata)
            else:
                _write_parquet(path, self.values, columns, metadata)
        except OSError as error:  # PyArrow's do not name the file
            raise WriteError(f"{path} cannot be written: {error}") from error

    def labels_of(self, row: int, target: int = 1) -> list[str]:
        """Names of the classes that an image has, or with `target=0` of its difficult classes."""
        return [self.class_names[k] for k in np.flatnonzero(self.targets[row] == target)]

    def of_split(self, split: str) -> Features:
        """The features of the images of one split.

        Raises:
            FeaturesError: no image is of that split.
        """
        rows = np.flatnonzero(np.array(self.splits) == split)
        if not len(rows):
            existing = ", ".join(dict.fromkeys(self.splits))
            raise FeaturesError(
                f"Features of images of the split {split!r} are needed. Received: {existing}"
            )
        return replace(
            self,
            names=[self.names[row] for row in rows.tolist()],
            splits=[split] * len(rows),
            targets=self.targets[rows],
            values=self.values[rows],
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> Features:
        """Reads a file that `save` wrote. Nothing in it is executed.

        Raises:
            FeaturesError: the file is missing or holds something else, or a `.npy` file and the
                JSON file beside it were not saved together.
        """
        path = check_format(path)
        if not path.is_file():
            raise FeaturesError(f"There is no file of features {path}.")
        with naming_file(path, FeaturesError, "holds no features"):
            values, rest = (_read_npy if path.suffix == ".npy" else _read_parquet)(path)
            class_names = tuple(rest["class_names"])
            targets = _targets(rest["labels"], rest["difficult"], class_names)
            if values.ndim != 2 or values.dtype != np.float32 or not np.isfinite(values).all():
                raise ValueError("features must be finite float32, one row for each image")
            return cls(rest["image"], rest["split"], targets, values, class_names, rest[_METADATA])


def stacked(features: Sequence[Features]) -> Features:
    """Stacks descriptors of the same images side by side, each L2-normalised (§B).

    Raises:
        FeaturesError: no descriptors are given, or their classes, images or labels differ.

    Example:
        both = stacked([Features.load("d.parquet"), Features.load("e.parquet")])
    """
    if not features:
        raise FeaturesError("features must be one or more. Received: none")
    first, *others = features
    if not others:
        return first
    values = [first.values]
    for other in others:
        rows = _matching_rows(first, other)
        if (other.targets[rows] != first.targets).any():
            raise FeaturesError(
                "Features of the same images with different labels cannot be stacked."
            )
        values.append(other.values[rows])
    nets = [net for one in features for net in one.members]
    metadata = {key: value for key, value in first.metadata.items() if key in _SHARED}
    return replace(first, values=side_by_side(values), metadata=metadata | {"members": nets})


def _matching_rows(first: Features, other: Features) -> np.ndarray:
    """Rows of `other` in the order of the images of `first`."""
    # A split and a name cannot contain the null character that joins them.
    keys, others = (
        [f"{split}\0{name}" for split, name in zip(one.splits, one.names, strict=True)]
        for one in (first, other)
    )
    differing = sorted(set(keys) ^ set(others))
    if differing or other.class_names != first.class_names:
        what = differing[0].replace("\0", " ") if differing else "the classes differ"
        raise FeaturesError(
            f"Features of different images or classes cannot be stacked: {len(first)} and "
            f"{len(other)} images; {what}."
        )
    return indices_of(keys, others, FeaturesError)


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their Euclidean norm, float32; rows of zeros stay zero.

    Args:
        rows: float `(N, D)`.
    """
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)


def side_by_side(descriptors: Sequence[np.ndarray]) -> np.ndarray:
    """Descriptors of the same images as one: each L2-normalised, stacked, and normalised again.

    Without the first step the descriptor with the greatest activations would have the most
    influence.
    """
    each = [normalised(rows) for rows in descriptors]
    return each[0] if len(each) == 1 else normalised(np.concatenate(each, 1))


def check_format(path: str | os.PathLike) -> Path:
    """The path, if features can be saved in a file of that name.

    Raises:
        FeaturesError: `path` ends in neither .parquet nor .npy.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise FeaturesError(
            f"The name of a file of features must end in {' or '.join(FORMATS)}. Received: {path}"
        )
    return path


def _targets(
    labels: Sequence[Sequence[str]],
    difficult: Sequence[Sequence[str]],
    class_names: tuple[str, ...],
) -> np.ndarray:
    targets = np.full((len(labels), len(class_names)), -1, np.int8)
    for target, of_rows in ((0, difficult), (1, labels)):
        rows = np.repeat(np.arange(len(of_rows)), [len(names) for names in of_rows])
        names = itertools.chain.from_iterable(of_rows)
        targets[rows, indices_of(names, class_names, KeyError)] = target
    return targets


def _json_path(path: Path) -> Path:
    """The file beside a `.npy` file that has the rest."""
    return path.with_name(f"{path.name}.json")


class _OfFile(TypedDict):
    class_names: list[str]
    about: MetadataInFile  # `_METADATA`


class _RestInFile(_OfFile):
    image: list[str]
    split: list[str]
    labels: list[list[str]]
    difficult: list[list[str]]


def _write_npy(path: Path, values: np.ndarray, rest: dict[str, Any]) -> None:
    write_pair(path, _json_path(path), lambda file: np.save(file, values), rest, size=values.nbytes)


def _read_npy(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    rest: Any = read_json(_json_path(path), _RestInFile, FeaturesError, "holds no features")
    check_pair(path, _json_path(path), rest, FeaturesError)
    return np.load(path, allow_pickle=False), rest


def _write_parquet(path: Path, values: np.ndarray, columns: dict, metadata: dict[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = (pa.string(), pa.string(), pa.list_(pa.string()), pa.list_(pa.string()))
    arrays = {k: pa.array(v, kind) for (k, v), kind in zip(columns.items(), kinds, strict=True)}
    flat = pa.array(np.ascontiguousarray(values).ravel())
    arrays["features"] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    table = pa.table(arrays).replace_schema_metadata({_PARQUET_KEY: json.dumps(metadata)})
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def _read_parquet(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    from pyarrow import parquet

    table = parquet.read_table(path, columns=[*_COLUMNS, "features"])
    metadata: Any = parse_json(table.schema.metadata[_PARQUET_KEY], _OfFile)
    width = table.schema.field("features").type.list_size
    flat = table["features"].combine_chunks().flatten().to_numpy()
    rest = {name: table[name].to_pylist() for name in _COLUMNS}
    msgspec.convert(rest | metadata, _RestInFile)
    return flat.reshape(len(table), width), rest | metadata
