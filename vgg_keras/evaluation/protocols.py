"""The test protocols of §3.2 and §4 as data, and the scales they are run at."""

from __future__ import annotations

from dataclasses import dataclass

from vgg_keras.recipes import Recipe

CROP_OF_PAPER, SCALE_STEP = 224, 32  # §4.2: Q = {S - 32, S, S + 32} for 224-pixel crops
MAP_AVERAGES = ("scores", "posteriors")


@dataclass(frozen=True)
class Views:
    """How a rescaled picture is shown to the net.

    Attributes:
        grid: crops in each direction; 0 for the whole picture.
        flip: whether its mirror image is shown too, where nothing else is asked for.
    """

    grid: int
    flip: bool


VIEWS = {
    "centre": Views(grid=1, flip=False),
    "dense": Views(grid=0, flip=True),
    "multi-crop": Views(grid=5, flip=True),  # 50 crops a scale
}

# Each protocol is the mean of the posteriors of these.
PROTOCOLS: dict[str, tuple[str, ...]] = {
    "centre": ("centre",),
    "dense": ("dense",),
    "multi-crop": ("multi-crop",),
    "multi-crop+dense": ("multi-crop", "dense"),
}


@dataclass(frozen=True)
class Pass:
    """One way of looking at every picture of a split: its posteriors are kept together.

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


def passes_of(
    protocol: str,
    test_scales: tuple[int, ...],
    flip: bool | None = None,
    map_average: str = "scores",
) -> list[Pass]:
    """What a protocol is the average of.

    Args:
        protocol: a name of `PROTOCOLS`.
        test_scales: Q, one or more.
        flip: by default as in the paper: with the mirror image, but for the central crop.
        map_average: see `Pass`.

    Raises:
        ValueError: an unknown name, no scale, or a scale given twice.
    """
    for name, value, allowed in (
        ("protocol", protocol, tuple(PROTOCOLS)),
        ("map_average", map_average, MAP_AVERAGES),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}. Received: {value!r}")
    if not test_scales or len(set(test_scales)) < len(test_scales):
        raise ValueError(
            f"test_scales must be one or more different scales. Received: {test_scales}"
        )
    return [
        Pass(
            views,
            scale,
            VIEWS[views].flip if flip is None else flip,
            # A crop's map has one place: both averages are the same.
            MAP_AVERAGES[0] if VIEWS[views].grid else map_average,
        )
        for views in PROTOCOLS[protocol]
        for scale in test_scales
    ]


def paper_scales(recipe: Recipe, multi_scale: bool = False) -> tuple[int, ...]:
    """The test scales that the paper pairs with a training scale.

    A single scale is Q = S, or the middle of the range (§4.1). Several are {S - 32, S, S + 32},
    the step in proportion to the crop size, or {S_min, middle, S_max} (§4.2).

    Raises:
        ValueError: S - 32 is below the crop size.
    """
    low, high = recipe.train_scale
    middle = recipe.validation_scale
    if not multi_scale:
        return (middle,)
    if low == high:
        step = round(SCALE_STEP * recipe.crop_size / CROP_OF_PAPER)
        if middle - step < recipe.crop_size:
            raise ValueError(
                f"Of the paper's scales S - {step}, S and S + {step} the first is below the crop "
                f"size, {recipe.crop_size}. Give test_scales. Received: a net trained at S={low}"
            )
        return (middle - step, middle, middle + step)
    return tuple(sorted({low, middle, high}))
