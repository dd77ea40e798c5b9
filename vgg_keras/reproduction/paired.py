"""Paired differences of two sides that were tested on the same images, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How much better one side is than another on the same images.

    Attributes:
        points: the gain in points of a percentage.
        low, high: 95 % interval of the gain.
        seeds: number of seeds. With a single one the interval holds for these nets alone.
        images: number of images.
        splits: number of random splits of the data that each seed has.
    """

    points: float
    low: float
    high: float
    seeds: int
    images: int
    splits: int = 1


def paired_difference(
    baseline: np.ndarray,
    variant: np.ndarray,
    weights: np.ndarray | None = None,
    groups: Sequence[int] | None = None,
) -> Difference:
    """The gain of a variant over a baseline, paired by seed and image, with a 95 % interval.

    With two seeds or more, the interval holds for other seeds and other images. With one seed it
    holds for other images, and for these nets alone. Random splits of the data are no seeds: the
    gain of a seed is the mean over its splits. With one seed the interval holds for other splits
    too. `docs/interpretations.md` states the formula and how often the interval covers the true
    gain.

    Args:
        baseline, variant: which images are right, bool `(S, N)` for S seeds; or float, from 0 to 1,
            the mean over several comparisons.
        weights: weights of the images, float `(S, N)`, 0 for an image that a seed lacks; by default
            all images have the same weight. The weights of each row are divided by their sum.
        groups: the seed of each row, int `(S,)`. Rows of one seed are splits. By default each row
            is a seed.

    Returns:
        The difference. The interval is within -100 to 100.

    Example:
        paired_difference(right_of_a, right_of_b).low > 0  # B is better
    """
    gains = np.asarray(variant, float) - np.asarray(baseline, float)
    weights = np.ones_like(gains) if weights is None else np.asarray(weights, float)
    weights = weights / weights.sum(1, keepdims=True)
    members = np.arange(len(gains)) if groups is None else np.asarray(groups)
    names, counts = np.unique(members, return_counts=True)
    if 1 < len(names) < len(gains):
        shares = (members == names[:, None]) / counts[:, None]
        sums, weights = shares @ (weights * gains), shares @ weights
        gains = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
    of_seeds = (weights * gains).sum(1)
    points, margin = of_seeds.mean(), _margin(gains - of_seeds[:, None], weights, of_seeds)
    low, high = np.clip([points - margin, points + margin], -1, 1)
    bounds = (100 * float(one) for one in (points, low, high))
    return Difference(*bounds, len(names), int(weights.any(0).sum()), int(counts.max()))


def _margin(deviations: np.ndarray, weights: np.ndarray, of_seeds: np.ndarray) -> float:
    """Half the width of the interval. Rows are seeds, or the splits of a single seed.

    Args:
        deviations: gain of each image, less the mean of its seed, `(S, N)`.
        weights: weights of the images, which sum to 1 for each seed.
        of_seeds: mean of each seed, `(S,)`.
    """
    seeds, present = len(of_seeds), weights > 0
    images = int(present.any(0).sum())
    if images < 2:
        return 2.0
    parts = weights * deviations / seeds  # what each image adds to the error of the mean
    # Half an image more for either side (Agresti & Min, Statistics in Medicine 24, 2005), because
    # sides that agree on all images may differ on others.
    squares = (parts.sum(0) ** 2).sum() + 1 / images**2
    over_images = images / (images - 1) * squares
    margin = _quantile(images - 1) * np.sqrt(over_images)
    if seeds == 1:
        return float(margin)
    over_seeds = of_seeds.var(ddof=1) / seeds
    # The noise of single images is in both variances.
    counts = present.sum(0)
    residuals = np.where(present, parts - parts.sum(0) / np.maximum(counts, 1), 0) ** 2
    noise = (residuals.sum(0) * counts / np.maximum(counts - 1, 1)).sum()
    shared = max(over_images - noise, 0.0)
    both = _quantile(seeds - 1) ** 2 * over_seeds + _quantile(images - 1) ** 2 * shared
    return float(max(margin, np.sqrt(both)))


def _quantile(degrees_of_freedom: int) -> float:
    """The quantile of Student's t that bounds a two-sided interval."""
    return float(special.stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2))
