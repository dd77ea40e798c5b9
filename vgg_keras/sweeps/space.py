"""The search space of a sweep: a recipe, and the nets, scales and widths to put into it.

This module does not import TensorFlow, so that the command line checks and shows sweeps quickly.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from vgg_keras.errors import ArgumentError, SweepError
from vgg_keras.nets import get_net
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.pipelines.contents import naming_file, parse_json
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.recipes import RECIPES, Recipe

TUNERS = ("grid", "random", "bayesian", "hyperband")
OBJECTIVES = ("top5", "top1")
SWEEP_FILE = "sweep.json"
RUNS_FOLDER, TUNER_FOLDER = "runs", "tuner"  # the second holds Keras Tuner's own state
_SHALLOW = "A"  # deeper nets start from it (§3.1)
_FROM_SCRATCH = ("A", "A-LRN", "B-shallow")  # the layers of A do not fit B-shallow


@dataclass(frozen=True)
class Sweep:
    """A search over depth, training scale and width.

    Attributes:
        recipe: recipe of all trials, except for the values below; its `epochs` are the budget of a
            trial.
        nets: configurations of Table 1.
        train_scales: training scales S, each as a pair (S, S) or (S_min, S_max).
        widths: factors on the channels of the hidden layers.
        tuner: "grid", "random", "bayesian" or "hyperband".
        objective: validation error to minimise, "top5" or "top1".
        max_trials: maximum number of trials of "random" and "bayesian"; by default the number of
            points. "grid" and "hyperband" choose their own number.

    Raises:
        ArgumentError: a value is not allowed, or a value is given twice.

    Example:
        sweep = Sweep(RECIPES["small"], nets=("A", "D"), train_scales=((73, 73), (73, 146)))
        run_sweep(sweep, "sweeps/x")
    """

    recipe: Recipe
    nets: tuple[str, ...] = ("A", "B", "D", "E")
    train_scales: tuple[tuple[int, int], ...] = ((256, 256), (384, 384), (256, 512))
    widths: tuple[float, ...] = (1.0,)
    tuner: str = "grid"
    objective: str = "top5"
    max_trials: int | None = None

    def __post_init__(self) -> None:
        # Shallow nets first: the deeper ones start from A.
        nets = sorted(map(get_net, self.nets), key=lambda net: net.weight_layers)
        object.__setattr__(self, "nets", tuple(net.name for net in nets))
        for name in ("nets", "train_scales", "widths"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ArgumentError(
                    f"{name} must be one value or more, all different. Received: {values}", name
                )
        first = self.recipe.stages[0].recipe.trainable
        if first != "all":  # net A starts from scratch, and random layers are not frozen
            raise ArgumentError(
                f"recipe must train all layers from the first epoch on in a sweep. "
                f"Received: a recipe that begins with trainable={first}",
                "recipe",
            )
        check_choice("tuner", self.tuner, TUNERS)
        check_choice("objective", self.objective, OBJECTIVES)
        for point in self.points():
            point.recipe(self.recipe)

    def points(self) -> Iterator[Point]:
        """All combinations of net, scale and width, shallow nets first."""
        for values in itertools.product(self.nets, self.train_scales, self.widths):
            yield Point(*values)

    def choices(self) -> dict[str, list[str]]:
        """The values to choose from, by field of `Point`.

        They are strings, because Keras Tuner rounds numbers in its messages between workers.
        """
        values = [point.values for point in self.points()]
        return {name: list(dict.fromkeys(v[name] for v in values)) for name in values[0]}

    def point_of(self, values: Mapping[str, str]) -> Point:
        """The point with the given values; entries of `values` with other names are ignored.

        Raises:
            SweepError: there is none.
        """
        for point in self.points():
            if point.values.items() <= values.items():
                return point
        raise SweepError(f"The sweep has no point with the values {dict(values)}.")

    def save(self, folder: Path) -> None:
        """Writes the sweep into its folder, or checks that it is there already.

        A sweep may go on with more trials, see `_cannot_grow`.

        Raises:
            SweepError: the folder holds another sweep or something else.
        """
        file = folder / SWEEP_FILE
        # The order matters: another worker that starts now writes the sweep file first.
        is_used = folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir())
        if file.exists():
            former = Sweep.load(folder)
            if not (differences := _differences(former, self)):
                return
            if reason := _cannot_grow(former, self):
                raise SweepError(
                    f"{folder} holds another sweep ({'; '.join(differences)}){reason}. Give the "
                    f"arguments of that sweep to continue it, or another folder."
                )
            if former.recipe != self.recipe:  # the runs are there; the trials are to be ended again
                shutil.rmtree(folder / TUNER_FOLDER, ignore_errors=True)
        elif is_used:
            raise SweepError(f"{folder} is not empty and holds no sweep. Give another folder.")
        atomic_write(file, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Sweep:
        """Reads the sweep of a folder.

        Raises:
            SweepError: the folder holds no sweep, or its file something else.
        """
        file = folder / SWEEP_FILE
        if not file.is_file():
            raise SweepError(f"{folder} is not the folder of a sweep: it has no {SWEEP_FILE}.")
        with naming_file(file, SweepError):
            fields: Any = parse_json(file.read_bytes(), _SweepInFile)
            fields["recipe"] = Recipe.from_json(json.dumps(fields["recipe"]))
            fields["train_scales"] = tuple(map(tuple, fields["train_scales"]))
            return cls(**fields | {name: tuple(fields[name]) for name in ("nets", "widths")})


class _SweepInFile(TypedDict):
    recipe: dict[str, Any]
    nets: list[str]
    train_scales: list[tuple[int, int]]
    widths: list[float]
    tuner: str
    objective: str
    max_trials: int | None


@dataclass(frozen=True)
class Point:
    """One point of the search space: a net, a training scale and a width."""

    net: str
    train_scale: tuple[int, int]
    width: float

    @property
    def name(self) -> str:
        """Name of the run folder, such as `D-s256-512-w1`."""
        net, scale, width = self.values.values()
        return f"{net}-s{scale.replace(':', '-')}-w{width}"

    @property
    def values(self) -> dict[str, str]:
        """The values as strings, by field."""
        scale, width = scale_text(self.train_scale), f"{self.width:g}"
        return {"net": self.net, "train_scale": scale, "width": width}

    @property
    def shallow(self) -> Point | None:
        """The point whose net this one starts from (§3.1); None if it starts from scratch."""
        return None if self.net in _FROM_SCRATCH else dataclasses.replace(self, net=_SHALLOW)

    def recipe(self, base: Recipe, **changes: Any) -> Recipe:
        """The recipe with the values of this point.

        Args:
            base: gives all other fields.
            changes: further fields to replace.

        Raises:
            ArgumentError: the values do not go together.
        """
        fields = dataclasses.asdict(self)
        return dataclasses.replace(base, **fields | changes)


def scale_text(scale: tuple[int, int]) -> str:
    """A training scale as text: 256, or 256:512 for a range."""
    low, high = scale
    return str(low) if low == high else f"{low}:{high}"


def default_recipe(train_scales: Iterable[tuple[int, int]]) -> str:
    """Name of the default recipe: "small" if a scale is below the paper's crop size."""
    fits = min(low for low, _ in train_scales) >= RECIPES["paper"].crop_size
    return "paper" if fits else "small"


def _cannot_grow(former: Sweep, sweep: Sweep) -> str:
    """Why a search cannot go on as another one; "" if it can.

    More trials are only added. With more epochs every run goes on, which is the same search only
    if nothing depends on what the runs had reached before: no start of a deeper net from net A,
    and no choice of a tuner.
    """
    grown = dataclasses.replace(
        former,
        max_trials=sweep.max_trials,
        recipe=dataclasses.replace(former.recipe, epochs=sweep.recipe.epochs),
    )
    if grown != sweep:
        return "; only max_trials and the number of epochs may grow"
    before, after = (one.max_trials or len(list(one.points())) for one in (former, sweep))
    if after < before:
        return "; max_trials may only grow"
    epochs = former.recipe.epochs, sweep.recipe.epochs
    if epochs[1] < epochs[0]:
        return "; the number of epochs may only grow"
    deeper = [net for net in sweep.nets if net not in _FROM_SCRATCH]
    if epochs[1] > epochs[0] and deeper:
        return f"; net {deeper[0]} has started from net A with epochs={epochs[0]}"
    if epochs[1] > epochs[0] and sweep.tuner not in ("grid", "random"):
        return f"; {sweep.tuner} has chosen trials by errors with epochs={epochs[0]}"
    return ""


def _differences(one: Sweep, other: Sweep) -> list[str]:
    """The fields that differ, as `name: value -> other value`."""
    fields: Mapping[str, Any] = {f.name: getattr(one, f.name) for f in dataclasses.fields(one)}
    lines = one.recipe.differences(other.recipe)
    lines += [
        f"{name}: {value} -> {getattr(other, name)}"
        for name, value in fields.items()
        if name != "recipe" and value != getattr(other, name)
    ]
    return lines
