"""Carries out a plan in a folder: alone or beside other processes, all of it or what fits."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vgg_keras.distribution import find_devices
from vgg_keras.errors import UserError
from vgg_keras.reproduction.data import open_data
from vgg_keras.reproduction.execution import Executor
from vgg_keras.reproduction.folder import PlanFolder
from vgg_keras.reproduction.options import Options
from vgg_keras.reproduction.plan import Plan, make_plan
from vgg_keras.reproduction.progress import StepLine
from vgg_keras.reproduction.steps import Step
from vgg_keras.reproduction.times import Times

_SECONDS_OF_WAITING = 5.0  # while other processes hold the locks of all steps

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of the steps of a plan.

    Attributes:
        steps: names of all steps.
        done: number of steps that are done.
        failed: names of the steps that failed in this call, with the reason.
        blocked: names of the steps that need a failed one.
        left: names of the steps for which there was no time, and of those that need one of these.
    """

    steps: Sequence[str]
    done: int
    failed: Mapping[str, str]
    blocked: Sequence[str]
    left: Sequence[str]

    @property
    def total(self) -> int:
        """Number of steps."""
        return len(self.steps)

    def as_json(self) -> list[dict[str, str]]:
        """One dictionary for each step; can be written as JSON."""
        states = {
            "failed": self.failed,
            "blocked": self.blocked,
            "left": self.left,
        }
        return [
            {
                "step": step,
                "state": next((name for name, steps in states.items() if step in steps), "done"),
                **({"reason": self.failed[step]} if step in self.failed else {}),
            }
            for step in self.steps
        ]


def reproduce(
    options: Options,
    out: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    devices: int | None = None,
    hours: float | None = None,
    verbose: int | str = "auto",
) -> Outcome:
    """Carries out the plan of the paper's experiments in a folder, or goes on with it.

    Steps that are done are not repeated. After an interruption at any moment, the same call goes on
    and ends with the same results; on CPU they are bit-identical. Several processes can share the
    folder. A step that failed is tried again by the next call.

    Args:
        options: what is reproduced.
        out: folder of the plan. Runs are in `out`/runs, results in `out`/results.
        data_dir: see `open_source`.
        devices: see `find_devices`.
        hours: no step is started that would not end within this time, by the estimate.
        verbose: 0 for no progress; 1 or "auto" for a line on a terminal and lines elsewhere.

    Returns:
        What became of the steps.

    Raises:
        ArgumentError: nothing can be reproduced, see `make_plan`.
        RunError: the folder was begun with other options, or the data have changed since.
        SourceError: none of the data that are needed can be used.

    Example:
        reproduce(Options("folder:imagenette160", seeds=(0, 1, 2)), "reproduction")
    """
    plan, folder = make_plan(options), PlanFolder(Path(out))
    folder.check(options)
    for table, needed in plan.missing.items():
        log.warning("Table %d is left out: it needs %s.", table, needed)
    find_devices(devices)  # first: TFDS may start TensorFlow, which fixes them
    with StepLine(len(plan.steps), verbose) as line, _warnings_only():
        policy = options.overrides.get("on_bad_image", "stop")
        executor = Executor(folder.path, policy, data_dir, devices, (line,))
        until = math.inf if hours is None else time.monotonic() + 3600 * hours
        done = folder.done(plan.steps)
        sources = open_data(plan, (s for s in plan.steps if s.name not in done), executor.source)
        folder.begin(options, sources)
        times = Times.of(plan, sources, folder, devices, probed=hours is not None)
        with _modules_not_collected():
            return Course(plan, folder, times, until).run(executor, line)


@contextlib.contextmanager
def _warnings_only() -> Iterator[None]:
    """Silences the messages of each training and of each opening of the data."""
    logger = logging.getLogger("vgg_keras")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _modules_not_collected() -> Iterator[None]:
    """Leaves what is loaded out of garbage collection, which Keras runs before each step.

    It would look at all objects of TensorFlow's modules, which takes longer than anything else
    that a step does before its net is built.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass
class Course:
    """The course of a plan in this process.

    Attributes:
        plan: the plan.
        folder: its folder.
        times: estimates of the time of each step.
        until: time (`time.monotonic`) after which no step may end.
        completed: names of the steps that this call has completed.
        done: names of the steps that are done.
        failed: see `Outcome`.
    """

    plan: Plan
    folder: PlanFolder
    times: Times
    until: float = math.inf
    completed: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, executor: Executor, line: StepLine) -> Outcome:
        """Carries out one step after the other until there is none that can be started."""
        waited_for: list[str] = []
        while True:
            self._refresh()
            held = []
            for step in filter(self._can_start, self.plan.steps):
                with contextlib.ExitStack() as locks:
                    try:
                        for name in step.locks:
                            locks.enter_context(self.folder.lock(name))
                    except BlockingIOError:
                        held.append(step.name)
                        continue
                    if not self.folder.done([step]):
                        number = len(self.done) + len(self.failed) + 1
                        line.start(number, step.name, self._seconds_left())
                        self._carry_out(executor, step)
                break
            else:
                if not held:
                    return self._outcome()
                if held != waited_for:
                    log.warning("Waiting for other processes, which hold: %s", ", ".join(held))
                    waited_for = held
                time.sleep(_SECONDS_OF_WAITING)

    def _refresh(self) -> None:
        """Notes the steps that are done, by this process or another, and their times."""
        self.times.refresh()
        # Whatever becomes of its output, no step runs twice in a call.
        self.done = self.completed | self.folder.done(self.plan.steps)

    def _can_start(self, step: Step) -> bool:
        return (
            step.name not in self.done
            and step.name not in self.failed
            and self.done.issuperset(step.needs)
            and self._fits(step)
        )

    def _fits(self, step: Step) -> bool:
        """Whether a step would end in time, by the estimate.

        The time is unknown if the data cannot be opened. The step then fails at once.
        """
        seconds = self.times.seconds(step)
        return time.monotonic() + (0.0 if math.isnan(seconds) else seconds) <= self.until

    def _carry_out(self, executor: Executor, step: Step) -> None:
        began, before = time.monotonic(), self.times.epochs(step)
        try:
            is_first = self.folder.start(step)
            executor.carry_out(step)
            seconds = time.monotonic() - began
            self.folder.record(step, self.times.timed(step, before, is_first, seconds))
        except UserError as error:
            log.error("%s failed: %s", step.name, error)
            self.failed[step.name] = str(error)
            return
        self.completed.add(step.name)

    def _seconds_left(self) -> float:
        blocked = self._blocked()
        return sum(
            self.times.seconds(step)
            for step in self.plan.steps
            if step.name not in (self.done | self.failed.keys() | blocked)
        )

    def _blocked(self) -> set[str]:
        """Names of the steps that need a failed one, directly or not."""
        blocked: set[str] = set()
        for step in self.plan.steps:  # a step comes after those that it needs
            needs_failed = not (blocked | self.failed.keys()).isdisjoint(step.needs)
            if needs_failed and step.name not in self.done:
                blocked.add(step.name)
        return blocked

    def _outcome(self) -> Outcome:
        blocked = self._blocked()
        rest = [
            step
            for step in self.plan.steps
            if step.name not in (self.done | self.failed.keys() | blocked)
        ]
        return Outcome(
            steps=[step.name for step in self.plan.steps],
            done=len(self.done),
            failed=self.failed,
            blocked=sorted(blocked),
            left=[step.name for step in rest],
        )
