"""Which test images were recognised in each split of a transfer result.

In a file it is an object with `images`, the names of all test images; `labels`, their classes as
numbers; and `splits`, texts with one character for each image: 1 if it was recognised, 0 if it was
not, and - if it is not a test image of the split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vgg_keras.metadata import RECOGNISED_KEY

if TYPE_CHECKING:  # it imports PyArrow
    from vgg_keras.features.table import Features

_RIGHT, _WRONG, _ABSENT = "10-"


def recognised(
    features: Features, tested: Sequence[np.ndarray], right: Sequence[np.ndarray | None]
) -> dict[str, Any]:
    """The entry of a result that says which test images were recognised.

    Args:
        features: features of the images.
        tested: row indices of the test images of each split.
        right: whether each of them was recognised; None if that is not measured.

    Returns:
        A dictionary with one key; empty if it is not measured.
    """
    marks = np.full((len(tested), len(features)), _ABSENT)
    for row, indices, is_right in zip(marks, tested, right, strict=True):
        if is_right is None:
            return {}
        row[indices] = np.where(is_right, _RIGHT, _WRONG)
    rows = np.flatnonzero((marks != _ABSENT).any(0)).tolist()
    content = {
        "images": [f"{features.splits[i]}/{features.names[i]}" for i in rows],
        "labels": features.labels[rows].tolist(),
        "splits": ["".join(row) for row in marks[:, rows]],
    }
    return {RECOGNISED_KEY: content}


def read_recognised(content: Mapping[str, Any]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Reads the entry.

    Args:
        content: the value of `RECOGNISED_KEY` in a result.

    Returns:
        Names of the N images; whether each was recognised, bool `(S, N)`; and its weight in the
        mean class recall of each of the S splits, float64 `(S, N)`, 0 if it is absent.

    Raises:
        ValueError: the lengths differ, or a split has no test image.
    """
    names, labels = content["images"], np.array(content["labels"], np.int64)
    marks = np.array([list(row) for row in content["splits"]])
    if marks.shape[1:] != (len(names),) or labels.shape != (len(names),):
        raise ValueError("images, labels and splits must have the same length")
    weights = np.zeros(marks.shape)
    for row, of_split in zip(weights, marks != _ABSENT, strict=True):
        present = np.flatnonzero(of_split)
        if not len(present):
            raise ValueError("every split must have a test image")
        _, classes, counts = np.unique(labels[present], return_inverse=True, return_counts=True)
        row[present] = 1 / (len(counts) * counts[classes])
    return names, marks == _RIGHT, weights
