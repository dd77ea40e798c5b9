"""The choices in computing descriptors (Appendix B) as data. This module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from vgg_keras.errors import ArgumentError
from vgg_keras.pipelines.checks import check_choice

SCALES = (256, 384, 512)  # Q for 224-pixel crops
AGGREGATES = ("mean", "max", "stack")
REGIONS = ("image", "box", "image+box")


def check_procedure(aggregate: str, test_scales: Sequence[int], region: str = "image") -> None:
    """Raises ArgumentError for an unknown name, no scale, or a scale that is given twice."""
    check_choice("aggregate", aggregate, AGGREGATES)
    check_choice("region", region, REGIONS)
    if not test_scales or len(set(test_scales)) < len(test_scales):
        raise ArgumentError(
            f"test_scales must be one or more different scales. Received: {tuple(test_scales)}",
            "test_scales",
        )
