"""What nets say of pictures: posteriors with labels, kept in files, fused, counted."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vgg_keras.errors import PredictionsError
from vgg_keras.evaluation.metrics import ErrorCount
from vgg_keras.pipelines.files import atomic_path, atomic_write

FORMATS = (".parquet", ".csv")
TOP = 5


@dataclass(frozen=True, eq=False)
class Predictions:
    """Posteriors of a net, or of several, for the pictures of a split.

    Attributes:
        names: of the pictures.
        labels: int64 `(N,)`, indices into `class_names`.
        posteriors: float32 `(N, classes)`; rows sum to 1.
        class_names: of the columns.
        about: where they come from, as in `result`; what can be written as JSON.
    """

    names: Sequence[str]
    labels: np.ndarray
    posteriors: np.ndarray
    class_names: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def of(self, names: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
        """Posteriors of some pictures in their order, float32 `(len(names), classes)`.

        Raises:
            PredictionsError: a picture is not among them, or the classes are others.
        """
        if tuple(class_names) != self.class_names:
            raise PredictionsError(f"{_who(self)} has other classes, or in another order.")
        places = {name: i for i, name in enumerate(self.names)}
        missing = [name for name in names if name not in places]
        if missing:
            raise PredictionsError(f"The predictions of {_who(self)} lack {missing[0]}.")
        return self.posteriors[[places[name] for name in names]]

    @property
    def members(self) -> list[dict[str, Any]]:
        """`metadata` of each net whose posteriors were averaged; a single net's own."""
        return self.metadata.get("members", [self.metadata])

    def result(self) -> dict[str, Any]:
        """`metadata`, `images`, and `top1_error` and `top5_error` in percent."""
        count = ErrorCount()
        count.add(self.posteriors, self.labels)
        return self.metadata | {
            "images": count.images,
            "top1_error": count.top1_error,
            "top5_error": count.top5_error,
        }

    def top(self, k: int = TOP) -> tuple[np.ndarray, np.ndarray]:
        """The k most probable classes, best first: indices and posteriors, `(N, k)` each."""
        return top_classes(self.posteriors, k)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a table of pictures, and beside it, as NAME.json, the result and class names.

        Columns: `image`, `label`, `class_1`, `posterior_1` to `class_5`, `posterior_5`, and
        `posteriors`, those of all classes in the order of `class_names`: a list in Parquet,
        numbers between blanks in CSV. Both keep float32 exactly.

        Raises:
            PredictionsError: the name ends in neither .parquet nor .csv.
            OSError: it cannot be written; what was there before stays.
        """
        path = known_format(path)
        table = self._table(as_text=path.suffix == ".csv")
        metadata = self.result() | {"predictions": path.name, "class_names": list(self.class_names)}
        try:
            with atomic_path(path) as temporary:
                _write(table, temporary)
            atomic_write(_companion(path), json.dumps(metadata, indent=2) + "\n")
        except OSError as error:  # PyArrow's do not name the file
            raise OSError(f"{path} cannot be written: {error}") from error

    def _table(self, as_text: bool):
        import pyarrow as pa

        names = np.array(self.class_names)
        columns = {"image": pa.array(list(self.names)), "label": pa.array(names[self.labels])}
        for k, (classes, values) in enumerate(zip(*(a.T for a in self.top()), strict=True), 1):
            columns[f"class_{k}"] = pa.array(names[classes])
            columns[f"posterior_{k}"] = pa.array(values)
        if as_text:
            rows = (" ".join(f"{p:.9g}" for p in row) for row in self.posteriors)
            columns["posteriors"] = pa.array(list(rows), pa.string())
        else:
            flat = pa.array(np.ascontiguousarray(self.posteriors).ravel())
            columns["posteriors"] = pa.FixedSizeListArray.from_arrays(flat, len(names))
        return pa.table(columns)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Predictions:
        """Reads what `save` wrote.

        Raises:
            PredictionsError: the file, or the JSON file beside it, is missing or holds something
                else.
        """
        path = known_format(path)
        beside = _companion(path)
        for file in (path, beside):
            if not file.is_file():
                raise PredictionsError(f"There is no {file}; `vgg-keras evaluate --out` writes it.")
        try:
            metadata = json.loads(beside.read_text())
            class_names = tuple(metadata.pop("class_names"))
            names, labels, posteriors = _read(path)
            places = {name: i for i, name in enumerate(class_names)}
            indices = np.array([places[label] for label in labels], np.int64)
            posteriors = posteriors.reshape(len(names), len(class_names))
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise PredictionsError(f"{path} holds no predictions: {error!r}") from error
        for key in ("predictions", "images", "top1_error", "top5_error"):
            metadata.pop(key, None)
        return cls(names, indices, posteriors, class_names, metadata)


def top_classes(posteriors: np.ndarray, k: int = TOP) -> tuple[np.ndarray, np.ndarray]:
    """The k most probable classes, best first and of equals the first: indices and posteriors.

    Args:
        posteriors: `(N, classes)`.
        k: at most the number of classes counts.

    Returns:
        int64 and float32 `(N, k)`.
    """
    order = np.argsort(-posteriors, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(posteriors, order, axis=1)


def fuse(predictions: Sequence[Predictions]) -> Predictions:
    """Average of the posteriors of several nets for the same pictures (§4.4).

    What is a fusion already counts as many times as it has members, so that each net counts once.

    Raises:
        PredictionsError: fewer than two, or other classes, pictures or labels.
    """
    if len(predictions) < 2:
        raise PredictionsError(f"Fusion takes two or more. Received: {len(predictions)}")
    first = predictions[0]
    total = np.zeros_like(first.posteriors)
    for one in predictions:
        total += np.float32(len(one.members)) * one.posteriors[_places(first, one)]
    members = [member for p in predictions for member in p.members]
    shared = {
        key: value
        for key, value in members[0].items()
        if key in _SHARED and all(member.get(key) == value for member in members)
    }
    shared.setdefault("protocol", "mixed")
    metadata = {"members": members, **shared}
    return Predictions(
        first.names, first.labels, total / np.float32(len(members)), first.class_names, metadata
    )


_SHARED = ("protocol", "data", "split", "skipped")


def _places(first: Predictions, other: Predictions) -> np.ndarray:
    """Rows of `other` in the order of `first`'s pictures."""
    if other.class_names != first.class_names:
        raise PredictionsError(
            f"Predictions of different classes cannot be fused: {_who(first)} has "
            f"{len(first.class_names)} ({', '.join(first.class_names[:3])}, ...), {_who(other)} "
            f"{len(other.class_names)} ({', '.join(other.class_names[:3])}, ...)."
        )
    places = {name: i for i, name in enumerate(other.names)}
    missing = [name for name in first.names if name not in places]
    surplus = sorted(places.keys() - set(first.names))
    if missing or surplus:
        raise PredictionsError(
            f"Predictions of different validation sets cannot be fused: {_who(first)} has "
            f"{len(first)} pictures, {_who(other)} {len(other)}; only one of them has "
            f"{(missing or surplus)[0]}."
        )
    rows = np.array([places[name] for name in first.names], np.int64)
    differ = np.flatnonzero(other.labels[rows] != first.labels)
    if len(differ):
        i = differ[0]
        raise PredictionsError(
            f"Predictions with different labels cannot be fused: {first.names[i]} is "
            f"{first.class_names[first.labels[i]]} for {_who(first)} and "
            f"{first.class_names[other.labels[rows][i]]} for {_who(other)}."
        )
    return rows


def _companion(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _who(predictions: Predictions) -> str:
    """By what people know predictions in an error message."""
    return " + ".join(str(member.get("run", "?")) for member in predictions.members)


def known_format(path: str | os.PathLike) -> Path:
    """The path, if predictions can be kept in such a file.

    Raises:
        PredictionsError: it ends in neither .parquet nor .csv.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise PredictionsError(
            f"Predictions are kept in files that end in {' or '.join(FORMATS)}. Received: {path}"
        )
    return path


def _write(table, path: Path) -> None:
    if path.suffix == ".csv":
        from pyarrow import csv

        csv.write_csv(table, path)
    else:
        from pyarrow import parquet

        parquet.write_table(table, path, compression="zstd")


def _read(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Names, labels and posteriors of a file, the last flat or by row."""
    if path.suffix == ".csv":
        import pyarrow as pa
        from pyarrow import csv

        columns = {"image": pa.string(), "label": pa.string(), "posteriors": pa.string()}
        options = csv.ConvertOptions(column_types=columns, include_columns=list(columns))
        table = csv.read_csv(path, convert_options=options)
        posteriors = np.array(
            [np.array(str(row).split(), np.float32) for row in table["posteriors"]]
        )
    else:
        from pyarrow import parquet

        table = parquet.read_table(path, columns=["image", "label", "posteriors"])
        posteriors = table["posteriors"].combine_chunks().flatten().to_numpy()
    return table["image"].to_pylist(), table["label"].to_pylist(), posteriors
