"""Posteriors of images: saved in files, counted, submitted."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vgg_keras.errors import PredictionsError, WriteError
from vgg_keras.evaluation.metrics import ErrorCount, ranks
from vgg_keras.evaluation.submissions import save_submission
from vgg_keras.metadata import PredictionsInFile, members, net_name
from vgg_keras.pipelines.checks import are_same_names, first_few, indices_of
from vgg_keras.pipelines.contents import naming_file, read_json
from vgg_keras.pipelines.files import DIGEST_KEY, check_pair, write_pair
from vgg_keras.pipelines.reprs import ShortRepr

FORMATS = (".parquet", ".csv")
TOP = 5
_PART = 1024  # rows for which arrays of all classes are made at once


@dataclass(frozen=True, eq=False, repr=False)
class Predictions(ShortRepr):
    """Posteriors of a net, or of several, for the images of a split.

    Attributes:
        names: names of the images.
        labels: int64 `(N,)`, indices into `class_names`; -1 for images without labels.
        posteriors: float32 `(N, classes)`; rows sum to 1.
        class_names: names of the columns of `posteriors`.
        metadata: which net gave the posteriors, and how; can be written as JSON.

    Example:
        Predictions.load("results/d.parquet").result()["top1_error"]
    """

    names: Sequence[str]
    labels: np.ndarray
    posteriors: np.ndarray
    class_names: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def rows_for(self, names: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
        """Posteriors of some images in the given order, float32 `(len(names), classes)`.

        Raises:
            PredictionsError: an image is missing, or the classes differ.
        """
        if not are_same_names(class_names, self.class_names):
            raise PredictionsError(
                f"The predictions of {self.net_names} have other classes, or in another order."
            )

        def missing(name: str) -> PredictionsError:
            return PredictionsError(f"The predictions of {self.net_names} lack {name}.")

        return self.posteriors[indices_of(names, self.names, missing)]

    @property
    def members(self) -> list[dict[str, Any]]:
        """The metadata of each net whose posteriors were averaged, also if it is a single net."""
        return list(members(self.metadata))

    @property
    def net_names(self) -> str:
        """The nets as people know them, for messages."""
        return " + ".join(map(net_name, self.members))

    def result(self) -> dict[str, Any]:
        """`metadata`, `images`, and `top1_error` and `top5_error` in percent.

        Images without labels have no errors.
        """
        if (self.labels < 0).any():
            return self.metadata | {"images": len(self)}
        count = ErrorCount()
        for part in _parts(len(self)):
            count.add(self.posteriors[part], self.labels[part])
        return self.metadata | {
            "images": count.images,
            "top1_error": count.top1_error,
            "top5_error": count.top5_error,
        }

    def ranks(self) -> np.ndarray:
        """Number of classes that rank above the true one for each image, int64 `(N,)`.

        An image is right by the top-1 error if it is 0, and by the top-5 error if it is below 5.
        All images must have labels.
        """
        return np.concatenate(
            [ranks(self.posteriors[part], self.labels[part]) for part in _parts(len(self))]
        )

    def top(self, k: int = TOP) -> tuple[np.ndarray, np.ndarray]:
        """The k most probable classes, best first: indices and posteriors, `(N, k)` each."""
        return top_classes(self.posteriors, k)

    def save_submission(self, path: str | os.PathLike) -> None:
        """Writes the five most probable classes of each image as ILSVRC's server takes them.

        Raises:
            PredictionsError: images were skipped, or see
                `vgg_keras.evaluation.submissions.save_submission`.
            WriteError: the file cannot be written.
        """
        skipped = [name for one in self.members for name in one.get("skipped", ())]
        if skipped:
            raise PredictionsError(
                f"A submission needs all images, and some could not be read: {first_few(skipped)}."
            )
        save_submission(path, self.names, self.class_names, self.top()[0])

    def save(self, path: str | os.PathLike) -> None:
        """Writes a table of images, and a file NAME.json with the result and the class names.

        The columns are `image`, `label` (null for an image without one), `class_1`, `posterior_1`
        to `class_5`, `posterior_5`, and `posteriors`, those of all classes in the order of
        `class_names`: a list in Parquet, numbers separated by blanks in CSV. Both store float32
        exactly.

        Raises:
            PredictionsError: the name ends in neither .parquet nor .csv.
            WriteError: the file cannot be written; what was there before is intact.
        """
        path = known_format(path)
        metadata = self.result() | {"predictions": path.name, "class_names": list(self.class_names)}
        try:
            write_pair(path, _companion(path), self._write, metadata, indent=2)
        except OSError as error:  # PyArrow's do not name the file
            raise WriteError(f"{path} cannot be written: {error}") from error

    def _write(self, path: Path) -> None:
        from pyarrow import csv, parquet

        batches = self._batches(as_text=path.suffix == ".csv")
        first = next(batches)
        with (
            csv.CSVWriter(path, first.schema)
            if path.suffix == ".csv"
            else parquet.ParquetWriter(path, first.schema, compression="zstd")
        ) as writer:
            for batch in itertools.chain([first], batches):
                writer.write_batch(batch)

    def _batches(self, as_text: bool) -> Iterator[Any]:
        """The table as record batches, of which one is in memory at a time."""
        import pyarrow as pa

        class_names = np.array(self.class_names)
        for part in _parts(len(self)):
            names, posteriors = self.names[part], self.posteriors[part]
            labels = self.labels[part]
            columns = {
                "image": pa.array(list(names), pa.string()),
                "label": pa.array(class_names[labels], pa.string(), labels < 0),
            }
            best = zip(*(array.T for array in top_classes(posteriors)), strict=True)
            for k, (classes, values) in enumerate(best, 1):
                columns[f"class_{k}"] = pa.array(class_names[classes])
                columns[f"posterior_{k}"] = pa.array(values)
            if as_text:
                rows = [" ".join(f"{p:.9g}" for p in row) for row in posteriors]
                columns["posteriors"] = pa.array(rows, pa.string())
            else:
                flat = pa.array(np.ascontiguousarray(posteriors).ravel())
                columns["posteriors"] = pa.FixedSizeListArray.from_arrays(flat, len(class_names))
            yield pa.RecordBatch.from_pydict(columns)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Predictions:
        """Reads what `save` wrote.

        Raises:
            PredictionsError: the file, or the JSON file beside it, is missing or holds something
                else, a posterior is not finite, or the two were not saved together.
        """
        path = known_format(path)
        beside = _companion(path)
        for file in (path, beside):
            if not file.is_file():
                raise PredictionsError(
                    f"There is no {file}; Predictions.save writes both {path.name} and "
                    f"{beside.name}."
                )
        problem = "does not hold predictions"
        metadata: Any = read_json(beside, PredictionsInFile, PredictionsError, problem)
        class_names = tuple(metadata.pop("class_names"))
        with naming_file(path, PredictionsError, problem):
            check_pair(path, beside, metadata, PredictionsError)
            names, labels, posteriors = _read(path)
            known = [label for label in labels if label is not None]
            indices = np.full(len(labels), -1)
            indices[[label is not None for label in labels]] = indices_of(
                known, class_names, lambda name: ValueError(f"no class {name!r}")
            )
            posteriors = posteriors.reshape(len(names), len(class_names))
        for key in ("predictions", "images", "top1_error", "top5_error", DIGEST_KEY):
            metadata.pop(key, None)
        return cls(names, indices, posteriors, class_names, metadata)


def top_classes(posteriors: np.ndarray, k: int = TOP) -> tuple[np.ndarray, np.ndarray]:
    """The k most probable classes, best first: indices and posteriors. Ties keep index order.

    Args:
        posteriors: `(N, classes)`.
        k: number of classes; at most all of them are given.

    Returns:
        int64 and float32 `(N, k)`.
    """
    order = np.zeros((len(posteriors), min(k, posteriors.shape[1])), np.int64)
    for part in _parts(len(posteriors)):
        order[part] = np.argsort(-posteriors[part], axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(posteriors, order, axis=1)


def _parts(count: int) -> Iterator[slice]:
    """Slices of rows that are few enough for arrays of all their classes."""
    return (slice(i, i + _PART) for i in range(0, max(count, 1), _PART))


def _companion(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def known_format(path: str | os.PathLike) -> Path:
    """The path, if predictions can be saved in such a file.

    Raises:
        PredictionsError: it ends in neither .parquet nor .csv.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise PredictionsError(
            f"Predictions are saved in files that end in {' or '.join(FORMATS)}. Received: {path}"
        )
    return path


def _read(path: Path) -> tuple[list[str], list[str | None], np.ndarray]:
    """Names, labels and posteriors of a file, the last flat or by row."""
    if path.suffix == ".csv":
        import pyarrow as pa
        from pyarrow import csv

        columns = {"image": pa.string(), "label": pa.string(), "posteriors": pa.string()}
        options = csv.ConvertOptions(
            column_types=columns,
            include_columns=list(columns),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        table = csv.read_csv(path, convert_options=options)
        rows = [np.array(str(row).split(), np.float32) for row in table["posteriors"]]
        posteriors = np.array(rows, np.float32)
    else:
        from pyarrow import parquet

        table = parquet.read_table(path, columns=["image", "label", "posteriors"])
        posteriors = table["posteriors"].combine_chunks().flatten().to_numpy()
    names, labels = (table[name].to_pylist() for name in ("image", "label"))
    if not names or not all(isinstance(name, str) for name in (*names, *filter(None, labels))):
        raise ValueError("image and label must be texts in one row or more")
    # NaN is below nothing and above nothing, and is the least and the greatest value.
    if not posteriors.size:
        raise ValueError("posteriors must have one value or more in each row")
    if posteriors.dtype != np.float32 or not 0 <= posteriors.min() <= posteriors.max() <= 1.001:
        raise ValueError("posteriors must be float32 from 0 to 1")
    return names, labels, posteriors
