"""How long the steps of a plan take, by what was timed in its folder or by a probe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vgg_keras.callbacks.errors import JournalError
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.pipelines.splits import Source
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
from vgg_keras.reproduction.folder import PlanFolder
from vgg_keras.reproduction.plan import Plan
from vgg_keras.reproduction.probe import probe
from vgg_keras.reproduction.steps import Step, Train
from vgg_keras.run_files import JOURNAL


@dataclass
class Times:
    """Estimates how long steps take.

    Attributes:
        folder: folder of the plan, where the steps that are done have recorded their times.
        work: the work of each step, by its name.
        data: facts of all data.
        probed: what a probe has timed.
        rates: the rate of each kind of work, when `refresh` was called last.
    """

    folder: PlanFolder
    work: Mapping[str, Work]
    data: Mapping[str, DataFacts]
    probed: Sequence[Timed] = ()
    rates: Mapping[str, Rate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.refresh()

    @classmethod
    def of(
        cls,
        plan: Plan,
        sources: Mapping[str, Source],
        folder: PlanFolder,
        devices: int | None,
        probed: bool,
    ) -> Times:
        """The times of a plan; if `probed`, of this machine unless steps have been timed.

        Args:
            plan: the plan.
            sources: the opened data; the times of steps on others are NaN.
            folder: folder of the plan.
            devices: see `find_devices`.
            probed: whether to time this machine.
        """
        needed = filter(None, (plan.options.data, *map(plan.data_of, plan.steps)))
        data = dict.fromkeys(needed, DataFacts.unknown())
        data |= {name: DataFacts.of(source) for name, source in sources.items()}
        times = cls(folder, work_of(plan, data), data)
        kinds = {one.kind for one in folder.timed()}
        trained = [one.recipe for one in plan.trainings().values() if one.recipe.data in sources]
        if not probed or not trained or {TRAINING, TESTING} <= kinds:
            return times
        return cls(folder, times.work, data, probe(trained[0], sources[trained[0].data], devices))

    def refresh(self) -> None:
        """Reads what was timed meanwhile, by this process or another."""
        timed = self.folder.timed()
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
        try:
            return len(read_journal(self.folder.path / step.output / JOURNAL))
        except JournalError:  # only an estimate needs it here; the training reports it
            return 0

    def timed(self, step: Step, before: int, is_first: bool, seconds: float) -> Timed:
        """What a step has taken; the amount is 0 if that is unknown.

        Args:
            step: the step.
            before: number of epochs that a training had finished before.
            is_first: whether the step had not been begun before. Otherwise the cache may have rows.
            seconds: the time that it took.
        """
        work = self.work[step.name]
        amount = work.amount if is_first else 0.0
        if isinstance(step, Train):
            epochs = self.epochs(step) - before
            amount = training_work(step.recipe, self.data[step.recipe.data], epochs)
        return Timed(work.kind, 0.0 if math.isnan(amount) else amount, seconds)
