"""The experiments of the paper as one plan, made from the tables of the paper.

A plan lists which nets are trained, from which start, and how they are tested. This module does not
import TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vgg_keras.errors import ArgumentError
from vgg_keras.evaluation.procedure import CROP_OF_PAPER
from vgg_keras.features.procedure import SCALES
from vgg_keras.recipes import LOCALISATION_RECIPES, RECIPES, LocalisationRecipe, Recipe
from vgg_keras.report.paper import Row, Tested
from vgg_keras.reproduction.options import (
    CLASSIFICATION_TABLES,
    LOCALISATION_TABLES,
    ROWS,
    SIZES,
    TRANSFER_TABLES,
    Options,
)
from vgg_keras.reproduction.steps import (
    BoxTest,
    Evaluate,
    ExtractFeatures,
    Fuse,
    Localise,
    Step,
    Train,
    Transfer,
)

_256, _384, _JITTERED = (256, 256), (384, 384), (256, 512)
# How each training scale S is trained (§3.1), and its name in those of the steps.
_STAGES = {
    _256: RECIPES["paper"],
    _384: RECIPES["paper-384"],
    _JITTERED: RECIPES["paper-jitter"],
}
_LABELS = {_256: "256", _384: "384", _JITTERED: "jitter"}
_STARTS_AT = {_384: _256, _JITTERED: _384}
# Nets that start from random weights. The shallow net has no layers of the shapes of net A.
_FROM_SCRATCH = ("A", "A-LRN", "B-shallow")
_AGGREGATES = {  # of the descriptors on other data: test scales of the paper, how to combine them
    "single": (SCALES[1:2], "mean"),
    "mean": (SCALES, "mean"),
    "max": (SCALES, "max"),
    "stack": (SCALES, "stack"),
}


@dataclass(frozen=True)
class Plan:
    """The steps that reproduce the paper.

    Attributes:
        options: what the plan was made from.
        steps: in the order in which they are carried out.
        missing: for each table that is left out, what it needs.

    Example:
        plan = make_plan(Options("folder:ilsvrc", size="paper"))
        [step.name for step in plan.steps][:2]
    """

    options: Options
    steps: tuple[Step, ...]
    missing: Mapping[int, str]

    def data_of(self, step: Step) -> str | None:
        """The data whose images a step reads, if it does."""
        match step:
            case ExtractFeatures(data=data):
                return data
            case Train(output=run) | Evaluate(run=run) | Localise(runs=(run, *_)):
                return self.trainings()[run].recipe.data
            case _:
                return None

    def trainings(self) -> dict[str, Train]:
        """The steps that train, by run folder."""
        return {step.output: step for step in self.steps if isinstance(step, Train)}


def in_proportion(scales: Sequence[int], crop_size: int) -> tuple[int, ...]:
    """Scales of the paper, whose crops have 224 pixels, in proportion to the crop size."""
    return tuple(round(scale * crop_size / CROP_OF_PAPER) for scale in scales)


def make_plan(options: Options) -> Plan:
    """Lists the steps: all of the first seed, then the next; within a seed by table.

    Raises:
        ArgumentError: a recipe cannot have the values in `overrides`, or nothing can be done.
    """
    missing: dict[int, str] = {}
    if options.localisation_data is None:
        needed = "data with boxes, as localisation_data"
        missing |= {table: needed for table in options.tables if table in LOCALISATION_TABLES}
    if not options.transfer_data:
        needed = "other data with their protocol, as transfer_data"
        missing |= {table: needed for table in options.tables if table in TRANSFER_TABLES}
    planner = _Planner(options)
    for seed in options.seeds:
        for table in sorted(set(options.tables) - missing.keys()):
            planner.add_table(table, seed)
    covered = {table for step in planner.steps.values() for table in step.tables}
    for table in sorted(set(options.tables) - missing.keys() - covered):
        rows = [sorted(needed_nets(row)) for row in ROWS[table] if row_nets(row)]
        missing[table] = f"more nets, for the first row {', '.join(rows[0])}"
    if not planner.steps:
        reasons = "; ".join(f"Table {table} needs {what}" for table, what in missing.items())
        given = f"tables={options.tables}, nets={options.nets}"
        raise ArgumentError(f"Nothing can be reproduced: {reasons}. Received: {given}", "tables")
    return Plan(options, tuple(planner.steps.values()), missing)


def row_nets(row: Row) -> set[str]:
    """The nets of a row."""
    nets = dict(row.conditions).get("nets", "")
    return {one.net for one in row.tested} | set(filter(None, nets.split("+")))


def needed_nets(row: Row) -> set[str]:
    """The nets of a row, and those that these start from."""
    nets = row_nets(row)
    return nets | ({"A"} if nets - set(_FROM_SCRATCH) else set())


class _Planner:
    """Collects steps in order; a step that is added again also stands beside the new row."""

    def __init__(self, options: Options):
        self.options = options
        self.steps: dict[str, Step] = {}
        self.crop_size = self._recipe("A", _256, 0, options.data).crop_size

    def add_table(self, table: int, seed: int) -> None:
        """Adds the steps of all rows whose nets are there."""
        for index, row in enumerate(ROWS[table]):
            if row_nets(row) and needed_nets(row) <= set(self.options.nets):
                beside = ((table, index),)
                if table in CLASSIFICATION_TABLES:
                    self._classified(row, seed, beside)
                elif table in LOCALISATION_TABLES:
                    self._localised(row, seed, beside)
                else:
                    self._transferred(row, seed, beside)

    def _add(self, step: Step) -> str:
        """Adds a step; returns its output."""
        known = self.steps.get(step.name, step)
        joined = known.joined(step)
        if joined.needs != known.needs:
            del self.steps[step.name]  # a step comes after those that it needs
        self.steps[step.name] = joined
        return step.output

    def _needs(self, outputs: Iterable[str]) -> tuple[str, ...]:
        names = {step.output: step.name for step in self.steps.values()}
        return tuple(names[output] for output in outputs)

    def _recipe(self, net: str, scale: tuple[int, int], seed: int, data: str) -> Recipe:
        base, stage = SIZES[self.options.size], _STAGES[scale]
        given = dict(self.options.overrides)
        crop_size = given.get("crop_size", base.crop_size)
        rate = given.pop("learning_rate", base.learning_rate)
        low, high = in_proportion(scale, crop_size)
        return dataclasses.replace(
            base,
            **given,
            net=net,
            data=data,
            train_scale=(low, high),
            learning_rate=rate * (stage.learning_rate / RECIPES["paper"].learning_rate),
            init_layers=stage.init_layers,
            seed=seed,
        )

    def _trained(self, net: str, scale: tuple[int, int], seed: int, data: str) -> str:
        """Adds the training of a net, and those that it starts from; returns its run folder."""
        start = ""
        if scale in _STARTS_AT:
            start = self._trained(net, _STARTS_AT[scale], seed, data)
        elif net not in _FROM_SCRATCH:
            start = self._trained("A", _256, seed, data)
        role = "" if data == self.options.data else "boxed-"
        run = f"{role}{net}-{_LABELS[scale]}-seed{seed}"
        recipe = self._recipe(net, scale, seed, data)
        return self._add(
            Train(
                name=f"train {run}",
                output=f"runs/{run}",
                needs=self._needs([start] if start else []),
                recipe=dataclasses.replace(recipe, init_from=start),
            )
        )

    def _classified(self, row: Row, seed: int, beside: tuple[tuple[int, int], ...]) -> None:
        several = len(row.tested) > 1
        files = [
            self._evaluated(tested, row.protocol, seed, () if several else beside)
            for tested in row.tested
        ]
        if several:
            labels = [f"{one.net}-{_LABELS[one.train_scale]}" for one in row.tested]
            name = f"{'+'.join(labels)}-{row.protocol}-multi-scale-seed{seed}"
            output = f"results/{name}.parquet"
            needs = self._needs(files)
            self._add(
                Fuse(name=f"fuse {name}", output=output, needs=needs, rows=beside, files=(*files,))
            )

    def _evaluated(
        self, tested: Tested, protocol: str, seed: int, rows: tuple[tuple[int, int], ...]
    ) -> str:
        run = self._trained(tested.net, tested.train_scale, seed, self.options.data)
        multi_scale = len(tested.test_scales) > 1
        label = f"{tested.net}-{_LABELS[tested.train_scale]}-{protocol}"
        name = f"{label}{'-multi-scale' * multi_scale}-seed{seed}"
        return self._add(
            Evaluate(
                name=f"evaluate {name}",
                output=f"results/{name}.parquet",
                needs=self._needs([run]),
                rows=rows,
                run=run,
                protocol=protocol,
                multi_scale=multi_scale,
            )
        )

    def _localiser(self, tested: Tested, row: Row, seed: int, classifier: str) -> str:
        """Adds the training of a localisation net from a classifier (§A.1)."""
        (start,) = (step for step in self.steps.values() if step.output == classifier)
        assert isinstance(start, Train)
        conditions = dict(row.conditions)
        factor = LOCALISATION_RECIPES["paper"].learning_rate / _STAGES[_256].learning_rate
        base = self._recipe(tested.net, _256, seed, start.recipe.data)
        fields = {one.name: getattr(start.recipe, one.name) for one in dataclasses.fields(Recipe)}
        recipe = LocalisationRecipe(
            **fields
            | {
                "learning_rate": base.learning_rate * factor,
                "init_layers": base.init_layers,
                "init_from": classifier,
                "trainable": conditions["tuned"],
                "regression": conditions["regression"],
            }
        )
        kind = f"{conditions['regression']}-{conditions['tuned']}"
        run = f"{tested.net}-{_LABELS[tested.train_scale]}-{kind}-seed{seed}"
        needs = self._needs([classifier])
        return self._add(
            Train(name=f"train {run}", output=f"runs/{run}", needs=needs, recipe=recipe)
        )

    def _localised(self, row: Row, seed: int, beside: tuple[tuple[int, int], ...]) -> None:
        data = self.options.localisation_data
        assert data is not None
        classifiers, runs, labels = [], [], []
        for one in row.tested:
            classifiers.append(self._trained(one.net, one.train_scale, seed, data))
            runs.append(self._localiser(one, row, seed, classifiers[-1]))
            shown = ",".join(map(str, one.test_scales))
            labels.append(f"{one.net}-{_LABELS[one.train_scale]}-q{shown}")
        kind, is_dense = "-".join(dict(row.conditions).values()), row.protocol == "dense"
        result = f"{'+'.join(labels)}-{kind}-{row.protocol}-seed{seed}"
        scales = tuple(in_proportion(one.test_scales, self.crop_size) for one in row.tested)
        rating = tuple(classifiers) if is_dense else ()
        test = BoxTest(f"results/{result}.json", tuple(runs), rating, scales)
        self._add(
            Localise(  # the rows of the protocol "dense" share passes
                name=f"localise {f'dense-seed{seed}' if is_dense else result}",
                output=test.output,
                needs=self._needs([*runs, *rating]),
                rows=beside,
                protocol=row.protocol,
                tests=(test,),
            )
        )

    def _transferred(self, row: Row, seed: int, beside: tuple[tuple[int, int], ...]) -> None:
        nets = dict(row.conditions)["nets"].split("+")
        for protocol, data in self.options.transfer_data.items():
            for kind in _AGGREGATES:
                files = [self._described(net, seed, protocol, data, kind) for net in nets]
                label = "+".join(f"{net}-jitter" for net in nets)
                name = f"{label}-{protocol}-{kind}-seed{seed}"
                self._add(
                    Transfer(
                        name=f"transfer {name}",
                        output=f"results/{name}.json",
                        needs=self._needs(files),
                        rows=beside,
                        files=tuple(files),
                        protocol=protocol,
                    )
                )

    def _described(self, net: str, seed: int, protocol: str, data: str, kind: str) -> str:
        # §B does not state S. The nets that were released are those of jittered scales.
        run = self._trained(net, _JITTERED, seed, self.options.data)
        scales, aggregate = _AGGREGATES[kind]
        name = f"{net}-jitter-{protocol}-{kind}-seed{seed}"
        return self._add(
            ExtractFeatures(
                name=f"features {name}",
                output=f"features/{name}.parquet",
                needs=self._needs([run]),
                run=run,
                data=data,
                test_scales=in_proportion(scales, self.crop_size),
                aggregate=aggregate,
            )
        )
