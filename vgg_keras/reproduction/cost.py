"""What the steps of a plan cost: multiply-adds, seconds and disk space."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from vgg_keras.architecture import Architecture
from vgg_keras.evaluation.procedure import VIEWS, Pass, Procedure
from vgg_keras.facts import NetFacts
from vgg_keras.nets import FC_NAMES, HIDDEN_UNITS, STRIDE, Layer, get_net, scaled, weight_layers
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source
from vgg_keras.recipes import Recipe
from vgg_keras.reproduction.plan import Plan
from vgg_keras.reproduction.steps import (
    Evaluate,
    ExtractFeatures,
    Fuse,
    Localise,
    Step,
    Train,
    Transfer,
)

TRAINING, TESTING = "training", "testing"  # kinds of work that have rates of their own
_PASSES = 3  # multiply-adds of a training step are those of three forward passes
_FLOAT = 4  # bytes
# Seconds for steps that run no net, until one of their kind has been timed.
_WITHOUT_NET = {Fuse.__name__: 2.0, Transfer.__name__: 60.0}


class DataFacts(NamedTuple):
    """What costs depend on: the number of classes, and of images by split."""

    classes: int
    images: Mapping[str, float]

    @classmethod
    def unknown(cls) -> DataFacts:
        """The facts of data that are not opened: all costs are NaN."""
        return cls(1, {TRAIN: math.nan, VALIDATION: math.nan})

    @classmethod
    def of(cls, source: Source) -> DataFacts:
        """The facts of opened data."""
        sizes = {name: len(split) for name, split in source.splits.items()}
        return cls(len(source.class_names), sizes)


class Work(NamedTuple):
    """What a step has to do.

    Attributes:
        kind: TRAINING or TESTING, or the class of a step that runs no net.
        amount: multiply-adds; 1 for a step that runs no net.
        disk: bytes that it writes.
    """

    kind: str
    amount: float
    disk: float


class Timed(NamedTuple):
    """Work that was done, and the seconds that it took."""

    kind: str
    amount: float
    seconds: float


class Rate(NamedTuple):
    """Seconds of a step: `setup`, and `per_unit` for each unit of work."""

    setup: float
    per_unit: float

    def seconds(self, amount: float) -> float:
        """Seconds for an amount of work."""
        return self.setup + self.per_unit * amount


def fit_rate(timed: Sequence[Timed]) -> Rate:
    """The rate that explains times best, with the least relative errors; both parts are >= 0.

    Args:
        timed: one or more, of one kind.

    Example:
        >>> rate = fit_rate([Timed(TESTING, 100, 2.0), Timed(TESTING, 400, 5.0)])
        >>> round(rate.seconds(200), 6)
        3.0
    """
    amounts, seconds = (np.array([one[i] for one in timed], float) for i in (1, 2))
    unit = max(amounts.max(), 1.0)
    weights = 1 / np.maximum(seconds, 1e-3)
    # The amounts come first: they explain all where they are equal.
    columns = np.stack([weights * amounts / unit, weights], 1)
    (per_unit, setup), _ = nnls(columns, weights * seconds)
    return Rate(float(setup), float(per_unit / unit))


def rates_of(timed: Sequence[Timed]) -> dict[str, Rate]:
    """The rate of each kind of work. Tests take that of training until one has been timed."""
    kinds = {one.kind for one in timed}
    rates = {kind: fit_rate([one for one in timed if one.kind == kind]) for kind in kinds}
    for kind, other in ((TRAINING, TESTING), (TESTING, TRAINING)):
        if kind not in rates and other in rates:
            rates[kind] = rates[other]
    return {kind: Rate(0.0, seconds) for kind, seconds in _WITHOUT_NET.items()} | rates


def work_of(plan: Plan, data: Mapping[str, DataFacts]) -> dict[str, Work]:
    """The work of each step, by its name. A pass counts in the first step that needs it.

    Args:
        plan: the plan.
        data: the facts of all data in it.
    """
    trainings, seen, found = plan.trainings(), set(), {}
    for step in plan.steps:
        if isinstance(step, Train):
            facts = data[step.recipe.data]
            found[step.name] = Work(TRAINING, training_work(step.recipe, facts), _saved(step, data))
        elif isinstance(step, Fuse | Transfer):
            found[step.name] = Work(type(step).__name__, 1.0, _written(step, plan, data))
        else:
            amount, disk = 0.0, _written(step, plan, data)
            for key, multiply_adds, rows in passes_of(step, trainings, data):
                if key not in seen:
                    seen.add(key)
                    amount += multiply_adds
                    disk += rows
            found[step.name] = Work(TESTING, amount, disk)
    return found


def training_work(recipe: Recipe, data: DataFacts, epochs: int | None = None) -> float:
    """Multiply-adds of a training, by default of as many epochs as it may have."""
    forward = sum(layer.multiply_adds for layer in net_layers(recipe, data))
    trained = step_work(recipe, data) * data.images[TRAIN]
    epochs = recipe.epochs if epochs is None else epochs
    return float(epochs * (trained + forward * data.images[VALIDATION]))


def step_work(recipe: Recipe, data: DataFacts) -> float:
    """Multiply-adds of a training step for each image; layers that are frozen count once."""
    return float(
        sum(
            layer.multiply_adds * (_PASSES if recipe.trains(layer.name) else 1)
            for layer in net_layers(recipe, data)
        )
    )


def pass_work(layers: Sequence[Layer], crop_size: int, one: Pass) -> float:
    """Multiply-adds of a pass for one image, taken as square."""
    views = VIEWS[one.views]
    convolutions = sum(layer.multiply_adds for layer in layers if layer.name not in FC_NAMES)
    dense = sum(layer.multiply_adds for layer in layers if layer.name in FC_NAMES)
    if views.grid:
        of_views = float(views.grid**2 * (convolutions + dense))
    else:
        positions = (one.test_scale // STRIDE - crop_size // STRIDE + 1) ** 2
        of_views = convolutions * (one.test_scale / crop_size) ** 2 + dense * positions
    return float(of_views * (1 + one.flip))


class _PassWork(NamedTuple):
    """A pass over a split: what identifies it, its multiply-adds, and the bytes of its rows."""

    key: tuple
    multiply_adds: float
    rows: float


@functools.singledispatch
def passes_of(
    step: Step, trainings: Mapping[str, Train], data: Mapping[str, DataFacts]
) -> Iterator[_PassWork]:
    """The passes of a step that tests nets."""
    raise NotImplementedError(step)


@passes_of.register
def _(
    step: Evaluate, trainings: Mapping[str, Train], data: Mapping[str, DataFacts]
) -> Iterator[_PassWork]:
    recipe = trainings[step.run].recipe
    procedure = Procedure(step.protocol, multi_scale=step.multi_scale)
    yield from _classified(step.run, recipe, data[recipe.data], procedure)


@passes_of.register
def _(
    step: Localise, trainings: Mapping[str, Train], data: Mapping[str, DataFacts]
) -> Iterator[_PassWork]:
    is_dense = step.protocol == "dense"
    for run in step.classifiers:
        recipe = trainings[run].recipe
        yield from _classified(run, recipe, data[recipe.data], Procedure("dense"))
    passes = {  # of the nets, and of the classifiers that rate their boxes
        (one, scale)
        for test in step.tests
        for run, scales in zip(test.runs, test.test_scales, strict=True)
        for scale in scales
        for one in (run, *test.classifiers)
    }
    for run, scale in sorted(passes):
        recipe = trainings[run].recipe
        facts = data[recipe.data]
        one = Pass("dense" if is_dense else "centre", scale, flip=is_dense)
        work = pass_work(net_layers(recipe, facts), recipe.crop_size, one)
        images = facts.images[VALIDATION]
        yield _PassWork((run, "boxes", one), work * images, 5 * 4 * _FLOAT * images)


@passes_of.register
def _(
    step: ExtractFeatures, trainings: Mapping[str, Train], data: Mapping[str, DataFacts]
) -> Iterator[_PassWork]:
    recipe = trainings[step.run].recipe
    layers = net_layers(recipe, data[recipe.data])[:-1]
    images = sum(data[step.data].images.values())
    for scale in step.test_scales:
        one = Pass("dense", scale, flip=True)
        work = pass_work(layers, recipe.crop_size, one)
        yield _PassWork(
            (step.run, step.data, "features", one),
            work * images,
            _FLOAT * layers[-1].outputs * images,
        )


def _classified(
    run: str, recipe: Recipe, facts: DataFacts, procedure: Procedure
) -> Iterator[_PassWork]:
    architecture = Architecture(recipe.net, facts.classes, recipe.crop_size, recipe.width)
    names = tuple(map(str, range(facts.classes)))
    net = NetFacts(architecture, (0, 0, 0), names, recipe.train_scale)
    images = facts.images[VALIDATION]
    for one in procedure.passes(net):
        work = pass_work(net_layers(recipe, facts), recipe.crop_size, one)
        yield _PassWork((run, one), work * images, _FLOAT * facts.classes * images)


def net_layers(recipe: Recipe, facts: DataFacts) -> list[Layer]:
    """The layers of the net of a recipe."""
    outputs = recipe.outputs(facts.classes)
    return weight_layers(get_net(recipe.net), outputs, recipe.crop_size, recipe.width)


def _saved(step: Train, data: Mapping[str, DataFacts]) -> float:
    """Bytes of a run: the best weights, and the last ones with their momentum."""
    layers = net_layers(step.recipe, data[step.recipe.data])
    return float(3 * _FLOAT * sum(layer.parameters for layer in layers))


def _written(step: Step, plan: Plan, data: Mapping[str, DataFacts]) -> float:
    """Bytes of the file that a step makes, about."""
    facts = data[plan.options.data]
    if isinstance(step, Evaluate | Fuse):
        return float(_FLOAT * facts.classes * facts.images[VALIDATION])
    if isinstance(step, ExtractFeatures):
        recipe = plan.trainings()[step.run].recipe
        rows = sum(data[step.data].images.values())
        parts = len(step.test_scales) if step.aggregate == "stack" else 1
        return float(_FLOAT * parts * rows * scaled(HIDDEN_UNITS, recipe.width))
    return 2.0**15


def as_text(seconds: float) -> str:
    """A duration in words: 45 s, 12 min, 5 h 10 min, 12 days."""
    if math.isnan(seconds):
        return "?"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours / 24:.0f} days"
