"""Submission files of the ILSVRC challenges, as its evaluation server takes them.

A submission has one line for each image, in the alphabetical order of the file names, and no names.
A line has the ILSVRC2012_IDs of at most five classes, the most probable first; for localisation
each is followed by a box, `x_min y_min x_max y_max` in pixels. The form is that of "Submission and
evaluation" in the readme.txt of ILSVRC's development kit.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vgg_keras.errors import PredictionsError
from vgg_keras.ilsvrc import ids_of_wnids
from vgg_keras.pipelines.checks import first_few, indices_of
from vgg_keras.pipelines.files import atomic_write

_FILE_NAME = re.compile(r".+\.[A-Za-z]{3,4}")  # not an id of TFDS, or "image 0"


def save_submission(
    path: str | os.PathLike,
    names: Sequence[str],
    class_names: Sequence[str],
    classes: np.ndarray,
    boxes: np.ndarray | None = None,
) -> None:
    """Writes a submission.

    Args:
        path: the text file.
        names: names of the N images, in any order. A line stands for the file name alone, without
            folders.
        class_names: names of the classes of the net, which must be WordNet ids of ILSVRC-2012.
        classes: A classes for each image, at most five, the most probable first, int64 `(N, A)`.
        boxes: one box for each of these classes, int64 `(N, A, 4)`, in pixels from 0 with the first
            and the last pixel inside the box; None for classification.

    Raises:
        PredictionsError: a class is not one of ILSVRC-2012's; or images have no file names, or two
            have the same, so that their order is unknown.
        WriteError: the file cannot be written.

    Example:
        save_submission("test.txt", found.names, found.class_names, found.top(5)[0])
    """
    ids = submission_ids(class_names)[classes[..., None]]
    cells = ids if boxes is None else np.concatenate([ids, boxes], 2)
    rows = cells[_alphabetical(names)].reshape(len(names), -1).tolist()
    atomic_write(path, "".join(f"{' '.join(map(str, row))}\n" for row in rows))


def submission_ids(class_names: Sequence[str]) -> np.ndarray:
    """The ILSVRC2012_ID of each class, int64 `(len(class_names),)`.

    Raises:
        PredictionsError: a name is not a WordNet id of ILSVRC-2012.
    """

    def missing(name: str) -> PredictionsError:
        return PredictionsError(
            f"A submission needs a net whose classes are WordNet ids of ILSVRC-2012, such as "
            f"n01440764. Received: {name!r}"
        )

    ids = ids_of_wnids()
    return np.array(list(ids.values()))[indices_of(class_names, list(ids), missing)]


def _alphabetical(names: Sequence[str]) -> list[int]:
    """Indices of the images in the alphabetical order of their file names."""
    files = [Path(name).name for name in names]
    unnamed = [file for file in files if not _FILE_NAME.fullmatch(file)]
    shared = [file for file, count in Counter(files).items() if count > 1]
    for wrong in filter(None, (unnamed, shared)):
        raise PredictionsError(
            f"A submission is in the order of the images' file names, which must all be different. "
            f"Received: {first_few(wrong)}"
        )
    return sorted(range(len(files)), key=files.__getitem__)
