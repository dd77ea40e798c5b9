"""How long the steps of a plan take, by what was timed in its folder or by a probe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vgg_keras.callbacks.journal import read_journal
from vgg_keras.reproduction.cost import (
    TESTING,
    TRAINING,
    DataFacts,
    Rate,
    Timed,
    Work,
    rates_of,
    training_work,
    work_of,
)
from vgg_keras.reproduction.execution import Executor
from vgg_keras.reproduction.folder import PlanFolder
from vgg_keras.reproduction.plan import Plan
from vgg_keras.reproduction.probe import probe
from vgg_keras.reproduction.steps import ExtractFeatures, Step, Train
from vgg_keras.run_files import JOURNAL


@dataclass
class Times:
    """Estimates how long steps take.

    Attributes:
        folder: folder of the plan, where the steps that are done have recorded their times.
        work: the work of each step, by its name.
        data: facts of all data.
        probed: what a probe has timed.
        rates: the rate of each kind of work, when `look` was called last.
    """

    folder: PlanFolder
    work: Mapping[str, Work]
    data: Mapping[str, DataFacts]
    probed: Sequence[Timed] = ()
    rates: Mapping[str, Rate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.look()

    @classmethod
    def of(cls, plan: Plan, executor: Executor, folder: PlanFolder, probed: bool) -> Times:
        """Opens the data and, if `probed`, times this machine unless steps have been timed.

        Raises:
            SourceError: the data cannot be used.
        """
        data = {
            name: DataFacts.of(executor.source(name, several_labels))
            for name, several_labels in _data_of(plan).items()
        }
        times = cls(folder, work_of(plan, data), data)
        kinds = {one.kind for one in times.timed_steps()}
        if not probed or {TRAINING, TESTING} <= kinds:
            return times
        training = next(step for step in plan.steps if isinstance(step, Train))
        source = executor.source(training.recipe.data)
        return cls(folder, times.work, data, probe(training.recipe, source, executor.devices))

    def timed_steps(self) -> list[Timed]:
        """What the steps that are done took."""
        return [one for one in self.folder.records().values() if one.amount > 0]

    def look(self) -> None:
        """Reads what was timed meanwhile, by this process or another."""
        timed = self.timed_steps()
        kinds = {one.kind for one in timed}
        self.rates = rates_of([*timed, *(one for one in self.probed if one.kind not in kinds)])

    def seconds(self, step: Step) -> float:
        """The seconds of a step that is not done, at most; NaN if nothing was timed."""
        work = self.work[step.name]
        if work.kind not in self.rates:
            return math.nan
        amount = work.amount
        if isinstance(step, Train):
            amount *= max(0.0, 1 - self.epochs(step) / step.recipe.epochs)
        return self.rates[work.kind].seconds(amount)

    def epochs(self, step: Step) -> int:
        """Number of epochs that a training has finished; 0 for other steps."""
        if not isinstance(step, Train):
            return 0
        return len(read_journal(self.folder.path / step.output / JOURNAL))

    def timed(self, step: Step, before: int, seconds: float) -> Timed:
        """What a step has taken that began after `before` epochs."""
        work = self.work[step.name]
        amount = work.amount
        if isinstance(step, Train):
            epochs = self.epochs(step) - before
            amount = training_work(step.recipe, self.data[step.recipe.data], epochs)
        return Timed(work.kind, amount, seconds)


def _data_of(plan: Plan) -> dict[str, bool]:
    """All data of a plan, and whether their images may have several labels."""
    others = {step.data: True for step in plan.steps if isinstance(step, ExtractFeatures)}
    return others | {step.recipe.data: False for step in plan.trainings().values()}
