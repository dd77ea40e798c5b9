"""What a plan would do and cost, without doing it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgg_keras.distribution import find_devices
from vgg_keras.reproduction.data import open_data
from vgg_keras.reproduction.execution import Executor
from vgg_keras.reproduction.folder import PlanFolder
from vgg_keras.reproduction.options import Options
from vgg_keras.reproduction.plan import make_plan
from vgg_keras.reproduction.probe import PROBE_SECONDS
from vgg_keras.reproduction.times import Times


@dataclass(frozen=True)
class StepEstimate:
    """What a step costs.

    Attributes:
        name: name of the step.
        tables: tables of the paper that its result stands in.
        done: whether it is done.
        seconds: what it still takes, at most; NaN if that is unknown.
        disk: bytes that it writes; NaN if that is unknown.
    """

    name: str
    tables: tuple[int, ...]
    done: bool
    seconds: float
    disk: float


@dataclass(frozen=True)
class Estimate:
    """What a plan costs.

    Attributes:
        steps: the steps in order.
        missing: for each table that is left out, what it needs.
        measured_on: where the times come from, in words.
        free: bytes that are free where the folder is.
    """

    steps: tuple[StepEstimate, ...]
    missing: Mapping[int, str]
    measured_on: str
    free: int

    @property
    def seconds(self) -> float:
        """Seconds of all steps that are not done."""
        return sum(step.seconds for step in self.steps)

    @property
    def disk(self) -> float:
        """Bytes that the steps that are not done will write."""
        return sum(step.disk for step in self.steps if not step.done)

    def as_json(self) -> dict[str, Any]:
        """The steps as `results`, and the totals, for JSON. Unknown costs are None."""
        steps = [
            {"step": step.name, "tables": step.tables, "done": step.done, **_costs(step)}
            for step in self.steps
        ]
        rest = {"missing": dict(self.missing), "free": self.free, "measured_on": self.measured_on}
        return {"results": steps, **_costs(self), **rest}


def _costs(one: StepEstimate | Estimate) -> dict[str, float | None]:
    costs = {"seconds": one.seconds, "disk": one.disk}
    return {name: None if math.isnan(cost) else cost for name, cost in costs.items()}


def estimate(
    options: Options,
    out: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    devices: int | None = None,
) -> Estimate:
    """Estimates what a plan costs. Nothing is written.

    The times are those of the steps that are done in the folder; if there are none, a probe times
    training and testing of the first net on this machine.

    Args:
        options, out, data_dir, devices: see `reproduce`.

    Raises:
        ArgumentError, RunError, SourceError: see `reproduce`.

    Example:
        estimate(Options("folder:ilsvrc", size="paper"), "reproduction").seconds / 3600
    """
    plan, folder = make_plan(options), PlanFolder(Path(out))
    folder.check(options)
    find_devices(devices)  # first: TFDS may start TensorFlow, which fixes them
    executor = Executor(folder.path, data_dir=data_dir, devices=devices)
    done = folder.done(plan.steps)
    sources = open_data(plan, (s for s in plan.steps if s.name not in done), executor.source)
    folder.check(options, sources)
    times = Times.of(plan, sources, folder, devices, probed=True)
    steps = tuple(
        StepEstimate(
            step.name,
            step.tables,
            step.name in done,
            0.0 if step.name in done else times.seconds(step),
            times.work[step.name].disk,
        )
        for step in plan.steps
    )
    timed = f"by {len(folder.timed())} steps that are done"
    measured_on = f"by a probe of {PROBE_SECONDS} seconds" if times.probed else timed
    existing = next(
        path for path in (folder.path.resolve(), *folder.path.resolve().parents) if path.exists()
    )
    return Estimate(steps, plan.missing, measured_on, shutil.disk_usage(existing).free)
