"""The course of a plan: order, resumption, failures, hours, several processes."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
from rich.console import Console

from vgg_keras.errors import (
    ArgumentError,
    OutOfMemoryError,
    RunError,
    SourceError,
    WriteError,
)
from vgg_keras.pipelines.splits import Source
from vgg_keras.recipes import LocalisationRecipe
from vgg_keras.reproduction import execution, run
from vgg_keras.reproduction.cost import DataFacts, Timed, work_of
from vgg_keras.reproduction.data import open_data
from vgg_keras.reproduction.execution import Executor
from vgg_keras.reproduction.folder import PlanFolder
from vgg_keras.reproduction.options import Options
from vgg_keras.reproduction.plan import make_plan
from vgg_keras.reproduction.progress import StepLine
from vgg_keras.reproduction.run import Course
from vgg_keras.reproduction.steps import Localise
from vgg_keras.reproduction.times import Times
from vgg_keras.training import explained_memory

FEW = Options("shapes", size="tiny", seeds=(0, 1), nets=("A", "B", "D"), tables=(3, 4))
OTHER = {"custom": "folder:c"}
FACTS = {"shapes": DataFacts(10, {"train": 1600, "val": 400})}


class Pretended(Executor):
    """An executor that makes small files, and fails where it is told to."""

    def __init__(self, out, failing=(), error=SourceError, seconds=0.0, text="1"):
        super().__init__(out)
        object.__setattr__(self, "log", [])
        object.__setattr__(self, "behaviour", (failing, error, seconds, text))

    def carry_out(self, step):
        failing, error, seconds, text = self.behaviour
        self.log.append(step.name)
        time.sleep(seconds)
        if step.name in failing:
            raise error(f"{step.name} cannot be done")
        for file in step.outputs:
            (self.out / file).parent.mkdir(parents=True, exist_ok=True)
            (self.out / file).write_text(text)


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
    killed = Pretended(tmp_path / "out", (steps[4],), KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        carried_out(tmp_path / "out", executor=killed)
    assert carried_out(tmp_path / "out")[1] == steps[4:]


@pytest.mark.parametrize(
    ("file", "step"),
    [
        ("results/B-256-dense-seed1.parquet", "evaluate B-256-dense-seed1"),
        ("results/B-256-dense-seed1.parquet.json", "evaluate B-256-dense-seed1"),
        ("runs/D-384-seed0/best.weights.h5", "train D-384-seed0"),
        ("steps/train-A-256-seed0.json", "train A-256-seed0"),
    ],
)
def test_a_lost_or_truncated_file_is_made_again(tmp_path, file, step):
    """A step that is made again to the same bits leaves those that need it done."""
    carried_out(tmp_path / "out")
    for damage in (Path.unlink, lambda path: path.write_text("")):
        damage(tmp_path / "out" / file)
        outcome, log = carried_out(tmp_path / "out")
        assert log == [step]
        assert outcome.done == outcome.total


def test_what_was_made_from_a_lost_run_is_stale_if_the_new_run_differs(tmp_path):
    carried_out(tmp_path / "out")
    run = tmp_path / "out/runs/A-256-seed0"
    shutil.rmtree(run)
    outcome, log = carried_out(tmp_path / "out")
    assert log == ["train A-256-seed0"]
    assert outcome.done == outcome.total
    shutil.rmtree(run)
    outcome, log = carried_out(tmp_path / "out", executor=Pretended(tmp_path / "out", text="2"))
    assert log == ["train A-256-seed0", "evaluate A-256-dense-seed0"]
    assert set(outcome.failed) == {"train B-256-seed0", "train D-256-seed0"}
    reason = outcome.failed["train B-256-seed0"]
    assert f"Remove {tmp_path / 'out/runs/B-256-seed0'} to train it again" in reason
    shutil.rmtree(tmp_path / "out/runs/B-256-seed0")
    outcome, log = carried_out(tmp_path / "out", executor=Pretended(tmp_path / "out", text="2"))
    assert log[0] == "train B-256-seed0"
    assert {name for name in log if "evaluate" in name} == {
        name for name in names() if name.startswith("evaluate B-") and name.endswith("seed0")
    }
    assert set(outcome.failed) == {"train D-256-seed0"}


def test_a_copy_of_the_folder_is_done(tmp_path):
    carried_out(tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    assert carried_out(tmp_path / "copy")[1] == []


def test_a_step_that_ends_without_its_files_has_failed(tmp_path):
    class Lazy(Pretended):
        def carry_out(self, step):
            self.log.append(step.name)

    outcome, _ = carried_out(tmp_path / "out", executor=Lazy(tmp_path / "out"))
    assert outcome.done == 0
    assert "without runs/A-256-seed0/best.weights.h5" in outcome.failed["train A-256-seed0"]


def test_the_time_of_a_test_that_was_begun_before_is_no_rate(tmp_path):
    """The cache has some of its rows."""
    step = "evaluate A-256-dense-seed0"
    killed = Pretended(tmp_path / "out", (step,), KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        carried_out(tmp_path / "out", executor=killed)
    carried_out(tmp_path / "out")
    amounts = {
        name: json.loads((tmp_path / f"out/steps/{name.replace(' ', '-')}.json").read_text())
        for name in names()
        if name.startswith("evaluate")
    }
    assert [name for name, record in amounts.items() if record["amount"] == 0] == [step]


def test_a_damaged_journal_only_changes_the_estimate(tmp_path):
    journal = tmp_path / "out/runs/A-256-seed0/journal.jsonl"
    journal.parent.mkdir(parents=True)
    (tmp_path / "out/plan.json").write_text("{}")
    journal.write_text("[]\n[]\n")
    outcome, log = carried_out(tmp_path / "out")
    assert log == names()
    assert not outcome.failed


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
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_a_killed_process_leaves_is_no_other_folder(tmp_path):
    (tmp_path / ".tmp-x").mkdir()
    (tmp_path / "locks").mkdir()
    PlanFolder(tmp_path).begin(FEW)
    assert (tmp_path / "plan.json").exists()


class Names:
    """A split that only has names."""

    def __init__(self, *names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def ids_of(self, indices):
        return [self.names[i] for i in indices]


def data_of(classes="ab", **splits):
    return {"shapes": Source("shapes", tuple(classes), splits)}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (data_of(train=Names("1", "2", "4"), val=Names("3")), "train: 2 images then, 3 now"),
        (data_of(train=Names("1", "4"), val=Names("3")), "train: images or classes of other names"),
        (data_of(train=Names("1", "2")), "val: 1 images then, 0 now"),
        (data_of("ac", train=Names("1", "2"), val=Names("3")), "val: images or classes of other"),
    ],
)
def test_other_images_are_refused(tmp_path, other, reason):
    same = data_of(train=Names("1", "2"), val=Names("3"))
    folder = PlanFolder(tmp_path / "out")
    folder.begin(FEW, same)
    folder.begin(FEW, same)
    folder.begin(FEW)
    for call in (folder.check, folder.begin):
        with pytest.raises(RunError, match=reason):
            call(FEW, other)
    folder.check(FEW, same)


def test_data_that_cannot_be_opened_stop_only_their_steps(tmp_path, caplog):
    """Their costs are unknown; their steps are tried, and fail, also if the time is limited."""
    options = Options("shapes", size="tiny", seeds=(0,), tables=(3, 11), transfer_data=OTHER)
    plan, shapes = make_plan(options), data_of(train=Names("1"), val=Names("2"))["shapes"]

    def open_one(data, several_labels):
        assert several_labels == (data == "folder:c")
        if data == "folder:c":
            raise SourceError("folder:c is missing")
        return shapes

    sources = open_data(plan, plan.steps, open_one)
    assert sources == {"shapes": shapes}
    assert "folder:c is missing" in caplog.text
    folder = PlanFolder(tmp_path / "out")
    folder.begin(options, sources)
    times = Times.of(plan, sources, folder, None, probed=False)
    times.probed = [Timed("training", 1e12, 1.0)]
    features = [step.name for step in plan.steps if step.name.startswith("features")]
    unknown = [s.name for s in plan.steps if math.isnan(times.work[s.name].amount)]
    assert unknown  # the others take these descriptors
    assert set(unknown) <= set(features)
    executor = Pretended(tmp_path / "out", features)
    course = Course(plan, folder, times, until=time.monotonic() + 1e6)
    outcome = course.run(executor, StepLine(1, verbose=0))
    assert set(outcome.failed) == set(features)
    assert not outcome.left
    assert outcome.done + len(outcome.failed) + len(outcome.blocked) == outcome.total


def test_a_plan_without_any_of_its_data_is_refused_unless_it_is_done():
    plan = make_plan(FEW)

    def open_one(*_):
        raise SourceError("shapes are missing")

    with pytest.raises(SourceError, match="shapes are missing"):
        open_data(plan, plan.steps, open_one)
    assert open_data(plan, (), open_one) == {}


def test_work_is_known_without_the_data_of_other_tables(tmp_path):
    options = Options("folder:a", tables=(8,), seeds=(0,), localisation_data="shapes")
    plan = make_plan(options)
    times = Times.of(
        plan, data_of(train=Names("1"), val=Names("2")), PlanFolder(tmp_path), None, False
    )
    assert not any(math.isnan(work.amount) for work in times.work.values())


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
        none = {"kind": "none", "amount": 1.0, "seconds": 1.0}
        record.write_text(json.dumps(json.loads(record.read_text()) | none))
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
    course._refresh()
    whole = course._seconds_left()
    assert whole == pytest.approx(sum(map(course.times.seconds, course.plan.steps)))
    course.failed["train D-256-seed0"] = "diverged"
    assert course._seconds_left() < whole / 1.5


def test_processes_share_a_folder(tmp_path, monkeypatch):
    """Three at once: every step is carried out by one of them, and all wait for the last."""
    monkeypatch.setattr(run, "_SECONDS_OF_WAITING", 0.01)
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
    locks = {step.name: step.locks for step in plan.steps}
    protocols = [lock for name, lock in locks.items() if name.startswith("evaluate D-jitter")]
    assert len(protocols) == 4
    assert len(set(protocols)) == 1
    assert locks["evaluate D-384-dense-seed0"] not in protocols
    rows = [step for step in plan.steps if isinstance(step, Localise) and step.classifiers]
    assert {locks["evaluate D-384-dense-seed0"][0]} < set(rows[-1].locks)  # the same data
    assert all(len(row.locks) == 1 + len(row.classifiers) for row in rows)


def test_a_process_that_waits_names_the_steps_that_others_hold(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run, "_SECONDS_OF_WAITING", 0.01)
    folder = PlanFolder(tmp_path / "out")
    folder.begin(FEW)
    waiting = threading.Thread(target=lambda: carried_out(tmp_path / "out"))
    with contextlib.ExitStack() as held:
        for seed in (0, 1):
            held.enter_context(folder.lock(f"train A-256-seed{seed}"))
        waiting.start()
        while not caplog.messages:
            time.sleep(0.01)
        time.sleep(0.05)
    waiting.join()
    said = [message for message in caplog.messages if message.startswith("Waiting")]
    assert said[0] == (
        "Waiting for other processes, which hold: train A-256-seed0, train A-256-seed1"
    )
    assert len(said) == len(set(said))


def test_too_little_memory_fails_a_training():
    recipe = make_plan(FEW).steps[0].recipe
    errors = (
        tf.errors.ResourceExhaustedError(None, None, "OOM"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte"),  # of JAX
    )
    for error in errors:
        too_large = pytest.raises(OutOfMemoryError, match="net A with batches of")
        with too_large, explained_memory(recipe):
            raise error
    with pytest.raises(RuntimeError, match="another"), explained_memory(recipe):
        raise RuntimeError("another")


def test_a_full_disk_fails_a_step(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "a").touch()
    monkeypatch.setattr(execution.shutil, "copyfile", full)
    with pytest.raises(WriteError, match="No space left"):
        execution._copy_once(tmp_path / "a", tmp_path / "b")


def test_runs_share_what_was_read_by_data_and_task(tmp_path, monkeypatch):
    """Localisation only uses the images with boxes."""

    def train(recipe, path, **_):
        path.mkdir(parents=True, exist_ok=True)
        (path / "statistics.json").write_text(path.name)

    monkeypatch.setattr(execution, "train", train)
    monkeypatch.setattr(execution, "open_source", lambda *_, **__: None)
    plan = make_plan(Options("shapes", size="tiny", seeds=(0,), nets=("A", "D"), tables=(8,)))
    trainings = list(plan.trainings().values())
    for step in trainings:
        Executor(tmp_path).carry_out(step)
    kinds = {path.parts[-3]: path.read_text() for path in (tmp_path / "shared").rglob("*.json")}
    localisers = [s for s in trainings if isinstance(s.recipe, LocalisationRecipe)]
    assert kinds == {
        "classification": trainings[0].output.removeprefix("runs/"),
        "localisation": localisers[0].output.removeprefix("runs/"),
    }
    texts = ("folder:a-b", "folder:a/b", "folder:a.b", "x" * 101, "y" + "x" * 100)
    assert len({execution._folder_name(text) for text in texts}) == len(texts)


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
