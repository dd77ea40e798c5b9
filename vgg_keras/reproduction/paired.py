"""Paired differences of outcomes, with intervals over seeds and images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """How much better one side is than another on the same images.

    Attributes:
        points: the gain in points of a percentage.
        low, high: 95 % interval of the gain.
        seeds: number of seeds, or of random splits.
        images: number of images.
    """

    points: float
    low: float
    high: float
    seeds: int
    images: int
