"""What a run says of single pictures, whose classes nobody knows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgg_keras.evaluation.evaluate import conditions, plan, score
from vgg_keras.evaluation.predictions import TOP, top_classes
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import FolderSplit
from vgg_keras.runs import Run


@dataclass(frozen=True, eq=False)
class Predicted:
    """Posteriors of a net for pictures without labels.

    Attributes:
        names: paths of the pictures, as they were given.
        posteriors: float32 `(N, classes)`; rows sum to 1.
        class_names: of the columns.
        about: of which net, and how; what can be written as JSON. `skipped` names the pictures
            that could not be read, if there are any.
    """

    names: tuple[str, ...]
    posteriors: np.ndarray
    class_names: tuple[str, ...]
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.names)

    def top(self, k: int = TOP) -> tuple[np.ndarray, np.ndarray]:
        """The k most probable classes, best first: indices and posteriors, `(N, k)` each."""
        return top_classes(self.posteriors, k)


def predict(
    run: Run,
    images: Sequence[str | os.PathLike],
    *,
    protocol: str = "dense",
    test_scales: Sequence[int] | None = None,
    multi_scale: bool = False,
    flip: bool | None = None,
    map_average: str = "scores",
    batch_size: int = 64,
    on_bad_image: str = "stop",
) -> Predicted:
    """Posteriors of a run for some pictures (§3.2).

    Args:
        run: from `load_run`.
        images: paths of JPEG, PNG, GIF or BMP files, told by content; a row of the result each.
        protocol, test_scales, multi_scale, flip, map_average: see `evaluate`.
        batch_size, on_bad_image: see `PassRunner`.

    Raises:
        SourceError: an image is no file, or none is readable.
        BadImageError, ValueError, MemoryError: see `PassRunner.posteriors`.
    """
    pictures = as_split(images)
    passes = plan(run.recipe, protocol, test_scales, multi_scale, flip, map_average)
    places, posteriors, skipped = score(
        run, pictures, passes, batch_size=batch_size, on_bad_image=on_bad_image
    )
    if not len(places):
        raise SourceError(f"None of the pictures can be read: {_some(skipped)}.")
    metadata = conditions(run, passes, protocol, map_average, skipped)
    return Predicted(tuple(pictures.names_of(places)), posteriors, run.class_names, metadata)


def as_split(images: Sequence[str | os.PathLike]) -> FolderSplit:
    """Picture files in the order given, with -1 for their labels.

    Raises:
        SourceError: there are none, or one is missing or a folder; the message names it.
    """
    paths = [os.fspath(image) for image in images]
    if not paths:
        raise SourceError("No picture is given.")
    folders = [path for path in paths if Path(path).is_dir()]
    if folders:
        raise SourceError(
            f"Pictures are given one by one, those of a folder as {Path(folders[0]) / '*'}. "
            f"Received a folder: {_some(folders)}"
        )
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise SourceError(f"There is no such file: {_some(missing)}")
    return FolderSplit("given", np.array(paths), np.full(len(paths), -1, np.int64))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
