"""What there is to choose in describing pictures (§B), as data; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

SCALES = (256, 384, 512)  # Q, for 224-pixel crops
AGGREGATES = ("mean", "max", "stack")
REGIONS = ("image", "box", "image+box")


def check_procedure(aggregate: str, test_scales: Sequence[int], region: str = "image") -> None:
    """Raises ValueError for an unknown name, no scale, or a scale given twice."""
    for name, value, allowed in (
        ("aggregate", aggregate, AGGREGATES),
        ("region", region, REGIONS),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}. Received: {value!r}")
    if not test_scales or len(set(test_scales)) < len(test_scales):
        raise ValueError(
            f"test_scales must be one or more different scales. Received: {tuple(test_scales)}"
        )
