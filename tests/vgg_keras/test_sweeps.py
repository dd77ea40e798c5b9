"""Sweeps in separate processes: killed, shared by two workers, shown, exported."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import keras_tuner
import pytest

from tests.conftest import write_folder
from tests.vgg_keras.test_runs import run_here
from vgg_keras.callbacks.checkpoint import Progressed
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.errors import SweepError
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.pipelines.sources import open_source
from vgg_keras.recipes import RECIPES, Recipe
from vgg_keras.sweeps import trials, tuner
from vgg_keras.sweeps.results import best_run, read_trials, sweep_figure
from vgg_keras.sweeps.space import TUNERS, Point, Sweep, default_recipe
from vgg_keras.sweeps.trials import score
from vgg_keras.sweeps.tuner import VggHyperModel, run_sweep
from vgg_keras.trained import TrainedNet

SCRIPT = """
import logging, sys
from pathlib import Path
from vgg_keras.sweeps.space import Sweep
from vgg_keras.sweeps.tuner import run_sweep

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_sweep(Sweep.load(Path(sys.argv[1])), sys.argv[1])
"""
POINTS = ["A-s32-w0.0625", "B-s32-w0.0625", "D-s32-w0.0625"]


def tiny(data="folder:x", **fields) -> Sweep:
    recipe = Recipe(
        data=data,
        crop_size=32,
        width=1 / 16,
        train_scale=(32, 32),
        epochs=1,
        batch_size=8,
        initialisation="glorot",
        statistics="training-set",
    )
    defaults = {"nets": ("A", "B", "D"), "train_scales": ((32, 32),), "widths": (1 / 16,)}
    return Sweep(**{"recipe": recipe} | defaults | fields)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp("script") / "sweep.py"
    file.write_text(SCRIPT)
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"), train=6, val=3)


def start(script: Path, out: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, script, out],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def resident_mib(process: subprocess.Popen) -> float:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) / 1024


def trained(stderr: str) -> list[str]:
    return re.findall(r"^training (\S+)$", stderr, re.MULTILINE)


@pytest.mark.slow
class TestKilledAndResumed:
    """A sweep that was killed in its second trial trains each of its three trials once."""

    @pytest.fixture(scope="class")
    def swept(self, script, data, tmp_path_factory):
        out = tmp_path_factory.mktemp("sweeps") / "x"
        tiny(data).save(out)
        process, memory = start(script, out), []
        while not (out / "runs" / POINTS[1] / "recipe.json").exists():
            assert process.poll() is None, process.communicate()[1][-3000:]
            time.sleep(0.02)
        process.kill()
        before = (out / "runs" / POINTS[0] / "last.weights.h5").stat().st_mtime_ns
        first = process.communicate()[1]  # ends when the process of the trial has ended too
        process = start(script, out)
        for point in POINTS[1:]:
            while not read_journal(out / "runs" / point / "journal.jsonl"):
                assert process.poll() is None, process.communicate()[1][-3000:]
                time.sleep(0.02)
            memory.append(resident_mib(process))
        second = process.communicate(timeout=600)[1]
        assert process.returncode == 0, second[-3000:]
        after = (out / "runs" / POINTS[0] / "last.weights.h5").stat().st_mtime_ns
        return out, first, second, memory, after - before

    def test_no_trial_is_run_twice(self, swept):
        out, first, second, _, changed = swept
        assert trained(first) == POINTS[:2]
        assert trained(second) == POINTS[1:]  # the killed trial continues
        assert changed == 0
        assert sorted(p.name for p in (out / "runs").iterdir() if p.is_dir()) == POINTS
        assert [row["status"] for row in read_trials(out)] == ["COMPLETED"] * 3

    def test_deeper_nets_start_from_the_same_a(self, swept):
        for name in POINTS[1:]:
            recipe = json.loads((swept[0] / "runs" / name / "recipe.json").read_text())
            assert recipe["init_from"] == str(swept[0] / "runs" / POINTS[0])
            assert recipe["init_layers"] == "warm-start"

    def test_memory_stays_flat(self, swept):
        memory = swept[3]
        assert max(memory) - min(memory) < 32, memory

    def test_show_prints_and_draws_the_trials(self, swept):
        text = run_here("sweep", "show", swept[0])
        for piece in ("A (11)", "B (13)", "D (16)", "multiply-adds", "top-5 error"):
            assert piece in text
        assert (swept[0] / "sweep.png").stat().st_size > 10_000
        rows = json.loads(run_here("sweep", "show", swept[0], "--json"))["results"]
        assert [row["error"] for row in rows] == sorted(row["error"] for row in rows)
        by_net = sorted(rows, key=lambda row: row["net"])
        assert [row["parameters"] for row in by_net] == sorted(r["parameters"] for r in rows)

    def test_export_writes_the_best_net(self, swept, tmp_path):
        run_here("sweep", "export", swept[0], "--out", tmp_path / "best")
        assert (tmp_path / "best/1/saved_model.pb").is_file()

    def test_the_best_run_loads_as_a_net(self, swept, data):
        best = read_trials(swept[0])[0]
        net = TrainedNet.load(best_run(swept[0]))
        assert net.architecture.net == best["net"]
        found = evaluate(net, open_source(data), protocol="centre", verbose=0).result()
        assert found["top1_error"] == pytest.approx(best["top1_error"], abs=1e-3)

    def test_another_sweep_is_refused(self, swept):
        with pytest.raises(SweepError, match=r"holds another sweep \(nets: "):
            tiny(Sweep.load(swept[0]).recipe.data, nets=("A",)).save(swept[0])


@pytest.mark.slow
def test_two_workers_share_a_sweep(script, data, tmp_path):
    """They are a chief and two workers of Keras Tuner on loopback. Both need net A, from which B
    and D start; the worker that is free first takes the third trial."""
    out = tmp_path / "x"
    tiny(data).save(out)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    chief, *workers = (
        start(
            script,
            out,
            KERASTUNER_TUNER_ID=name,
            KERASTUNER_ORACLE_IP="127.0.0.1",
            KERASTUNER_ORACLE_PORT=port,
        )
        for name in ("chief", "worker0", "worker1")
    )
    logs = [worker.communicate(timeout=600)[1] for worker in workers]
    chief.kill()  # the chief checks only every twenty seconds whether all workers have ended
    chief.communicate()
    assert [worker.returncode for worker in workers] == [0, 0], logs[0][-3000:] + logs[1][-3000:]
    assert sorted(trained(logs[0]) + trained(logs[1])) == POINTS
    rows = read_trials(out)
    assert [row["status"] for row in rows] == ["COMPLETED"] * 3
    assert {row["epochs"] for row in rows} == {1}


class TestTuners:
    """The trials of each tuner. Training is replaced by journals like those of a run."""

    ERRORS: ClassVar = {"A": 30.0, "B": 20.0, "B-shallow": 20.0, "D": 10.0}
    diverging: ClassVar[tuple[str, ...]] = ()  # nets whose training diverges

    @pytest.fixture
    def given(self, monkeypatch):
        """The recipes, in the order in which the tuner trains them."""
        recipes = []

        def record(recipe, path, _):
            assert not (path / "journal.jsonl").exists(), f"{path} twice"
            recipes.append(recipe)
            path.mkdir(parents=True)
            error = self.ERRORS[recipe.net] - recipe.epochs
            line = {"val_top1_error": error, "val_top5_error": error / 2, "seconds": 1.0}
            entries = [{"epoch": i + 1, "loss": 1.0} | line for i in range(recipe.epochs)]
            diverges = recipe.net in self.diverging
            if diverges:
                entries[-1]["val_cross_entropy"] = None
            lines = [json.dumps(entry) + "\n" for entry in entries]
            (path / "journal.jsonl").write_text("".join(lines))
            return "DivergenceError: Training diverged" if diverges else ""

        monkeypatch.setattr(trials, "train_in_process", record)
        monkeypatch.setattr(
            trials,
            "read_progress",
            lambda path: Progressed(len(read_journal(path / "journal.jsonl")), False),
        )
        return recipes

    @pytest.mark.parametrize("tuner", TUNERS)
    def test_each_trial_is_run_once(self, tuner, given, tmp_path):
        sweep = tiny(tuner=tuner, train_scales=((32, 32), (32, 40)), max_trials=4)
        sweep = dataclasses.replace(sweep, recipe=dataclasses.replace(sweep.recipe, epochs=3))
        run_sweep(sweep, tmp_path / "x")
        rows = read_trials(tmp_path / "x")
        assert {row["status"] for row in rows} == {"COMPLETED"}
        if tuner == "hyperband":
            deepest = {Path(row["run"]).name for row in rows if row["net"] == "D"}
            assert any("-trial" in name for name in deepest)
            later = [r for r in given if "-trial" in str(r.init_from)]
            assert later
            assert all(Path(r.init_from).exists() and r.init_layers == "all" for r in later)
            assert max(row["epochs"] for row in rows) <= 3
        else:
            assert len(rows) == (6 if tuner == "grid" else 4)
            assert len({row["run"] for row in rows}) == len(rows)
            assert rows[0]["net"] == min((r["net"] for r in rows), key=self.ERRORS.get)
        before = len(given)
        run_sweep(sweep, tmp_path / "x")
        assert len(given) == before
        self.damage_and_continue(sweep, tmp_path / "x")
        assert len(given) == before

    def damage_and_continue(self, sweep, folder):
        """What a kill leaves of the files of Keras Tuner does not change the search."""
        rows = read_trials(folder)
        state = folder / "tuner"
        whole = (state / "oracle.json").read_bytes()
        unknown_trial = json.loads(whole)
        unknown_trial["start_order"].pop()
        last = sorted(state.glob("trial_*/trial.json"))[-1]
        for file, content in (
            (state / "oracle.json", b""),
            (state / "oracle.json", whole[: len(whole) // 2]),
            (state / "oracle.json", json.dumps(unknown_trial).encode()),
            (state / "oracle.json", b"[]"),
            (state / "tuner0.json", b""),
            (last, b'{"trial_id'),
        ):
            file.write_bytes(content)
            run_sweep(sweep, folder)
            assert read_trials(folder) == rows

    @pytest.mark.parametrize("tuner", ["grid", "random", "bayesian"])
    def test_a_search_goes_on_with_more_trials(self, tuner, given, tmp_path):
        sweep = tiny(tuner=tuner, train_scales=((32, 32), (32, 40)), max_trials=2)
        more = dataclasses.replace(sweep, max_trials=4)
        run_sweep(sweep, tmp_path / "x")
        before = {row["run"] for row in read_trials(tmp_path / "x")}
        assert len(before) == (6 if tuner == "grid" else 2)
        run_sweep(more, tmp_path / "x")
        found = {row["run"] for row in read_trials(tmp_path / "x")}
        assert before <= found
        assert len(found) == (6 if tuner == "grid" else 4)
        if tuner == "random":  # the trials of a search that had them from its beginning
            run_sweep(more, tmp_path / "y")
            whole = {Path(row["run"]).name for row in read_trials(tmp_path / "y")}
            assert {Path(run).name for run in found} == whole
        with pytest.raises(SweepError, match="max_trials may only grow"):
            sweep.save(tmp_path / "x")
        with pytest.raises(SweepError, match="only max_trials and the number of epochs may grow"):
            dataclasses.replace(more, objective="top1").save(tmp_path / "x")

    def test_a_search_goes_on_with_more_epochs(self, given, tmp_path, monkeypatch):
        record = trials.train_in_process

        def again(recipe, path, options):
            shutil.rmtree(path, ignore_errors=True)
            return record(recipe, path, options)

        monkeypatch.setattr(trials, "train_in_process", again)
        sweep = tiny(nets=("A", "B-shallow"), train_scales=((32, 32), (32, 40)))
        more = dataclasses.replace(sweep, recipe=dataclasses.replace(sweep.recipe, epochs=3))
        for one in (sweep, more):
            run_sweep(one, tmp_path / "x")
        rows = read_trials(tmp_path / "x")
        assert [row["epochs"] for row in rows] == [3] * 4
        assert {row["error"] for row in rows} == {8.5, 13.5}
        assert len(given) == 8
        for other, before, message in (
            (sweep, more, "the number of epochs may only grow"),
            (tiny(nets=("A", "D")), None, "net D has started from net A with epochs=1"),
            (tiny(nets=("A",), tuner="bayesian"), None, "bayesian has chosen trials"),
        ):
            folder = tmp_path / message
            (before or other).save(folder)
            grown = dataclasses.replace(other, recipe=dataclasses.replace(other.recipe, epochs=2))
            with pytest.raises(SweepError, match=message):
                (other if before else grown).save(folder)

    @pytest.mark.parametrize("diverging", ["D", "A", "AD"])
    @pytest.mark.parametrize("tuner", TUNERS)
    def test_a_trial_that_diverges_is_not_ranked(
        self, tuner, diverging, given, tmp_path, monkeypatch, caplog
    ):
        """The search goes on, and a net that starts from one that diverged is not trained."""
        monkeypatch.setattr(self, "diverging", tuple(diverging))
        sweep = tiny(tuner=tuner, nets=("A", "B-shallow", "D"), train_scales=((32, 32), (32, 40)))
        run_sweep(sweep, tmp_path / "x")
        rows = read_trials(tmp_path / "x")
        lost = "AD" if "A" in diverging else diverging
        if tuner == "hyperband":  # its later rungs start from the same net
            lost = diverging
        ranked = {row["net"] for row in rows if "error" in row}
        assert ranked <= {"A", "B-shallow", "D"} - set(lost)
        assert {row["status"] for row in rows if row["net"] == diverging[0]} <= {"DIVERGED"}
        assert {row["status"] for row in rows} <= {"COMPLETED", "DIVERGED", "FAILED"}
        assert "A" not in diverging or "D" not in {recipe.net for recipe in given}
        if tuner == "grid":
            assert [row["status"] for row in rows].count("COMPLETED") == 6 - 2 * len(lost)
            assert best_run(tmp_path / "x").name.startswith("B-shallow") or diverging == "D"
            assert caplog.text.count("are not ranked") == 2 * len(lost)
        before = len(given)
        run_sweep(sweep, tmp_path / "x")
        assert len(given) == before


class TestSpace:
    def test_shallow_nets_come_first(self):
        sweep = tiny(nets=("E", "A", "B"), train_scales=((32, 32), (32, 40)))
        names = [point.name for point in sweep.points()]
        assert names[:3] == ["A-s32-w0.0625", "A-s32-40-w0.0625", "B-s32-w0.0625"]
        assert len(names) == 6

    @pytest.mark.parametrize(
        ("net", "from_a"),
        [("A", False), ("A-LRN", False), ("C", True), ("E", True), ("B-shallow", False)],
    )
    def test_deeper_nets_start_from_net_a(self, net, from_a):
        shallow = Point(net, (32, 40), 0.5).shallow
        assert shallow == (Point("A", (32, 40), 0.5) if from_a else None)

    def test_a_sweep_is_read_back(self, tmp_path):
        sweep = tiny(train_scales=((32, 32), (32, 40)), tuner="random", max_trials=3)
        sweep.save(tmp_path / "x")
        assert Sweep.load(tmp_path / "x") == sweep

    def test_small_scales_have_the_small_recipe(self):
        assert default_recipe([(256, 256), (73, 146)]) == "small"
        assert default_recipe([(256, 256), (384, 384)]) == "paper"

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"nets": ("F",)}, "net must be one of A, A-LRN"),
            ({"nets": ("A", "A")}, "nets must be one value or more, all different"),
            ({"tuner": "annealing"}, "tuner must be one of grid, random, bayesian, hyperband"),
            ({"train_scales": ((16, 16),)}, "at least the crop size"),
            ({"recipe": RECIPES["fine-tune"]}, "recipe must train all layers .*trainable=fc"),
        ],
    )
    def test_bad_sweeps_are_refused(self, fields, message):
        with pytest.raises(ValueError, match=message):
            tiny(**fields)

    def test_a_folder_without_a_sweep_is_refused(self, tmp_path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(SweepError, match="is not empty and holds no sweep"):
            tiny().save(tmp_path)


class TestFigure:
    @staticmethod
    def rows(*costs):
        return [
            {
                "net": net,
                "weight_layers": layers,
                "train_scale": [32, 32],
                "width": 1.0,
                "error": 30.0 + i,
                "parameters": cost * 1e6,
                "seconds": 60 * cost,
                "multiply_adds": cost * 1e9,
            }
            for i, (cost, (net, layers)) in enumerate(
                zip(costs, (("A", 11), ("B", 13), ("D", 16)), strict=True)
            )
        ]

    def test_points_are_not_joined(self):
        figure = sweep_figure(self.rows(3.0, 1.0, 2.0), "top5")
        for panel in figure.axes[1:]:
            assert [line.get_linestyle() for line in panel.lines] == ["None"]
            assert panel.lines[0].get_xdata() == pytest.approx([3.0, 1.0, 2.0])
            assert [text.get_text() for text in panel.texts] == ["A", "B", "D"]

    @pytest.mark.parametrize(
        "costs", [(1.0, 1.001, 1.002), (2.0, 2.0, 2.0), (0.3, 5.0, 900.0), (11.0, 12.0, 16.0)]
    )
    def test_ticks_have_different_short_labels(self, costs):
        figure = sweep_figure(self.rows(*costs), "top5")
        figure.draw_without_rendering()
        for panel in figure.axes[1:]:
            axis = panel.xaxis
            low, high = panel.get_xlim()
            ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
            labels = [label.get_text() for value, label in ticks if low <= value <= high]
            assert 2 <= len(labels) == len(set(labels))
            assert not any(label.get_text() for label in axis.get_minorticklabels())
            assert ("." in "".join(labels)) == (costs[0] < 10)  # whole numbers where they are whole


def test_the_score_is_that_of_the_best_weights(tmp_path):
    lines = [(50.0, 10.0), (40.0, 12.0), (40.0, 8.0)]
    entries = [
        {"epoch": i, "val_top1_error": a, "val_top5_error": b, "seconds": 2.0}
        for i, (a, b) in enumerate(lines, 1)
    ]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    found = score(tmp_path, "top5")
    assert (found["error"], found["top1_error"], found["seconds"]) == (12.0, 40.0, 6.0)


def test_a_trial_that_fails_stops_the_sweep(monkeypatch, tmp_path):
    monkeypatch.setattr(trials, "train_in_process", lambda *_: "SourceError: no images")
    with pytest.raises(SweepError, match=r"A-s32-w0\.0625 could not be trained: SourceError: no"):
        run_sweep(tiny(), tmp_path / "x")


def test_options_of_the_command_set_the_sweep(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(tuner, "run_sweep", lambda sweep, out, **_: given.append(sweep))
    run_here(
        "sweep",
        "--data",
        "shapes",
        "--nets",
        "A,vgg16",
        "--train-scales",
        "73,73:146",
        "--widths",
        "0.25,0.5",
        "--budget-epochs",
        2,
        "--learning-rate",
        0.5,
        "--no-flip",
        "--out",
        tmp_path / "x",
    )
    (sweep,) = given
    assert (sweep.nets, sweep.widths) == (("A", "D"), (0.25, 0.5))
    assert sweep.train_scales == ((73, 73), (73, 146))
    assert (sweep.recipe.epochs, sweep.recipe.crop_size) == (2, RECIPES["small"].crop_size)
    assert (sweep.recipe.learning_rate, sweep.recipe.flip) == (0.5, False)
    assert "Missing option '--out'" in run_here("sweep", "--data", "shapes", code=2)


def test_the_hypermodel_opens_the_data_of_its_recipe(data):
    assert VggHyperModel(tiny(data)).source.spec == data


def test_the_best_model_of_another_tuner_becomes_a_net(data, tmp_path):
    """The tuner uses an opened source, and the net has the error that the tuner recorded."""
    source = open_source(data)
    hypermodel = VggHyperModel(tiny("folder:/nowhere", nets=("A",)), source)
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=1,
        directory=str(tmp_path),
    )
    tuner.search(verbose=0)
    (best,) = tuner.get_best_hyperparameters()
    assert best.values == {"net": "A", "train_scale": "32", "width": "0.0625"}
    net = hypermodel.trained_net(best, tuner.get_best_models()[0])
    assert (net.class_names, net.train_scale) == (source.class_names, (32, 32))
    found = evaluate(net, source, protocol="centre", verbose=0).result()
    accuracy = tuner.oracle.get_best_trials()[0].score
    assert found["top1_error"] == pytest.approx(100 * (1 - accuracy), abs=1e-3)


def test_the_hypermodel_reports_a_trial_that_diverges(data, tmp_path):
    """Keras Tuner counts it as failed, and not as one of the accuracy of class 0."""
    sweep = tiny(data, nets=("A",))
    sweep = dataclasses.replace(sweep, recipe=dataclasses.replace(sweep.recipe, learning_rate=1e20))
    tuner = keras_tuner.RandomSearch(
        VggHyperModel(sweep),
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=1,
        directory=str(tmp_path),
    )
    tuner.search(verbose=0)
    (trial,) = tuner.oracle.trials.values()
    assert (trial.status, trial.score) == ("FAILED", None)
    assert "DivergenceError: Training diverged in epoch 1" in trial.message
