"""Runs from the command line, in processes of their own: killed, distributed, refused."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from tests.conftest import write_folder
from tests.forks import start
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.cli import main
from vgg_keras.errors import RunError
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.pipelines.sources import open_source
from vgg_keras.provenance import warn_of_other_versions
from vgg_keras.recipes import Recipe
from vgg_keras.runs import is_run_of, lock_run, prepare_run_folder, record_classes
from vgg_keras.trained import TrainedNet
from vgg_keras.training import train

TINY = (
    "--net",
    "A",
    "--width",
    "0.0625",
    "--crop-size",
    "32",
    "--train-scale",
    "32,40",
    "--batch-size",
    "8",
    "--initialisation",
    "glorot",
    "--learning-rate",
    "0.001",
    "--statistics",
    "training-set",
)


# More, for a longer trial, by the environment.
KILLS = int(os.environ.get("VGG_KERAS_KILLS", "2"))
EPOCHS = max(20, 5 * KILLS)


def command(*arguments):
    return [sys.executable, "-m", "vgg_keras.cli", *map(str, arguments)]


def run(*arguments, code=0, **options) -> tuple[str, str]:
    """Runs the command line in a process; returns its standard output and standard error."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(*arguments, into=Path(folder), **options)
        process.join(280)
        said, errors = (Path(folder, name).read_text() for name in ("stdout", "stderr"))
    assert process.exitcode == code, errors[-3000:]
    return said, errors


def run_here(*arguments, code=0):
    """The same in this process."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output[-3000:]
    return done.stderr if code else done.stdout


def arrays(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda k, v: found.update({k: v[()]}) if hasattr(v, "shape") else None)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"), train=16, val=5)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run never killed: epochs of six steps."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_here("train", *TINY, "--data", data, "--epochs", EPOCHS, "--out", out)
    return out


def test_killed_runs_end_with_bit_identical_weights(data, finished, tmp_path):
    """Every other kill comes just after an epoch, among its writes or in the next one; the
    others come at any moment from the start of the process until its first epoch has ended."""
    out, seed = tmp_path / "killed", random.randrange(2**32)
    print("moments drawn with seed", seed)  # shown where the test fails
    rng = random.Random(seed)
    arguments = ("train", *TINY, "--data", data, "--epochs", EPOCHS, "--out", out)
    first_epoch = 0.0
    for kill in range(KILLS):
        before = len(read_journal(out / "journal.jsonl"))
        process, started = start(*arguments), time.monotonic()
        if kill % 2:
            time.sleep(rng.uniform(0, first_epoch))
        else:
            while len(read_journal(out / "journal.jsonl")) < before + 1:
                assert process.is_alive(), "ended before it could be killed"
                time.sleep(0.001)
            first_epoch = time.monotonic() - started
            time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "ended before it could be killed"
    run(*arguments)
    expected, got = (arrays(path / "last.weights.h5") for path in (finished, out))
    assert expected.keys() == got.keys()
    assert any(key.startswith("optimizer") for key in got)
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)
    for a, b in zip(
        read_journal(finished / "journal.jsonl"), read_journal(out / "journal.jsonl"), strict=True
    ):
        assert {k: v for k, v in a.items() if "second" not in k} == {
            k: v for k, v in b.items() if "second" not in k
        }


def test_files_of_a_run_folder(data, finished):
    names = {p.name for p in finished.iterdir()} - {"evaluation", ".lock"}  # of the tests below
    assert names == {
        "recipe.json",
        "statistics.json",
        "classes.json",
        "environment.json",
        "journal.jsonl",
        "best.weights.h5",
        "last.weights.h5",
    }
    assert json.loads((finished / "recipe.json").read_text())["data"] == data
    assert json.loads((finished / "classes.json").read_text()) == ["blue", "green", "red"]
    environment = json.loads((finished / "environment.json").read_text())
    assert set(environment["packages"]) >= {"tensorflow", "keras", "numpy"}
    checkout = Path(__file__).parents[2]
    if (checkout / ".git").exists():
        head = subprocess.run(
            ["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert environment["git_commit"].removesuffix("-dirty") == head
    entry = read_journal(finished / "journal.jsonl")[-1]
    assert {"loss", "val_top1_error", "val_top5_error", "learning_rate"} <= set(entry)


def test_event_files_for_tensorboard(data, tmp_path, monkeypatch):
    arguments = ("train", *TINY, "--data", data, "--epochs", 1, "--tensorboard", "--out")
    run_here(*arguments, tmp_path / "run")
    (file,) = (tmp_path / "run/tensorboard/validation").iterdir()
    events = map(
        tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    )
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"epoch_accuracy", "epoch_cross_entropy"} <= tags
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as where it is not installed
    assert "pip install tensorboard" in run_here(*arguments, tmp_path / "other", code=1)


def test_further_callbacks_are_called_and_verbose_0_is_silent(data, tmp_path, capfd):
    recipe = Recipe(data=data, crop_size=32, width=1 / 16, train_scale=32, epochs=2, batch_size=16)
    seen = []
    mine = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    capfd.readouterr()
    train(recipe, tmp_path / "quiet", callbacks=[mine], verbose=0)
    assert "epoch" not in capfd.readouterr().err
    assert [entry["val_accuracy"] for entry in seen] == [
        pytest.approx(1 - entry["val_top1_error"] / 100, abs=1e-5)
        for entry in read_journal(tmp_path / "quiet" / "journal.jsonl")
    ]


def test_a_finished_run_is_not_changed(data, finished):
    before = (finished / "last.weights.h5").read_bytes()
    run_here("train", *TINY, "--data", data, "--epochs", EPOCHS, "--out", finished)
    assert (finished / "last.weights.h5").read_bytes() == before


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_evaluate_counts_every_image_once(data, finished, batch_size):
    output = run_here(
        "evaluate",
        "--run",
        finished,
        "--data",
        data,
        "--protocol",
        "centre",
        "--test-scales",
        36,
        "--batch-size",
        batch_size,
        "--json",
    )
    result = json.loads(output)
    assert result["images"] == 15
    best = min(e["val_top1_error"] for e in read_journal(finished / "journal.jsonl"))
    assert result["top1_error"] == pytest.approx(best, abs=1e-3)  # Q = 36 is that of validation


def test_a_killed_evaluation_continues(data, finished, tmp_path):
    """Killed in its first pass: computed rows are not computed again; the results are the same."""
    arguments = (
        "evaluate",
        "--run",
        finished,
        "--data",
        data,
        "--split",
        "train",
        "--json",
        "--protocol",
        "multi-crop",
        "--multi-scale",
        "--batch-size",
        1,
    )
    process = start(*arguments, "--cache-dir", tmp_path / "killed")

    def done() -> int:
        tables = [np.load(file) for file in (tmp_path / "killed").glob("[!.]*.npy")]
        return sum(int((~np.isnan(table)).all(1).sum()) for table in tables)

    while not done():
        assert process.is_alive(), "ended before it could be killed"
        time.sleep(0.001)
    process.kill()
    process.join()
    before = done()
    assert 0 < before < 3 * 48
    found, said = run(*arguments, "--cache-dir", tmp_path / "killed")
    seen = [int(n) for n in re.findall(r"(\d+)/\1 images", said)]  # at the end of each pass
    assert sum(seen) == 3 * 48 - before
    killed = json.loads(found)
    whole = evaluate(
        TrainedNet.load(finished),
        open_source(data),
        "train",
        protocol="multi-crop",
        multi_scale=True,
    ).result()
    assert killed == whole


@pytest.mark.slow
def test_four_devices_and_one_give_the_same_losses(data, tmp_path):
    """§3.3: 'exactly the same as when training on a single GPU', L2 included."""
    for devices, runner in ((1, run_here), (4, run)):
        runner(
            "train",
            *TINY,
            "--data",
            data,
            "--epochs",
            1,
            "--dropout",
            0,
            "--devices",
            devices,
            "--out",
            tmp_path / str(devices),
        )
    one, four = (read_journal(tmp_path / str(n) / "journal.jsonl") for n in (1, 4))
    for a, b in zip(one, four, strict=True):
        for key in ("loss", "cross_entropy", "val_cross_entropy", "val_top1_error"):
            assert b[key] == pytest.approx(a[key], rel=1e-5), key
    assert one[0]["loss"] > one[0]["cross_entropy"] + 1e-3  # decay is in the loss
    expected, got = (arrays(tmp_path / str(n) / "best.weights.h5") for n in (1, 4))
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, atol=1e-5, err_msg=key)


def test_warm_start_from_a_run(data, finished, tmp_path):
    done = subprocess.run(
        command(
            "train",
            *TINY,
            "--data",
            data,
            "--epochs",
            1,
            "--net",
            "B",
            "--init-from",
            finished,
            "--out",
            tmp_path / "b",
        ),
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    layers = "block1_conv1, block2_conv1, block3_conv1, block3_conv2, fc1, fc2, predictions"
    assert f"started from {finished}: {layers}" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert not [l for l in lines if "oneDNN" in l or "cuda" in l.lower() or "WARNING" in l], lines


def test_shapes_by_the_default_seed(shapes_dir, tmp_path):
    run_here(
        "train",
        *TINY,
        "--data",
        "shapes",
        "--data-dir",
        shapes_dir,
        "--batch-size",
        800,
        "--epochs",
        1,
        "--train-scale",
        32,
        "--out",
        tmp_path / "run",
    )
    (entry,) = read_journal(tmp_path / "run/journal.jsonl")
    assert entry["val_top1_error"] <= 100
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    assert (recipe["train_scale"], recipe["flip"], recipe["seed"]) == ([32, 32], True, 0)


def limit_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_a_full_disk_leaves_the_last_epoch_whole(data, tmp_path):
    """A limit on the size of files, below that of the weights, stands for the full disk."""
    out = tmp_path / "run"
    run_here("train", *TINY, "--data", data, "--epochs", 1, "--out", out)
    (out / "recipe.json").write_text(
        (out / "recipe.json").read_text().replace('"epochs": 1', '"epochs": 3')
    )
    before = arrays(out / "last.weights.h5")
    _, said = run(
        "train", *TINY, "--data", data, "--epochs", 3, "--out", out, code=1, first=limit_files
    )
    assert ".weights.h5 could not be written, what was saved before is whole" in said
    assert "Traceback" not in said
    after = arrays(out / "last.weights.h5")
    assert all(np.array_equal(after[key], before[key]) for key in before)


def test_changed_versions_are_logged(tmp_path, caplog):
    prepare_run_folder(tmp_path, Recipe())
    warn_of_other_versions(tmp_path)
    assert not caplog.text
    file = tmp_path / "environment.json"
    begun_with = json.loads(file.read_text())
    begun_with["packages"]["keras"] = "3.0.0"
    file.write_text(json.dumps(begun_with))
    warn_of_other_versions(tmp_path)
    assert f"started with other versions (keras 3.0.0 -> {keras.__version__})" in caplog.text


class TestUnfinishedFolders:
    """What a kill can leave before the end of the first epoch is replaced."""

    @pytest.mark.parametrize("left", [".recipe.json.tmp.json", "recipe.json"])
    def test_the_same_and_another_recipe(self, left, tmp_path):
        out = tmp_path / "run"
        out.mkdir()
        (out / left).write_text(Recipe(seed=1).to_json())
        prepare_run_folder(out, Recipe(seed=2))
        assert is_run_of(out, Recipe(seed=2))

    def test_what_belonged_to_the_other_recipe_goes(self, tmp_path):
        prepare_run_folder(tmp_path, Recipe(seed=1))
        for name in ("statistics.json", "best.weights.h5", "journal.jsonl", "bad_images.json"):
            (tmp_path / name).touch()
        prepare_run_folder(tmp_path, Recipe(seed=2))
        assert {p.name for p in tmp_path.iterdir()} == {"recipe.json", "environment.json"}

    def test_versions_are_written_where_a_kill_left_none(self, tmp_path):
        prepare_run_folder(tmp_path, Recipe())
        (tmp_path / "environment.json").unlink()
        prepare_run_folder(tmp_path, Recipe())
        assert (tmp_path / "environment.json").exists()

    def test_one_that_is_being_trained_does_not(self, data, tmp_path):
        """Neither to another recipe nor to the same command given twice."""
        another, same = tmp_path / "another", tmp_path / "same"
        prepare_run_folder(another, Recipe())
        for out in (another, same):
            with lock_run(out):
                error = run_here("train", *TINY, "--data", data, "--out", out, code=1)
            assert f"Another process is training into {out}" in error
            assert not (out / "journal.jsonl").exists()
        assert is_run_of(another, Recipe())

    def test_a_run_with_an_epoch_does_not(self, tmp_path):
        prepare_run_folder(tmp_path, Recipe(seed=1))
        (tmp_path / "last.weights.h5").touch()
        with pytest.raises(RunError, match="seed: 1 -> 2"):
            prepare_run_folder(tmp_path, Recipe(seed=2))

    def test_classes_that_changed(self, tmp_path):
        record_classes(tmp_path, ["a", "b"])
        record_classes(tmp_path, ["a", "b"])
        with pytest.raises(RunError, match=r"not those that .* was begun with"):
            record_classes(tmp_path, ["a", "b", "c"])


class TestRefused:
    def test_statistics_that_are_not_there(self, data, tmp_path):
        error = run_here(
            "train",
            *TINY,
            "--data",
            data,
            "--statistics",
            "imagenet",
            "--out",
            tmp_path / "x",
            code=1,
        )
        assert "ilsvrc, training-set or the name of a JSON file" in error
        assert not (tmp_path / "x").exists()

    def test_a_folder_that_cannot_be_written(self, data, tmp_path):
        (tmp_path / "file").touch()
        out = tmp_path / "file/run"
        error = run_here("train", *TINY, "--data", data, "--out", out, code=1)
        assert f"{out / 'recipe.json'} could not be written" in error

    def test_a_batch_larger_than_the_data(self, data, tmp_path):
        error = run_here(
            "train", *TINY, "--data", data, "--batch-size", 49, "--out", tmp_path / "x", code=1
        )
        assert "the number of training images, 48. Received: batch_size=49" in error
        assert not (tmp_path / "x").exists()

    def test_another_recipe(self, data, finished):
        error = run_here("train", *TINY, "--data", data, "--epochs", 7, "--out", finished, code=1)
        assert f"holds a run of another recipe (epochs: {EPOCHS} -> 7)" in error

    def test_a_folder_of_something_else(self, data, tmp_path):
        (tmp_path / "thesis.tex").write_text("x")
        assert "holds no run" in run_here("train", *TINY, "--data", data, "--out", tmp_path, code=1)

    def test_a_batch_that_devices_do_not_divide(self, data, tmp_path):
        _, error = run(
            "train", *TINY, "--data", data, "--devices", 3, "--out", tmp_path / "x", code=1
        )
        assert "multiple of the number of devices, 3; nearest: 6 or 9" in error
        assert not (tmp_path / "x").exists()

    def test_wrong_width_of_the_warm_start(self, data, finished, tmp_path):
        error = run_here(
            "train",
            *TINY,
            "--data",
            data,
            "--width",
            0.125,
            "--init-from",
            finished,
            "--out",
            tmp_path / "x",
            code=1,
        )
        assert "block1_conv1 has shapes [(3, 3, 3, 4), (4,)], the model's are" in error

    def test_evaluating_no_run(self, data, tmp_path):
        assert "is no run and no saved net" in run_here(
            "evaluate", "--run", tmp_path, "--data", data, code=1
        )

    def test_evaluating_other_classes(self, finished, tmp_path):
        spec = write_folder(tmp_path / "other", 1, 1)
        (tmp_path / "other/train/red").rename(tmp_path / "other/train/pink")
        (tmp_path / "other/val/red").rename(tmp_path / "other/val/pink")
        error = run_here("evaluate", "--run", finished, "--data", spec, code=1)
        assert "the first is pink" in error
        assert "was not trained on" in error

    def test_evaluating_under_the_crop_size(self, data, finished):
        error = run_here("evaluate", "--run", finished, "--data", data, "--test-scales", 31, code=1)
        assert "at least the crop size, 32. Received: 31" in error

    def test_evaluating_with_nowhere_to_keep(self, data, finished, tmp_path):
        (tmp_path / "file").touch()
        error = run_here(
            "evaluate",
            "--run",
            finished,
            "--data",
            data,
            "--cache-dir",
            tmp_path / "file/x",
            code=1,
        )
        assert "Give another" in error


class TestBadImages:
    @pytest.fixture
    def spoilt(self, tmp_path):
        spec = write_folder(tmp_path / "spoilt", train=4, val=2)
        bad = tmp_path / "spoilt/train/green/002.jpg"
        bad.write_bytes(bad.read_bytes()[:200])
        return spec, bad

    def test_stop_names_the_file(self, spoilt, tmp_path):
        spec, bad = spoilt
        arguments = ("train", *TINY, "--data", spec, "--epochs", 3, "--batch-size", 4)
        for statistics in ("training-set", "ilsvrc"):  # found before training, and in it
            out = tmp_path / statistics
            error = run_here(*arguments, "--statistics", statistics, "--out", out, code=1)
            assert f"This image cannot be read: {bad}" in error

    def test_skip_goes_on_and_lists_it(self, spoilt, tmp_path, caplog):
        spec, bad = spoilt
        run_here(
            "train",
            *TINY,
            "--data",
            spec,
            "--epochs",
            1,
            "--batch-size",
            11,
            "--on-bad-image",
            "skip",
            "--out",
            tmp_path / "run",
        )
        assert "train: 1 of 12 images skipped" in caplog.text
        assert f"skipped, cannot be read: {bad}" in caplog.text
        listed = json.loads((tmp_path / "run/bad_images.json").read_text())
        assert listed == {"train": [str(bad)], "val": []}

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_a_class_that_loses_all_its_pictures_is_named(self, split, tmp_path):
        spec = write_folder(tmp_path / "spoilt", train=4, val=2)
        for file in (tmp_path / "spoilt" / split / "green").iterdir():
            file.write_bytes(b"no picture")
        error = run_here(
            "train",
            *TINY,
            "--data",
            spec,
            "--epochs",
            1,
            "--on-bad-image",
            "skip",
            "--out",
            tmp_path / "run",
            code=1,
        )
        assert f"No picture in the {split!r} split that can be read is of these classes: green" in (
            error
        )


class TestFromScratch:
    """What the paper does not begin with random weights is said, before anything is done."""

    @pytest.fixture
    def said(self, data, tmp_path, caplog):
        (tmp_path / "thesis.tex").touch()  # so that it ends there

        def run(*arguments):
            run_here("train", *TINY, "--data", data, *arguments, "--out", tmp_path, code=1)
            return caplog.text

        return run

    def test_a_deep_net_from_the_papers_gaussian(self, said):
        warning = "net D is not expected to learn from the paper's Gaussian"
        assert warning not in said("--net", "D")
        assert warning not in said("--net", "A", "--initialisation", "gaussian")
        assert warning in said("--net", "D", "--initialisation", "gaussian")

    def test_a_stage_of_the_chain_without_the_one_before(self, said):
        warning = "without --init-from there is nothing to take init_layers=all from"
        assert warning not in said()
        assert warning in said("--recipe", "paper-384")
