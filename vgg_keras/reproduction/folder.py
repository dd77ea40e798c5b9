"""The folder of a plan: its options, the steps that are done, and their locks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from vgg_keras.errors import RunError
from vgg_keras.pipelines.contents import read_json
from vgg_keras.pipelines.files import atomic_write, locked
from vgg_keras.reproduction.cost import Timed
from vgg_keras.reproduction.options import PLANNED_FIELDS, SIZES, Options
from vgg_keras.reproduction.steps import Step

PLAN, STEPS, LOCKS, RESULTS = "plan.json", "steps", "locks", "results"

log = logging.getLogger(__name__)


class _Record(TypedDict):  # the fields of `Timed`
    kind: str
    amount: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class PlanFolder:
    """The folder in which a plan is carried out, by one process or several.

    Attributes:
        path: the folder.
    """

    path: Path

    def check(self, options: Options) -> None:
        """Checks that the folder is empty or was begun with options that agree.

        Other seeds, tables and nets agree, and so do data for tables that had none before.

        Raises:
            RunError: the options contradict, or the folder holds something else.
        """
        self._merged(options)

    def begin(self, options: Options) -> None:
        """Records the options.

        Raises:
            RunError: see `check`.
            WriteError: the folder cannot be written.
        """
        with self.lock(PLAN, wait=True):
            atomic_write(self.path / PLAN, json.dumps(self._merged(options), indent=2) + "\n")

    def _merged(self, options: Options) -> dict[str, Any]:
        """What is recorded: the earlier options with those that are new."""
        now, file = decisive(options), self.path / PLAN
        if not file.exists():
            if self.path.is_dir() and any(not p.name == LOCKS for p in self.path.iterdir()):
                raise RunError(
                    f"{self.path} is not empty and holds no {PLAN}. Give another folder."
                )
            return now
        begun = read_json(file, dict[str, Any], RunError)
        differences = [
            f"{name}: {begun[name]} -> {value}"
            for name, value in now.items()
            if begun.get(name, value) != value
        ]
        if differences:
            raise RunError(
                f"{self.path} was begun with other options ({'; '.join(differences)}). Give those, "
                f"or another folder."
            )
        return begun | now

    def is_done(self, step: Step) -> bool:
        """Whether a step is done and what it made is still there."""
        return self._record(step).exists() and (self.path / step.output).exists()

    def record(self, step: Step, timed: Timed) -> None:
        """Records that a step is done, with what it took in the process that completed it.

        Raises:
            WriteError: the folder cannot be written.
        """
        atomic_write(self._record(step), json.dumps(timed._asdict()) + "\n")

    def records(self) -> dict[str, Timed]:
        """The records of all steps that are done, by file name.

        Raises:
            RunError: a record is damaged.
        """
        files = sorted((self.path / STEPS).glob("[!.]*.json"))
        return {file.stem: Timed(**read_json(file, _Record, RunError)) for file in files}

    def _record(self, step: Step) -> Path:
        return self.path / STEPS / f"{step.name.replace(' ', '-')}.json"

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool = False) -> Iterator[None]:
        """Holds a lock; a killed process releases it.

        Raises:
            BlockingIOError: another process holds the lock, and `wait` is False.
        """
        with contextlib.ExitStack() as held:
            try:
                path = self.path / LOCKS / f"{name.replace(' ', '-').replace('/', '-')}.lock"
                held.enter_context(locked(path, wait=wait))
            except BlockingIOError:
                raise
            except OSError as error:  # some network file systems have no locks
                log.warning("%s cannot be locked (%s): use one process only", self.path, error)
            yield


def decisive(options: Options) -> dict[str, Any]:
    """What all calls for a folder must agree in, as far as they give it."""
    recipe = dataclasses.asdict(SIZES[options.size]) | dict(options.overrides)
    found = {"size": options.size, "data": options.data}
    found |= {name: recipe[name] for name in recipe if name not in PLANNED_FIELDS}
    if options.localisation_data is not None:
        found["localisation_data"] = options.localisation_data
    return found | {f"transfer_data {name}": data for name, data in options.transfer_data.items()}
