"""Plans that are carried out: with tiny nets, killed, and by several processes."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time as clock
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import CLASSES, write_folder
from vgg_keras import training
from vgg_keras.callbacks.errors import DivergenceError
from vgg_keras.cli import main
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.rows import RowFiller
from vgg_keras.report.results import read_results
from vgg_keras.report.tables import build_table
from vgg_keras.reproduction import execution, times
from vgg_keras.reproduction.cost import DataFacts, passes_of
from vgg_keras.reproduction.options import Options
from vgg_keras.reproduction.plan import make_plan
from vgg_keras.reproduction.run import reproduce
from vgg_keras.reproduction.steps import Evaluate, ExtractFeatures, Localise, Train

TINY = {
    "size": "tiny",
    "overrides": {"width": 1 / 64, "epochs": 1, "batch_size": 8},
}
FLAGS = ["--size", "tiny", "--width", "0.015625", "--epochs", "1", "--batch-size", "8"]


def write_boxes(spec: str) -> None:
    """Writes a box for every image of `write_folder`."""
    root = Path(spec.partition(":")[2])
    lines = ["split,class,file,x_min,y_min,x_max,y_max"]
    for split in ("train", "val"):
        for name in CLASSES:
            for file in sorted((root / split / name).iterdir()):
                lines.append(f"{split},{name},{file.name},4,4,24,28")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def computed(monkeypatch):
    """Number of rows that were computed, by the file that caches them."""
    rows, fill = Counter(), RowFiller.fill

    def counting(self, tables):
        for table in tables:
            if name := getattr(table.rows, "filename", None):
                rows[Path(name).name] += int((~table.is_done(table.rows)).sum())
        fill(self, tables)

    monkeypatch.setattr(RowFiller, "fill", counting)
    return rows


def results(out):
    """What the results are, without the path of the folder: bytes of posteriors, and JSON."""
    found = {}
    for file in sorted((out / "results").glob("[!.]*")):  # a kill may leave others
        text = file.read_text() if file.suffix == ".json" else ""
        if file.suffix == ".parquet":
            text = Predictions.load(file).posteriors.tobytes().hex()
        content = text.replace(str(out), "OUT")
        if file.name.endswith(".parquet.json"):
            content = {k: v for k, v in json.loads(content).items() if k != "sha256"}
        found[file.name] = content
    return found


@pytest.mark.slow
def test_a_table_with_two_nets(tmp_path, folder, capsys, monkeypatch):
    """Net B starts from A; the results stand in the table; another call has nothing to do."""
    opened, open_once = [], execution.open_source

    def opening(data, *others, **options):
        opened.append(data)
        return open_once(data, *others, **options)

    for module in (execution, training):  # no training opens the data again
        monkeypatch.setattr(module, "open_source", opening)
    options = Options(folder, seeds=(3,), nets=("A", "B"), tables=(3,), **TINY)
    outcome = reproduce(options, tmp_path / "out")
    assert outcome.done == outcome.total == 5
    assert not outcome.failed
    assert opened == [folder]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines if line.startswith("step")] == [
        ["step 1/5", "train A-256-seed3"],
        ["step 2/5", "evaluate A-256-dense-seed3"],
        ["step 3/5", "train B-256-seed3"],
        ["step 4/5", "evaluate B-256-dense-seed3"],
        ["step 5/5", "evaluate B-256-centre-seed3"],
    ]
    assert len(lines) == 5
    recipe = json.loads((tmp_path / "out/runs/B-256-seed3/recipe.json").read_text())
    assert recipe["init_from"] == str(tmp_path / "out/runs/A-256-seed3")
    a, b = ((tmp_path / f"out/runs/{net}-256-seed3/statistics.json").read_text() for net in "AB")
    assert a == b
    table = build_table(3, read_results(tmp_path / "out/results"))
    measured = [row for row in table.rows if row[-1] is not None]
    assert [row[0] for row in measured] == ["A", "B"]
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    again = reproduce(options, moved, verbose=0)
    assert again.done == 5
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_run_goes_on_in_a_folder_that_was_moved(tmp_path, folder, monkeypatch):
    """Only the weights to start from have another path, and they have been used."""
    options = Options(folder, seeds=(0,), nets=("A", "B"), tables=(4,), **TINY)
    train = execution.train

    def killed(recipe, path, **others):
        if recipe.net == "B":
            others["callbacks"] = [Kill()]
        return train(recipe, path, **others)

    class Kill(execution.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    monkeypatch.setattr(execution, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        reproduce(options, tmp_path / "out", verbose=0)
    monkeypatch.undo()
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    outcome = reproduce(options, moved, verbose=0)
    assert outcome.done == outcome.total == 3


def test_a_training_that_diverges_is_reported(tmp_path, folder, monkeypatch):
    def diverging(recipe, *others, **options):
        raise DivergenceError(f"net {recipe.net} diverged")

    monkeypatch.setattr(execution, "train", diverging)
    arguments = ["--data", folder, "--nets", "A,B", "--seeds", "0", "--tables", "3", *FLAGS]
    out = ["--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(main, ["reproduce", *arguments, *out])
    assert ran.exit_code == 1
    assert "failed: train A-256-seed0: net A diverged" in ran.output
    assert "4 steps need a step that failed" in ran.output
    assert "0 of 5 steps are done" in ran.output
    ran = CliRunner().invoke(main, ["reproduce", *arguments, *out, "--json"])
    assert ran.exit_code == 1
    found = json.loads(ran.stdout)
    assert found.keys() == {"results", "provenance"}
    first, *others = found["results"]
    assert first == {"step": "train A-256-seed0", "state": "failed", "reason": "net A diverged"}
    assert [one["state"] for one in others] == ["blocked"] * 4


def test_failed_steps_are_named_if_the_claims_cannot_be_tested(tmp_path, folder, monkeypatch):
    def damaging(recipe, path, **options):
        (tmp_path / "out/results").mkdir(exist_ok=True)
        (tmp_path / "out/results/x.json").write_text("{")
        raise DivergenceError("diverged")

    monkeypatch.setattr(execution, "train", damaging)
    arguments = ["--data", folder, "--nets", "A", "--seeds", "0", "--tables", "3", *FLAGS]
    ran = CliRunner().invoke(main, ["reproduce", *arguments, "--out", str(tmp_path / "out")])
    assert ran.exit_code == 1
    assert "failed: train A-256-seed0: diverged" in ran.output
    assert "0 of 2 steps are done" in ran.output
    assert "x.json" in ran.output


def test_a_table_that_no_plan_has_is_a_usage_error(tmp_path):
    ran = CliRunner().invoke(main, ["reproduce", "--data", "shapes", "--tables", "3,12"])
    assert ran.exit_code == 2
    assert "'12' is not one of '3', '4', '5'" in ran.output


def test_the_command_ends_with_the_claims(tmp_path, folder, monkeypatch):
    arguments = ["--data", folder, "--nets", "A,A-LRN", "--seeds", "0", "--tables", "3", *FLAGS]
    rng = np.random.default_rng(0)

    def evaluated(self, step):
        path = self.out / step.output
        if isinstance(step, Train):
            path.mkdir(parents=True)
            (path / "best.weights.h5").touch()
            return
        recipe = steps[step.needs[0]].recipe
        labels, rows = np.arange(12) % 3, rng.dirichlet(np.ones(3), 12).astype(np.float32)
        metadata = {key: getattr(recipe, key) for key in ("net", "crop_size", "width", "seed")}
        metadata |= {"train_scale": list(recipe.train_scale), "test_scales": [37]}
        metadata |= {"protocol": step.protocol, "data": folder, "split": "val"}
        names = [f"{i}.jpg" for i in range(12)]
        Predictions(names, labels, rows, CLASSES, metadata).save(path)

    options = Options(folder, seeds=(0,), nets=("A", "A-LRN"), tables=(3,), **TINY)
    steps = {step.name: step for step in make_plan(options).steps}
    monkeypatch.setattr(execution.Executor, "carry_out", evaluated)
    ran = CliRunner().invoke(main, ["reproduce", *arguments, "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert "Claims of the paper" in ran.stdout
    missing = [line for line in ran.stdout.splitlines() if "There is no result" in line]
    assert missing
    assert not [line for line in missing if line.startswith("lrn:")]
    assert "4 of 4 steps are done" in ran.stderr


def test_command_refuses_what_contradicts_the_folder(tmp_path, folder):
    arguments = ["reproduce", "--data", folder, "--nets", "A", "--tables", "3", *FLAGS]
    out = ["--out", str(tmp_path / "out"), "--hours", "0"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/plan.json").write_text('{"size": "small", "width": 0.5}')
    ran = CliRunner().invoke(main, [*arguments, *out])
    assert ran.exit_code == 1
    assert "size: small -> tiny" in ran.output
    assert "width: 0.5 -> 0.015625" in ran.output


def test_dry_run_writes_nothing(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(times, "probe", functools.partial(times.probe, seconds=0.5))
    arguments = ["reproduce", "--data", folder, "--nets", "A", "--tables", "3,8", *FLAGS]
    arguments += ["--seeds", "0", "--out", str(tmp_path / "out"), "--dry-run", "--json"]
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert [step["step"] for step in found["results"]] == [
        "train A-256-seed0",
        "evaluate A-256-dense-seed0",
    ]
    assert found["seconds"] > 0
    assert found["disk"] > 0
    assert list(found["missing"]) == ["8"]
    assert found["provenance"]["command"].endswith("--dry-run --json")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_no_pass_is_computed_twice(tmp_path, computed, map_counter):
    """All tables, with localisation and other data: posteriors, descriptors, boxes are shared."""
    data = write_folder(tmp_path / "data", train=6, val=2)
    write_boxes(data)
    other = write_folder(tmp_path / "other", train=4, val=2, seed=1)
    options = Options(
        data, seeds=(0,), nets=("A", "B", "D"), transfer_data={"custom": other}, **TINY
    )
    outcome = reproduce(options, tmp_path / "out", verbose=0)
    assert not outcome.failed
    assert outcome.done == outcome.total
    plan, facts = make_plan(options), DataFacts(3, {"train": 18, "val": 6})
    images, views = {}, {}  # of each pass; the boxes of several passes are merged at once
    for step in plan.steps:
        if isinstance(step, Evaluate | Localise | ExtractFeatures):
            for one in passes_of(step, plan.trainings(), {data: facts, other: facts}):
                if "boxes" not in one.key:
                    images[one.key] = 12 + 6 if "features" in one.key else 6
                elif one.key[2].views == "dense":
                    views[Path(one.key[0]).name, one.key[2].test_scale] = 2 * 6
    assert map_counter == views
    posteriors = {name: n for name, n in computed.items() if not name.startswith("answers")}
    assert sum(posteriors.values()) == sum(images.values())
    assert max(posteriors.values()) <= 12


def start(arguments):
    command = [sys.executable, "-m", "vgg_keras.cli", "reproduce", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process):
    errors = process.communicate(timeout=900)[1]
    assert process.returncode == 0, errors[-3000:]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Arguments of a plan, and its results in one go."""
    data = write_folder(tmp_path_factory.mktemp("data"))
    arguments = ["--data", data, "--nets", "A,B", "--seeds", "0", *FLAGS, "--tables", "3,4"]
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(start([*arguments, "--out", str(out)]))
    return arguments, results(out)


@pytest.mark.slow
def test_a_plan_that_is_killed_three_times_has_the_same_results(undisturbed, tmp_path):
    """Within the training of A, while its statistics are shared, and after the start of B."""
    arguments, expected = undisturbed
    rng, out = random.Random(5), tmp_path / "out"
    for reached in ("runs/A-256-seed0/data.json", "shared", "runs/B-256-seed0/recipe.json"):
        process = start([*arguments, "--out", str(out)])
        while process.poll() is None and not (out / reached).exists():
            clock.sleep(0.01)
        clock.sleep(rng.uniform(0, 0.1))
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert results(out).keys() < expected.keys()
    finish(start([*arguments, "--out", str(out)]))
    assert results(out) == expected


@pytest.mark.slow
def test_two_processes_share_a_plan(undisturbed, tmp_path):
    arguments, expected = undisturbed
    processes = [start([*arguments, "--out", str(tmp_path / "out")]) for _ in range(2)]
    for process in processes:
        finish(process)
    assert results(tmp_path / "out") == expected
    shutil.rmtree(tmp_path / "out")
