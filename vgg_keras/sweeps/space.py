"""What a sweep looks at: a recipe, and the nets, scales and widths to put into it.

Nothing heavy is imported here, so that the command line can check and show sweeps at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgg_keras.errors import SweepError
from vgg_keras.nets import get_net
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.recipes import RECIPES, Recipe

TUNERS = ("grid", "random", "bayesian", "hyperband")
OBJECTIVES = ("top5", "top1")
SWEEP = "sweep.json"
_SHALLOW = "A"  # what deeper nets start from, §3.1
_FROM_SCRATCH = ("A", "A-LRN", "B-shallow")  # the last has no layers that A's would fit


@dataclass(frozen=True)
class Sweep:
    """A search over depth, training scale and width.

    Attributes:
        recipe: all other fields of the trials' recipes; its `epochs` are the budget of a trial.
        nets: names of Table 1.
        train_scales: S, as a pair (S, S) or (S_min, S_max).
        widths: of the nets.
        tuner: "grid", "random", "bayesian" or "hyperband".
        objective: "top5" or "top1", the validation error to bring down.
        max_trials: trials at most; by default as many as there are points. The grid and Hyperband
            choose their own number.
    """

    recipe: Recipe
    nets: tuple[str, ...] = ("A", "B", "D", "E")
    train_scales: tuple[tuple[int, int], ...] = ((256, 256), (384, 384), (256, 512))
    widths: tuple[float, ...] = (1.0,)
    tuner: str = "grid"
    objective: str = "top5"
    max_trials: int | None = None

    def __post_init__(self):
        # Shallow nets first: the deeper ones start from A.
        nets = sorted(map(get_net, self.nets), key=lambda net: net.weight_layers)
        object.__setattr__(self, "nets", tuple(net.name for net in nets))
        for name in ("nets", "train_scales", "widths"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be one or more, each once. Received: {values}")
        for name, allowed in (("tuner", TUNERS), ("objective", OBJECTIVES)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}. Received: {getattr(self, name)!r}"
                )
        for point in self.points():
            point.recipe(self.recipe)

    def points(self) -> Iterator[Point]:
        """Every combination, shallow nets first."""
        for values in itertools.product(self.nets, self.train_scales, self.widths):
            yield Point(*values)

    def choices(self) -> dict[str, list[str]]:
        """What a tuner chooses from, as text: its messages between workers round numbers."""
        values = [point.values for point in self.points()]
        return {name: list(dict.fromkeys(v[name] for v in values)) for name in values[0]}

    def point_of(self, values: Mapping[str, str]) -> Point:
        """The point that was chosen so; other entries of `values` are let be."""
        return next(p for p in self.points() if p.values.items() <= values.items())

    def save(self, folder: Path) -> None:
        """Writes the sweep into its folder, or finds it there.

        Raises:
            SweepError: another sweep is there, or something else.
        """
        file = folder / SWEEP
        # Looked at first: a worker that started at the same time writes the sweep before all else.
        is_used = folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir())
        if file.exists():
            differences = _differences(Sweep.load(folder), self)
            if differences:
                raise SweepError(
                    f"{folder} holds another sweep ({'; '.join(differences)}). Give its own "
                    f"arguments to go on with it, or another --out."
                )
            return
        if is_used:
            raise SweepError(f"{folder} is not empty and holds no sweep. Give another --out.")
        atomic_write(file, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Sweep:
        """Reads the sweep of a folder.

        Raises:
            SweepError: there is none.
        """
        file = folder / SWEEP
        if not file.is_file():
            raise SweepError(f"{folder} is no sweep folder: it holds no {SWEEP}.")
        fields = json.loads(file.read_text())
        fields["recipe"] = Recipe.from_json(json.dumps(fields["recipe"]))
        fields["train_scales"] = tuple(map(tuple, fields["train_scales"]))
        return cls(**fields | {name: tuple(fields[name]) for name in ("nets", "widths")})


@dataclass(frozen=True)
class Point:
    """One trial's values."""

    net: str
    train_scale: tuple[int, int]
    width: float

    @property
    def name(self) -> str:
        """Of its run folder, as in `D-s256-512-w1`."""
        net, scale, width = self.values.values()
        return f"{net}-s{scale.replace(':', '-')}-w{width}"

    @property
    def values(self) -> dict[str, str]:
        """As text, by field."""
        scale, width = scale_text(self.train_scale), f"{self.width:g}"
        return {"net": self.net, "train_scale": scale, "width": width}

    @property
    def shallow(self) -> Point | None:
        """The point whose net it starts from (§3.1); None where it starts from scratch."""
        return None if self.net in _FROM_SCRATCH else dataclasses.replace(self, net=_SHALLOW)

    def recipe(self, base: Recipe, **changes: Any) -> Recipe:
        """The recipe with these values.

        Raises:
            ValueError: they do not go together.
        """
        fields = dataclasses.asdict(self)
        return dataclasses.replace(base, **fields | changes)


def scale_text(scale: tuple[int, int]) -> str:
    """256, or 256:512 for a range."""
    low, high = scale
    return str(low) if low == high else f"{low}:{high}"


def default_recipe(train_scales: Iterable[tuple[int, int]]) -> str:
    """Name of the recipe where none is given: small nets where the paper's crops do not fit."""
    fits = min(low for low, _ in train_scales) >= RECIPES["paper"].crop_size
    return "paper" if fits else "small"


def _differences(one: Sweep, other: Sweep) -> list[str]:
    fields: Mapping[str, Any] = {f.name: getattr(one, f.name) for f in dataclasses.fields(one)}
    lines = one.recipe.differences(other.recipe)
    lines += [
        f"{name}: {value} -> {getattr(other, name)}"
        for name, value in fields.items()
        if name != "recipe" and value != getattr(other, name)
    ]
    return lines
