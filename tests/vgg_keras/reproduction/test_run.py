"""The course of a plan: order, resumption, failures, hours, several processes."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter

import pytest
from rich.console import Console

from vgg_keras.errors import ArgumentError, RunError, SourceError
from vgg_keras.reproduction import run
from vgg_keras.reproduction.cost import DataFacts, Timed, work_of
from vgg_keras.reproduction.execution import Executor
from vgg_keras.reproduction.folder import PlanFolder
from vgg_keras.reproduction.options import Options
from vgg_keras.reproduction.plan import make_plan
from vgg_keras.reproduction.progress import StepLine
from vgg_keras.reproduction.run import Course
from vgg_keras.reproduction.times import Times

FEW = Options("shapes", size="tiny", seeds=(0, 1), nets=("A", "B", "D"), tables=(3, 4))
FACTS = {"shapes": DataFacts(10, {"train": 1600, "val": 400})}


class Pretended(Executor):
    """An executor that makes empty files, and fails where it is told to."""

    def __init__(self, out, failing=(), error=SourceError, seconds=0.0):
        super().__init__(out)
        object.__setattr__(self, "log", [])
        object.__setattr__(self, "behaviour", (failing, error, seconds))

    def carry_out(self, step):
        failing, error, seconds = self.behaviour
        self.log.append(step.name)
        time.sleep(seconds)
        if step.name in failing:
            raise error(f"{step.name} cannot be done")
        path = self.out / step.output
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def course_of(out, options=FEW, probed=(), **settings):
    plan, folder = make_plan(options), PlanFolder(out)
    folder.begin(options)
    return Course(plan, folder, Times(folder, work_of(plan, FACTS), FACTS, probed), **settings)


def carried_out(out, options=FEW, executor=None, probed=(), **settings):
    """Runs a course; returns the outcome and the names of the steps that were begun."""
    course = course_of(out, options, probed, **settings)
    executor = executor or Pretended(out)
    line = StepLine(len(course.plan.steps), verbose=0)
    return course.run(executor, line), executor.log


def names(options=FEW):
    return [step.name for step in make_plan(options).steps]


def test_steps_are_carried_out_once_in_the_order_of_the_plan(tmp_path):
    outcome, log = carried_out(tmp_path / "out")
    assert log == names()
    assert outcome.done == outcome.total == len(log)
    outcome, log = carried_out(tmp_path / "out")
    assert log == []
    assert outcome.done == outcome.total


def test_a_killed_course_goes_on_with_the_step_that_was_running(tmp_path):
    steps = names()
    with pytest.raises(KeyboardInterrupt):
        carried_out(
            tmp_path / "out", executor=Pretended(tmp_path / "out", steps[4], KeyboardInterrupt)
        )
    assert carried_out(tmp_path / "out")[1] == steps[4:]


def test_a_lost_file_is_made_again(tmp_path):
    carried_out(tmp_path / "out")
    (tmp_path / "out/results/B-256-dense-seed1.parquet").unlink()
    assert carried_out(tmp_path / "out")[1] == ["evaluate B-256-dense-seed1"]


def test_a_failure_stops_what_needs_it_and_is_tried_again(tmp_path, caplog):
    failing = Pretended(tmp_path / "out", ("train D-384-seed0",))
    outcome, log = carried_out(tmp_path / "out", executor=failing)
    assert list(outcome.failed) == ["train D-384-seed0"]
    assert "cannot be done" in outcome.failed["train D-384-seed0"]
    assert {name.split()[1] for name in outcome.blocked} == {
        "D-384-dense-seed0",
        "D-384-dense-multi-scale-seed0",
        "D-jitter-seed0",
        "D-jitter-dense-seed0",
        "D-jitter-dense-multi-scale-seed0",
    }
    assert len(log) == outcome.done + 1 == outcome.total - len(outcome.blocked)
    assert "train D-384-seed0 failed" in caplog.text
    outcome, log = carried_out(tmp_path / "out")
    assert not outcome.failed
    assert log[0] == "train D-384-seed0"
    assert len(log) == 6


def test_a_bug_is_no_failed_step(tmp_path):
    with pytest.raises(ZeroDivisionError):
        carried_out(
            tmp_path / "out", executor=Pretended(tmp_path / "out", names()[:1], ZeroDivisionError)
        )


def test_more_seeds_tables_and_nets_are_allowed(tmp_path):
    fewer = Options("shapes", size="tiny", seeds=(1,), nets=("A", "D"), tables=(4,))
    first = carried_out(tmp_path / "out", fewer)[1]
    more = carried_out(tmp_path / "out")[1]
    assert not set(first) & set(more)
    assert set(first) | set(more) == set(names())


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"size": "small"}, "size: tiny -> small"),
        ({"data": "folder:x"}, "data: shapes -> folder:x"),
        ({"overrides": {"epochs": 3}}, "epochs: 20 -> 3"),
        ({"localisation_data": "cls-loc:x"}, "localisation_data: shapes -> cls-loc:x"),
        ({"transfer_data": {"custom": "folder:b"}}, "transfer_data custom: folder:a -> folder:b"),
    ],
)
def test_options_that_contradict_are_refused(tmp_path, other, named):
    given = {"data": "shapes", "size": "tiny", "transfer_data": {"custom": "folder:a"}}
    folder = PlanFolder(tmp_path / "out")
    folder.begin(Options(**given))
    with pytest.raises(RunError, match=named):
        folder.begin(Options(**given | other))
    folder.begin(Options("shapes", size="tiny", transfer_data={"voc2007": "folder:c"}))
    with pytest.raises(RunError, match="folder:c -> folder:d"):
        folder.begin(Options("shapes", size="tiny", transfer_data={"voc2007": "folder:d"}))


def test_a_field_with_the_value_of_the_size_is_no_contradiction(tmp_path):
    folder = PlanFolder(tmp_path / "out")
    folder.begin(FEW)
    folder.begin(Options("shapes", size="tiny", overrides={"epochs": 20}))


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(RunError, match=r"holds no plan\.json"):
        PlanFolder(tmp_path).begin(FEW)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.txt"]


def test_only_what_fits_into_the_time_is_started(tmp_path):
    """Training takes too long, and so does a test at several scales; the others follow."""
    carried_out(
        tmp_path / "out", Options("shapes", size="tiny", seeds=(0,), nets=("A",), tables=(3,))
    )
    course = course_of(tmp_path / "out")
    train_a, train_b = (course.times.work[f"train {net}-256-seed0"].amount for net in "AB")
    rate = 100 / train_a  # A takes 100 s, B more
    probed = [Timed("training", train_a, 100.0), Timed("testing", 1e12, rate * 1e12)]
    for record in (tmp_path / "out/steps").iterdir():
        record.write_text('{"kind": "none", "amount": 1.0, "seconds": 1.0}')
    assert train_b > train_a
    outcome, log = carried_out(tmp_path / "out", probed=probed, until=time.monotonic() + 100.5)
    assert log == ["train A-256-seed1", "evaluate A-256-dense-seed1"]
    assert outcome.left
    assert not outcome.failed
    assert outcome.done + len(outcome.left) == outcome.total


def test_nothing_starts_without_time(tmp_path):
    probed = [Timed("training", 1e9, 100.0)]
    outcome, log = carried_out(tmp_path / "out", probed=probed, until=time.monotonic())
    assert log == []
    assert outcome.done == 0
    assert len(outcome.left) == outcome.total


def test_time_left_is_that_of_what_can_still_be_done(tmp_path):
    course = course_of(tmp_path / "out", probed=[Timed("training", 1e12, 50.0)])
    course._look()
    whole = course._seconds_left()
    assert whole == pytest.approx(sum(map(course.times.seconds, course.plan.steps)))
    course.failed["train D-256-seed0"] = "diverged"
    assert course._seconds_left() < whole / 1.5


def test_processes_share_a_folder(tmp_path, monkeypatch):
    """Three at once: every step is carried out by one of them, and all wait for the last."""
    monkeypatch.setattr(run, "_SECONDS_BETWEEN_LOOKS", 0.01)
    executors = [Pretended(tmp_path / "out", seconds=0.01) for _ in range(3)]
    outcomes = []
    threads = [
        threading.Thread(
            target=lambda e=e: outcomes.append(carried_out(tmp_path / "out", executor=e)[0])
        )
        for e in executors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun = Counter(name for executor in executors for name in executor.log)
    assert begun == dict.fromkeys(names(), 1)
    assert min(len(executor.log) for executor in executors) > 0
    assert [outcome.done for outcome in outcomes] == [len(names())] * 3


def test_steps_that_share_passes_are_not_run_at_once():
    plan = make_plan(Options("shapes", seeds=(0,), transfer_data={"custom": "folder:c"}))
    locks = {step.name: step.lock for step in plan.steps}
    protocols = [lock for name, lock in locks.items() if name.startswith("evaluate D-jitter")]
    assert len(protocols) == 4
    assert len(set(protocols)) == 1
    assert locks["evaluate D-384-dense-seed0"] not in protocols
    boxes = {lock for name, lock in locks.items() if name.startswith("localise")}
    assert len(boxes) == 1


def test_the_backend_jax_only_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(run.keras.backend, "backend", lambda: "jax")
    outcome, log = carried_out(tmp_path / "out")
    trainings = [name for name in names() if name.startswith("train")]
    assert log == trainings
    assert len(outcome.other_backend) == len(names()) - len(trainings)
    monkeypatch.undo()
    outcome, log = carried_out(tmp_path / "out")
    assert len(log) == len(names()) - len(trainings)
    assert outcome.done == outcome.total


def test_nothing_to_do_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ArgumentError, match="Nothing can be reproduced"):
        run.reproduce(Options("shapes", nets=("E",)), tmp_path / "out", verbose=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_line_names_the_step_and_on_a_terminal_the_epoch(is_terminal):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=is_terminal, width=120)
    with StepLine(66, console=console) as line:
        line.set_params({"epochs": 20})
        line.start(12, "train [D]-384-seed1", 7200.0)
        line.on_epoch_end(2, {"loss": 1.0, "val_accuracy": 0.75})
        line._bar.refresh()
    text = shown.getvalue()
    assert "step 12/66  train [D]-384-seed1  left 2 h 0 min" in text
    assert ("epoch 3/20  val top-1 error 25.0 %" in text) == is_terminal
    assert is_terminal or text.count("\n") == 1
