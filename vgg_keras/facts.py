"""`NetFacts`: what is known about a trained net, apart from its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vgg_keras.architecture import Architecture
from vgg_keras.errors import ArgumentError
from vgg_keras.metadata import net_name
from vgg_keras.nets import num_outputs
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.pipelines.reprs import ShortRepr
from vgg_keras.recipes import REGRESSIONS, Recipe


@dataclass(frozen=True, eq=False, repr=False)
class NetFacts(ShortRepr):
    """What is known about a trained net, apart from its weights.

    Attributes:
        architecture: what the net computes.
        mean: RGB mean, 0 to 255, to be subtracted from images.
        class_names: names of the classes, in the order of the outputs.
        train_scale: S, as a pair (S, S) or (S_min, S_max); None if unknown.
        origin: where the weights come from: {"run": folder}, {"weights": file, ...} with the
            arguments that it was read with and the "input" that its net takes, or {"model": name}.
        recipe: how the net was trained, if it is known.
        regression: None for a classification net; "per-class" or "single-class" for one that
            gives boxes (§A.1).
        precision: Keras dtype policy of the model.
    """

    architecture: Architecture
    mean: tuple[float, float, float]
    class_names: tuple[str, ...]
    train_scale: tuple[int, int] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    regression: str | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", as_colour(self.mean))
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        object.__setattr__(self, "train_scale", as_pair(self.train_scale))
        if self.regression is not None:
            check_choice("regression", self.regression, REGRESSIONS)
        outputs = num_outputs(len(self.class_names), self.regression)
        if outputs != self.architecture.num_classes:
            raise ArgumentError(
                f"class_names must fit the outputs of the net: {self.architecture.num_classes} "
                f"outputs{'' if self.regression is None else ' of boxes'}. "
                f"Received: {len(self.class_names)} class names",
                "class_names",
            )

    @property
    def name(self) -> str:
        """Path or name of the net, for messages."""
        return net_name(self.origin)

    @property
    def validation_scale(self) -> int:
        """Q of §4.1: S, or the middle of its range.

        Raises:
            ArgumentError: the training scale is unknown.
        """
        if self.train_scale is None:
            raise ArgumentError(
                "test_scales must be given, because the training scale S of the net is unknown "
                "(train_scale=... of TrainedNet.of_model sets it). Received: test_scales=None",
                "test_scales",
            )
        return sum(self.train_scale) // 2

    def metadata(self) -> dict[str, Any]:
        """The facts that are stored in results, exports and caches; can be written as JSON."""
        return {
            **self.origin,
            "net": self.architecture.net,
            "train_scale": None if self.train_scale is None else list(self.train_scale),
            "crop_size": self.architecture.crop_size,
            "width": self.architecture.width,
            "pool_rounding": self.architecture.pool_rounding,
            "precision": self.precision,
            **({} if self.recipe is None else {"seed": self.recipe.seed}),
        }


def as_pair(scale: int | Sequence[int] | None) -> tuple[int, int] | None:
    """A scale S as the pair (S, S), or a pair (S_min, S_max) as it is."""
    if scale is None:
        return None
    values = tuple(scale) if isinstance(scale, Iterable) else (scale,)
    low, high = (values[0], values[-1]) if 1 <= len(values) <= 2 else (0, 0)
    if not 0 < low <= high:
        raise ArgumentError(
            f"train_scale must be S, or the pair S_min, S_max. Received: {scale}", "train_scale"
        )
    return int(low), int(high)


def as_colour(values: Sequence[float]) -> tuple[float, float, float]:
    """Three finite numbers, R, G and B, as floats."""
    try:
        red, green, blue = map(float, values)
        if not all(map(math.isfinite, (red, green, blue))):
            raise ValueError("not finite")
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"mean must be three finite numbers, R, G and B. Received: {values!r}", "mean"
        ) from error
    return red, green, blue
