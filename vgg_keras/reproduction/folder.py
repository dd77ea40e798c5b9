"""The folder of a plan: its options, the steps that are done, and their locks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from vgg_keras.errors import RunError
from vgg_keras.pipelines.contents import read_json
from vgg_keras.pipelines.files import atomic_write, file_digest, locked
from vgg_keras.pipelines.splits import Source
from vgg_keras.reproduction.cost import Timed
from vgg_keras.reproduction.data import changes, describe
from vgg_keras.reproduction.options import PLANNED_FIELDS, SIZES, Options
from vgg_keras.reproduction.steps import Step, Train

PLAN, STEPS, LOCKS, RESULTS = "plan.json", "steps", "locks", "results"
IMAGES = "images"  # key in the plan's file: what `describe` says of all data

log = logging.getLogger(__name__)


class _Record(TypedDict):
    """A step that was begun: the states of the files that it took and made, and its time."""

    took: dict[str, str]
    made: dict[str, str]  # empty until the step is done
    kind: str  # this and the rest as in `Timed`
    amount: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class PlanFolder:
    """The folder in which a plan is carried out, by one process or several.

    Attributes:
        path: the folder.
    """

    path: Path

    def check(self, options: Options, sources: Mapping[str, Source] | None = None) -> None:
        """Checks that the folder is empty or was begun with options and data that agree.

        Other seeds, tables and nets agree, and so do data for tables that had none before.

        Args:
            options: what is reproduced.
            sources: opened data of the options.

        Raises:
            RunError: the options contradict, the data have changed, or the folder holds something
                else.
        """
        self._merged(options, sources or {})

    def begin(self, options: Options, sources: Mapping[str, Source] | None = None) -> None:
        """Records the options, and the names of the images.

        Raises:
            RunError: see `check`.
            WriteError: the folder cannot be written.
        """
        self.check(options)  # a folder that is refused gets no lock
        with self.lock(PLAN, wait=True):
            merged = self._merged(options, sources or {})
            atomic_write(self.path / PLAN, json.dumps(merged, indent=2) + "\n")

    def _merged(self, options: Options, sources: Mapping[str, Source]) -> dict[str, Any]:
        """What is recorded: the earlier options and data with those that are new."""
        now, file = decisive(options), self.path / PLAN
        images = {data: describe(source) for data, source in sources.items()}
        if not file.exists():
            names = [p.name for p in self.path.iterdir()] if self.path.is_dir() else []
            if any(name != LOCKS and not name.startswith(".") for name in names):
                raise RunError(
                    f"{self.path} is not empty and holds no {PLAN}. Give another folder."
                )
            return now | {IMAGES: images}
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
        known = begun.get(IMAGES, {})
        differences = [
            f"{data}: {found}"
            for data, described in images.items()
            if (found := changes(known.get(data, described), described))
        ]
        if differences:
            raise RunError(
                f"The data are not those that {self.path} was begun with "
                f"({'; '.join(differences)}). Restore them, or give another folder."
            )
        return begun | now | {IMAGES: known | images}

    def done(self, steps: Iterable[Step]) -> set[str]:
        """Names of the steps that are done.

        The files that a step made must be there, and those that it took must be the same still.
        """
        records = self._records()
        return {step.name for step in steps if self._is_done(step, records)}

    def _is_done(self, step: Step, records: Mapping[str, _Record]) -> bool:
        record = records.get(_stem(step.name))
        return (
            record is not None
            and record["made"].keys() == set(step.outputs)
            and all(_has_size(self.path / name, made) for name, made in record["made"].items())
            and record["took"] == _files_of_needs(step, records)
        )

    def start(self, step: Step) -> bool:
        """Records that a step begins. Returns whether it had not been begun before.

        Raises:
            RunError: the weights that a run began with have been replaced since.
            WriteError: the folder cannot be written.
        """
        records = self._records()
        took, before = _files_of_needs(step, records), records.get(_stem(step.name))
        run = self.path / step.output
        if isinstance(step, Train) and before and before["took"] != took and run.exists():
            raise RunError(
                f"{run} began with other weights than those that are now in "
                f"{', '.join(took)}. Remove {run} to train it again."
            )
        empty = _Record(took=took, made={}, kind="", amount=0.0, seconds=0.0)
        self._write(step, empty)
        return before is None

    def record(self, step: Step, timed: Timed) -> None:
        """Records that a step is done, after `start`, with the time of this process.

        Raises:
            RunError: a file that the step makes is missing.
            WriteError: the folder cannot be written.
        """
        missing = [name for name in step.outputs if not (self.path / name).exists()]
        if missing:
            raise RunError(
                f"{step.name} has ended without {', '.join(missing)}. Remove "
                f"{self.path / step.output} to carry it out again."
            )
        made = {name: _state(self.path / name) for name in step.outputs}
        took = read_json(self._file(step), _Record, RunError)["took"]
        self._write(step, _Record(took=took, made=made, **timed._asdict()))

    def timed(self) -> list[Timed]:
        """The times of all steps that are done, as far as the amount of their work is known."""
        records = self._records().values()
        times = [Timed(one["kind"], one["amount"], one["seconds"]) for one in records]
        return [one for one in times if one.amount > 0]

    def _records(self) -> dict[str, _Record]:
        """The records by file name. A damaged one is ignored: its step is carried out again."""
        found = {}
        for file in sorted((self.path / STEPS).glob("[!.]*.json")):
            with contextlib.suppress(RunError):
                found[file.stem] = read_json(file, _Record, RunError)
        return found

    def _write(self, step: Step, record: _Record) -> None:
        atomic_write(self._file(step), json.dumps(record) + "\n")

    def _file(self, step: Step) -> Path:
        return self.path / STEPS / f"{_stem(step.name)}.json"

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


def _stem(name: str) -> str:
    """The name of the file with the record of a step."""
    return name.replace(" ", "-")


def _files_of_needs(step: Step, records: Mapping[str, _Record]) -> dict[str, str]:
    """The states of the files that a step takes."""
    needed = [records.get(_stem(name)) for name in step.needs]
    return {name: state for one in needed if one for name, state in one["made"].items()}


def _state(path: Path) -> str:
    """Size and digest of a file, which a copy of the folder has too."""
    return f"{path.stat().st_size} {file_digest(path)}"


def _has_size(path: Path, state: str) -> bool:
    return path.exists() and path.stat().st_size == int(state.partition(" ")[0])


def decisive(options: Options) -> dict[str, Any]:
    """What all calls for a folder must agree in, as far as they give it."""
    recipe = dataclasses.asdict(SIZES[options.size]) | dict(options.overrides)
    found = {"size": options.size, "data": options.data}
    found |= {name: recipe[name] for name in recipe if name not in PLANNED_FIELDS}
    if options.localisation_data is not None:
        found["localisation_data"] = options.localisation_data
    return found | {f"transfer_data {name}": data for name, data in options.transfer_data.items()}
