"""The test procedures of §3.2 and §4 as data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vgg_keras.errors import ArgumentError
from vgg_keras.pipelines.checks import check_choice, check_test_scale

if TYPE_CHECKING:  # the command line reads the names here before it imports Keras
    from vgg_keras.facts import NetFacts

CROP_OF_PAPER, SCALE_STEP = 224, 32  # §4.2: Q = {S - 32, S, S + 32} for 224-pixel crops
MAP_AVERAGES = ("scores", "posteriors")


@dataclass(frozen=True)
class Views:
    """How a rescaled image is shown to the net.

    Attributes:
        grid: crops in each direction; 0 for the whole image.
        flip: whether the mirror image is shown too, by default.
    """

    grid: int
    flip: bool


VIEWS = {
    "centre": Views(grid=1, flip=False),
    "dense": Views(grid=0, flip=True),
    "multi-crop": Views(grid=5, flip=True),  # 50 crops a scale
}

# Each protocol is the mean of the posteriors of these views.
PROTOCOLS: dict[str, tuple[str, ...]] = {
    "centre": ("centre",),
    "dense": ("dense",),
    "multi-crop": ("multi-crop",),
    "multi-crop+dense": ("multi-crop", "dense"),
}
PROTOCOL_ALIASES = {"center": "centre", "dense+multi-crop": "multi-crop+dense"}


@dataclass(frozen=True)
class Pass:
    """One way of showing every image of a split to a net; its posteriors are cached together.

    Attributes:
        views: a name of `VIEWS`.
        test_scale: Q.
        flip: whether posteriors are averaged with those of the mirror image.
        map_average: "scores": the class score map is averaged, then soft-max (§3.2);
            "posteriors": soft-max at every position, then averaged.
    """

    views: str
    test_scale: int
    flip: bool
    map_average: str = "scores"

    def __str__(self) -> str:
        return f"{self.views} Q={self.test_scale}"


@dataclass(frozen=True)
class Procedure:
    """How a net is tested (§3.2, §4).

    Attributes:
        protocol: "centre", "dense", "multi-crop" or "multi-crop+dense". "center" is accepted.
        test_scales: Q, one or more; by default those that the paper pairs with the training
            scale of the net.
        multi_scale: whether the default is the several scales of §4.2 instead of the single one of
            §4.1.
        flip: whether posteriors are averaged with those of the mirror image; by default as in the
            paper, for all protocols except "centre".
        map_average: "scores", or "posteriors" for soft-max at each position of the map.

    Raises:
        ArgumentError: a name is unknown, or the scales do not go together.

    Example:
        Procedure("dense", multi_scale=True).passes(TrainedNet.load("runs/d"))
    """

    protocol: str = "dense"
    test_scales: tuple[int, ...] | None = None
    multi_scale: bool = False
    flip: bool | None = None
    map_average: str = "scores"

    def __post_init__(self) -> None:
        protocol = PROTOCOL_ALIASES.get(self.protocol, self.protocol)
        check_choice("protocol", protocol, PROTOCOLS)
        check_choice("map_average", self.map_average, MAP_AVERAGES)
        object.__setattr__(self, "protocol", protocol)
        object.__setattr__(self, "test_scales", as_scales(self.test_scales))
        if self.test_scales and self.multi_scale:
            raise ArgumentError(
                f"test_scales and multi_scale exclude each other. Received: "
                f"test_scales={self.test_scales}, multi_scale=True",
                "test_scales",
            )

    def passes(self, net: NetFacts) -> list[Pass]:
        """Lists the passes whose posteriors are averaged for a net.

        Raises:
            ArgumentError: a scale is below the crop size, the training scale is needed and
                unknown, or the net gives boxes and no posteriors.
        """
        if net.regression is not None:
            raise ArgumentError(
                f"A classification net is needed; {net.name} gives boxes, which `localise` scores.",
                "net",
            )
        scales = self.test_scales or paper_scales(net, self.multi_scale)
        for scale in scales:
            check_test_scale(scale, net.architecture.crop_size)
        return [
            Pass(
                views,
                scale,
                VIEWS[views].flip if self.flip is None else self.flip,
                # The map of a crop has one position: both averages are the same.
                MAP_AVERAGES[0] if VIEWS[views].grid else self.map_average,
            )
            for views in PROTOCOLS[self.protocol]
            for scale in scales
        ]

    def metadata(self, net: NetFacts) -> dict[str, Any]:
        """How the net is tested; can be written as JSON."""
        passes = self.passes(net)
        return {
            "protocol": self.protocol,
            "test_scales": sorted({one.test_scale for one in passes}),
            "flip": passes[0].flip,
            "map_average": self.map_average,
        }


def as_scales(test_scales: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """One test scale or several as a tuple; None if there is none.

    Raises:
        ArgumentError: a scale is given twice.
    """
    if test_scales is None:
        return None
    # `int` also turns NumPy integers into numbers that JSON can hold.
    several = tuple(test_scales) if isinstance(test_scales, Iterable) else (test_scales,)
    scales = tuple(int(scale) for scale in several)
    if len(set(scales)) < len(scales):
        raise ArgumentError(
            f"test_scales must be different scales. Received: {scales}", "test_scales"
        )
    return scales or None


def paper_scales(net: NetFacts, multi_scale: bool = False) -> tuple[int, ...]:
    """The test scales that the paper pairs with the training scale of a net.

    A single scale is Q = S, or the middle of the range (§4.1). Several are {S - 32, S, S + 32},
    with the step in proportion to the crop size, or {S_min, middle, S_max} (§4.2).

    Raises:
        ArgumentError: the training scale is unknown, or S - 32 is below the crop size.
    """
    middle = net.validation_scale
    if not multi_scale or net.train_scale is None:
        return (middle,)
    low, high = net.train_scale
    if low < high:
        return tuple(sorted({low, middle, high}))
    crop_size = net.architecture.crop_size
    step = round(SCALE_STEP * crop_size / CROP_OF_PAPER)
    if middle - step < crop_size:
        raise ArgumentError(
            f"test_scales must be given: the first of the paper's scales S - {step}, S and "
            f"S + {step} is below the crop size, {crop_size}. Received: a net trained at S={low}",
            "test_scales",
        )
    return (middle - step, middle, middle + step)
