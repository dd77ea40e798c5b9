"""Differences between outputs of an export and what they should be, each as one number."""

from __future__ import annotations

import numpy as np


def value_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The greatest difference, relative to the greatest expected value.

    It is infinite if the shapes differ or a value is not finite.

    Example:
        value_difference(np.array([1.0, 2.0]), np.array([1.0, 4.0]))  # 0.5
    """
    if found.shape != expected.shape or not np.isfinite([found, expected]).all():
        return float("inf")
    difference = np.abs(found.astype(np.float64) - expected).max(initial=0)
    return float(difference / max(np.abs(expected).max(initial=0), 1e-30))


def name_difference(found: np.ndarray, expected: np.ndarray | str) -> float:
    """0 if all names are the expected ones, else infinite.

    Args:
        found: names as bytes.
        expected: names as str, or one for all.
    """
    decoded = np.vectorize(bytes.decode, otypes=[object])(found)
    return 0.0 if np.all(decoded == expected) else float("inf")


def top_difference(classes: np.ndarray, probabilities: np.ndarray, posteriors: np.ndarray) -> float:
    """`value_difference` of the most probable classes; ties may be in any order.

    Args:
        classes: indices of the classes found, `(N, k)`.
        probabilities: their probabilities, `(N, k)`.
        posteriors: expected probabilities of all classes, `(N, classes)`.
    """
    named = np.take_along_axis(posteriors, classes.clip(0), 1)
    return max(
        value_difference(probabilities, named),
        value_difference(probabilities, greatest(posteriors, classes.shape[1])),
    )


def posteriors_of(labels: np.ndarray, names: np.ndarray, posteriors: np.ndarray) -> np.ndarray:
    """Posteriors of classes that are given by name, NaN for an unknown name.

    Args:
        labels: names as bytes, `(N, k)`.
        names: names of all classes as str, `(classes,)`.
        posteriors: of all classes, `(N, classes)`.
    """
    indices = {name.encode(): i for i, name in enumerate(names)}
    return np.array(
        [
            [row[indices[name]] if name in indices else np.nan for name in of_image]
            for of_image, row in zip(labels, posteriors, strict=True)
        ]
    )


def greatest(posteriors: np.ndarray, k: int) -> np.ndarray:
    """The k greatest values of each row, in descending order."""
    return np.sort(posteriors, 1)[:, ::-1][:, :k]
