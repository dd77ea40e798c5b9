"""Runs of the command line in separate processes: killed, distributed, refused."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from tests.conftest import TRAIN_TINY, overridden, write_folder
from tests.forks import start
from tests.tiny import loading_once
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.cli import main
from vgg_keras.errors import ArgumentError, RunError
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.metadata import rounded
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import Source
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.provenance import warn_of_other_versions
from vgg_keras.recipes import Recipe
from vgg_keras.run_data import changed_images, describe_images, record_data
from vgg_keras.runs import is_run_of, lock_run, prepare_run_folder, record_classes, watched
from vgg_keras.starting import make_warm_start
from vgg_keras.tasks import CLASSIFICATION
from vgg_keras.trained import TrainedNet
from vgg_keras.training import train
from vgg_keras.weights import read as weights

TINY = ("--net", "A", *TRAIN_TINY, "--learning-rate", "0.001")


# The environment variable sets more kills, for a longer test.
KILLS = int(os.environ.get("VGG_KERAS_KILLS", "2"))
EPOCHS = max(10, 5 * KILLS)


def command(*arguments):
    return [sys.executable, "-m", "vgg_keras.cli", *overridden(arguments)]


def run(*arguments, code=0, **options) -> tuple[str, str]:
    """Runs the command line in a process; returns its standard output and standard error."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(*arguments, into=Path(folder), **options)
        process.join(280)
        output, errors = (Path(folder, name).read_text() for name in ("stdout", "stderr"))
    assert process.exitcode == code, errors[-3000:]
    return output, errors


def run_here(*arguments, code=0):
    """Runs the command line in this process; returns its standard output, or its standard error if
    `code` is not 0. Only the last of each option counts."""
    done = CliRunner().invoke(main, overridden(arguments))
    assert done.exit_code == code, done.output[-3000:]
    return done.stderr if code else done.stdout


def recipe_of(data: str) -> Recipe:
    """A recipe of three tiny epochs."""
    return Recipe(
        net="A",
        data=data,
        crop_size=32,
        width=1 / 16,
        train_scale=(32, 40),
        epochs=3,
        batch_size=4,
        statistics="training-set",
    )


class Interrupting(keras.callbacks.Callback):
    """Interrupts the training at the beginning of an epoch, counted from 0."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


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
    """A run that was never killed, with epochs of six steps."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_here("train", *TINY, "--data", data, "--epochs", EPOCHS, "--tensorboard", "--out", out)
    return out


@pytest.mark.slow
def test_killed_runs_end_with_bit_identical_weights(data, finished, tmp_path):
    """Every second kill comes shortly after an epoch, during its writes or the next epoch. The
    others come at any moment from the start of the process to the end of its first epoch."""
    out, seed = tmp_path / "killed", random.randrange(2**32)
    print("moments drawn with seed", seed)  # shown if the test fails
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
    best = [(path / "best.weights.h5").read_bytes() for path in (finished, out)]
    assert best[0] == best[1]
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


def test_a_run_folder_has_all_files(data, finished):
    # Other tests write the evaluation.
    names = {p.name for p in finished.iterdir()} - {"evaluation", "tensorboard", ".lock"}
    assert names == {
        "recipe.json",
        "statistics.json",
        "classes.json",
        "environment.json",
        "data.json",
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


def test_event_files_for_tensorboard_are_written(data, finished, tmp_path, monkeypatch):
    (file,) = (finished / "tensorboard/validation").iterdir()
    events = map(
        tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    )
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"epoch_accuracy", "epoch_cross_entropy"} <= tags
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    arguments = ("train", *TINY, "--data", data, "--epochs", 1, "--tensorboard", "--out")
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


def test_an_epoch_makes_one_iterator_of_the_validation_images(data, tmp_path, monkeypatch):
    """To make one takes as long as many steps of a small net."""
    made, make = [], tf.data.Dataset.__iter__

    def counting(dataset):
        made.append(len(dataset.element_spec))
        return make(dataset)

    recipe = Recipe(data=data, crop_size=32, width=1 / 64, train_scale=32, epochs=2, batch_size=16)
    monkeypatch.setattr(tf.data.Dataset, "__iter__", counting)
    train(recipe, tmp_path / "run", verbose=0)
    assert made.count(3) == recipe.epochs  # elements of three parts: they have weights


def test_a_finished_run_is_not_changed(data, finished):
    before = (finished / "last.weights.h5").read_bytes()
    run_here("train", *TINY, "--data", data, "--epochs", EPOCHS, "--out", finished)
    assert (finished / "last.weights.h5").read_bytes() == before


@pytest.fixture(scope="module")
def _load_each_net_once():
    with loading_once(TrainedNet):
        yield


@pytest.mark.usefixtures("_load_each_net_once")
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_evaluate_counts_each_image_once(data, finished, batch_size):
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
    (result,) = json.loads(output)["results"]
    assert result["images"] == 15
    best = min(e["val_top1_error"] for e in read_journal(finished / "journal.jsonl"))
    assert result["top1_error"] == pytest.approx(best, abs=1e-3)  # Q = 36 is the validation scale


@pytest.mark.slow
def test_a_killed_evaluation_continues(data, finished, tmp_path):
    """It is killed in its first pass. Its rows are not computed again; the results are the same."""
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
    found, log = run(*arguments, "--cache-dir", tmp_path / "killed")
    seen = [int(n) for n in re.findall(r"(\d+)/\1 images", log)]  # at the end of each pass
    assert sum(seen) == 3 * 48 - before
    (killed,) = json.loads(found)["results"]
    del killed["provenance"]
    whole = evaluate(
        TrainedNet.load(finished),
        open_source(data),
        "train",
        protocol="multi-crop",
        multi_scale=True,
    ).result()
    assert killed == rounded(whole)


@pytest.mark.slow
def test_four_devices_and_one_give_the_same_losses(data, tmp_path):
    """Training is 'exactly the same as when training on a single GPU' (§3.3), including L2."""
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
    assert one[0]["loss"] > one[0]["cross_entropy"] + 1e-3  # the loss includes weight decay
    expected, got = (arrays(tmp_path / str(n) / "best.weights.h5") for n in (1, 4))
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, atol=1e-5, err_msg=key)


@pytest.mark.slow
def test_a_run_can_start_from_layers_of_another(data, finished, tmp_path):
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


@pytest.mark.slow
def test_a_run_on_the_shapes_has_the_default_recipe(shapes_dir, tmp_path):
    run_here(
        "train",
        *TINY,
        "--data",
        "shapes",
        "--data-dir",
        shapes_dir,
        "--batch-size",
        80,
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


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_epoch_intact(data, tmp_path):
    """A limit on the size of files, below the size of the weights, simulates a full disk."""
    out = tmp_path / "run"
    run_here("train", *TINY, "--data", data, "--epochs", 1, "--out", out)
    (out / "recipe.json").write_text(
        (out / "recipe.json").read_text().replace('"epochs": 1', '"epochs": 3')
    )
    before = arrays(out / "last.weights.h5")
    _, errors = run(
        "train", *TINY, "--data", data, "--epochs", 3, "--out", out, code=1, first=limit_files
    )
    assert ".weights.h5 could not be written; what was saved before is intact" in errors
    assert "Traceback" not in errors
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
    """Files that a kill leaves before the end of the first epoch are replaced."""

    @pytest.mark.parametrize("left", [".tmp-killed", "recipe.json"])
    def test_an_unfinished_recipe_is_replaced(self, left, tmp_path):
        out = tmp_path / "run"
        out.mkdir()
        (out / left).write_text(Recipe(seed=1).to_json())
        prepare_run_folder(out, Recipe(seed=2))
        assert is_run_of(out, Recipe(seed=2))

    def test_files_of_the_replaced_recipe_are_removed(self, tmp_path):
        prepare_run_folder(tmp_path, Recipe(seed=1))
        for name in ("statistics.json", "journal.jsonl", "bad_images.json", "data.json"):
            (tmp_path / name).touch()
        prepare_run_folder(tmp_path, Recipe(seed=2))
        assert {p.name for p in tmp_path.iterdir()} == {"recipe.json", "environment.json"}

    def test_versions_are_written_if_they_are_missing(self, tmp_path):
        prepare_run_folder(tmp_path, Recipe())
        (tmp_path / "environment.json").unlink()
        prepare_run_folder(tmp_path, Recipe())
        assert (tmp_path / "environment.json").exists()

    def test_a_folder_in_use_is_not_replaced(self, data, tmp_path):
        """Neither another recipe nor a second start of the same command replaces it."""
        another, same = tmp_path / "another", tmp_path / "same"
        prepare_run_folder(another, Recipe())
        for out in (another, same):
            with lock_run(out):
                error = run_here("train", *TINY, "--data", data, "--out", out, code=1)
            assert f"Another process is training into {out}" in error
            assert not (out / "journal.jsonl").exists()
        assert is_run_of(another, Recipe())

    def test_a_run_with_a_finished_epoch_is_not_replaced(self, tmp_path):
        prepare_run_folder(tmp_path, Recipe(seed=1))
        (tmp_path / "last.weights.h5").touch()
        with pytest.raises(RunError, match="seed: 1 -> 2"):
            prepare_run_folder(tmp_path, Recipe(seed=2))

    @pytest.mark.parametrize(
        ("name", "content"), [("best.weights.h5", ""), ("journal.jsonl", '{"epoch": 1}\n')]
    )
    @pytest.mark.parametrize("seed", [1, 2])
    def test_results_without_the_last_weights_are_not_replaced(self, name, content, seed, tmp_path):
        """People remove the last weights to save space."""
        prepare_run_folder(tmp_path, Recipe(seed=1))
        (tmp_path / name).write_text(content)
        message = "seed: 1 -> 2" if seed == 2 else f"{name} of a trained net, but not last.weights"
        with pytest.raises(RunError, match=message):
            prepare_run_folder(tmp_path, Recipe(seed=seed))
        assert (tmp_path / name).read_text() == content

    def test_weights_of_no_epoch_are_replaced(self, data, tmp_path):
        """A kill in the first epoch leaves the initial weights, from which the run continues."""
        out = tmp_path / "run"
        recipe = dataclasses.replace(recipe_of(data), epochs=1)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out, callbacks=[Interrupting(epoch=0)], verbose=0)
        first = arrays(out / "last.weights.h5")
        prepare_run_folder(out, recipe)
        assert arrays(out / "last.weights.h5").keys() == first.keys()
        prepare_run_folder(out, dataclasses.replace(recipe, seed=5))
        assert not (out / "last.weights.h5").exists()

    def test_changed_classes_are_refused(self, tmp_path):
        record_classes(tmp_path, ["a", "e\u0301"])
        record_classes(tmp_path, ["a", "\xe9"])  # another Unicode form of the same name
        with pytest.raises(RunError, match=r"not those that .* was begun with"):
            record_classes(tmp_path, ["a", "b", "c"])


class TestChangedFolders:
    """What is changed while a run is trained, or before it continues, is noticed."""

    @pytest.fixture
    def own(self, tmp_path):
        return write_folder(tmp_path / "own", train=4, val=2)

    @pytest.mark.parametrize("change", ["renamed", "deleted", "replaced"])
    def test_a_folder_that_is_not_at_its_path_any_more_is_noticed(self, change, tmp_path):
        out = tmp_path / "run"
        out.mkdir()
        with watched(out) as check:
            check()
            if change == "renamed":
                out.rename(tmp_path / "elsewhere")
            else:
                out.rmdir()
            if change == "replaced":
                out.mkdir()
            with pytest.raises(RunError, match="run was renamed, replaced or deleted while"):
                check()

    def test_a_run_whose_folder_is_renamed_ends_and_continues_when_it_is_back(self, own, tmp_path):
        out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
        renamer = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: epoch == 1 and out.rename(elsewhere)
        )
        with pytest.raises(RunError, match="Move the folder back"):
            train(recipe_of(own), out, callbacks=[renamer], verbose=0)
        assert not out.exists()
        elsewhere.rename(out)
        begun = []
        callbacks = [
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch)),
            Interrupting(epoch=1),
        ]
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(own), out, callbacks=callbacks, verbose=0)
        assert begun == [1]

    @pytest.mark.parametrize("change", ["removed", "added", "written", "none"])
    def test_changes_of_images_are_told_apart(self, own, change, tmp_path):
        image = tmp_path / "own/train/red/001.jpg"

        def images():
            source = open_source(own)
            return describe_images([source["train"], source["val"]])

        assert changed_images(tmp_path, images()) == ""  # a run of an earlier version
        record_data(tmp_path, images(), ILSVRC)
        if change == "removed":
            image.unlink()
        elif change == "added":
            shutil.copy(image, image.with_name("new.jpg"))
        elif change == "written":
            shutil.copy(image.with_name("002.jpg"), image)
        expected = {
            "removed": "train: 12 images then, 11 now",
            "added": "train: 12 images then, 13 now",
            "written": "train: other files, or files of another size or time of modification",
            "none": "",
        }
        assert changed_images(tmp_path, images()) == expected[change]

    def test_changed_images_are_logged_when_a_run_continues(self, own, tmp_path, caplog):
        out = tmp_path / "run"
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(own), out, callbacks=[Interrupting(epoch=1)], verbose=0)
        statistics = (out / "statistics.json").read_bytes()
        assert "begun with" not in caplog.text
        (tmp_path / "own/train/red/001.jpg").unlink()
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(own), out, callbacks=[Interrupting(epoch=1)], verbose=0)
        assert f"not those that {out} was begun with (train: 12 images then, 11" in caplog.text
        assert (out / "statistics.json").read_bytes() == statistics

    def test_a_run_without_a_finished_epoch_has_the_statistics_of_the_images_of_now(
        self, own, tmp_path
    ):
        out = tmp_path / "run"
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                train(recipe_of(own), out, callbacks=[Interrupting(epoch=0)], verbose=0)
            (tmp_path / "own/train/red/001.jpg").unlink(missing_ok=True)
        assert json.loads((out / "statistics.json").read_text())["images"] == 11
        assert json.loads((out / "data.json").read_text())["splits"]["train"]["images"] == 11

    def test_a_changed_mean_is_refused_wherever_the_run_is_read(self, own, tmp_path, caplog):
        out, given = tmp_path / "run", tmp_path / "given.json"
        dataclasses.replace(ILSVRC, images=5).save(given)
        recipe = dataclasses.replace(recipe_of(own), statistics=str(given), epochs=1)
        train(recipe, out, verbose=0)
        changed = dataclasses.replace(ILSVRC, mean=(1.0, 2.0, 3.0))
        changed.save(given)
        train(recipe, out, verbose=0)
        assert f"{given} has changed; {out} keeps its own statistics" in caplog.text
        changed.save(out / "statistics.json")
        for read in (
            lambda: train(recipe, out),
            lambda: TrainedNet.load(out),
            lambda: weights(out),
        ):
            with pytest.raises(
                RunError, match=r"statistics\.json has changed since .*\[1.0, 2.0, 3"
            ):
                read()


class TestRefused:
    def test_missing_statistics_are_refused(self, data, tmp_path):
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

    def test_a_folder_that_cannot_be_written_is_named(self, data, tmp_path):
        (tmp_path / "file").touch()
        out = tmp_path / "file/run"
        error = run_here("train", *TINY, "--data", data, "--out", out, code=1)
        assert f"{out / 'recipe.json'} could not be written" in error

    def test_a_batch_larger_than_the_data_is_refused(self, data, tmp_path):
        error = run_here(
            "train", *TINY, "--data", data, "--batch-size", 49, "--out", tmp_path / "x", code=1
        )
        assert "the number of training images, 48. Received: --batch-size 49" in error
        assert not (tmp_path / "x").exists()

    def test_another_recipe_is_refused(self, data, finished):
        error = run_here("train", *TINY, "--data", data, "--seed", 7, "--out", finished, code=1)
        assert error == (
            f"Error: {finished} holds a run of another recipe (seed: 0 -> 7). Give the former "
            f"values to continue this run (or --resume RUN), or another folder (--out).\n"
        )

    def test_the_folder_is_checked_before_data_are_opened(self, finished, tmp_path):
        (tmp_path / "thesis.tex").write_text("x")
        for out, message in ((finished, "another recipe"), (tmp_path, "holds no run")):
            with pytest.raises(RunError, match=message):
                train(Recipe(data="folder:/nowhere"), out)

    def test_a_folder_without_a_run_is_refused(self, data, tmp_path):
        (tmp_path / "thesis.tex").write_text("x")
        assert "holds no run" in run_here("train", *TINY, "--data", data, "--out", tmp_path, code=1)

    def test_a_batch_that_devices_cannot_share_is_refused(self, data, tmp_path, monkeypatch):
        three = SimpleNamespace(count=3, is_writer=True)
        monkeypatch.setattr("vgg_keras.training.find_devices", lambda *_: three)
        error = run_here("train", *TINY, "--data", data, "--out", tmp_path / "x", code=1)
        assert "multiple of the number of devices, 3; nearest: 6 or 9" in error
        assert not (tmp_path / "x").exists()

    def test_a_warm_start_from_another_width_is_refused(self, data, finished, tmp_path):
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
        assert "; and so for 5 more layers. The weights are of a net with --width 0.0625: " in error
        assert "or --init-layers matching, which takes the layers of the same shape." in error

    def test_evaluation_of_a_folder_without_a_run_is_refused(self, data, tmp_path):
        assert "is no run and no saved net" in run_here(
            "evaluate", "--run", tmp_path, "--data", data, code=1
        )

    def test_evaluation_on_other_classes_is_refused(self, finished, tmp_path):
        spec = write_folder(tmp_path / "other", 1, 1)
        (tmp_path / "other/train/red").rename(tmp_path / "other/train/pink")
        (tmp_path / "other/val/red").rename(tmp_path / "other/val/pink")
        error = run_here("evaluate", "--run", finished, "--data", spec, code=1)
        assert "the first is 'pink'" in error
        assert "was not trained on" in error

    def test_evaluation_below_the_crop_size_is_refused(self, data, finished):
        error = run_here("evaluate", "--run", finished, "--data", data, "--test-scales", 31, code=1)
        assert "at least the crop size, 32. Received: 31" in error

    def test_a_cache_dir_that_cannot_be_written_is_refused(self, data, finished, tmp_path):
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

    def test_stop_names_the_unreadable_image(self, spoilt, tmp_path):
        spec, bad = spoilt
        arguments = ("train", *TINY, "--data", spec, "--epochs", 3, "--batch-size", 4)
        for statistics in ("training-set", "ilsvrc"):  # found before or during training
            out = tmp_path / statistics
            error = run_here(*arguments, "--statistics", statistics, "--out", out, code=1)
            assert f"This image cannot be read: {bad}" in error

    def test_skip_continues_and_lists_the_image(self, spoilt, tmp_path, caplog):
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
    def test_a_class_without_readable_images_is_named(self, split, tmp_path):
        spec = write_folder(tmp_path / "spoilt", train=4, val=2)
        for file in (tmp_path / "spoilt" / split / "green").iterdir():
            file.write_bytes(b"no image")
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
        assert f"The {split!r} split has no readable image of these classes: green" in error


class TestFromScratch:
    """Before training, a warning is logged where the paper does not start from random weights."""

    @pytest.fixture
    def log_of(self, tmp_path, caplog):
        def run(**fields):
            model = SimpleNamespace(layers=[])
            assert make_warm_start(Recipe(**fields), model, tmp_path, CLASSIFICATION) == []
            return caplog.text

        return run

    def test_a_deep_net_with_the_papers_gaussian_logs_a_warning(self, log_of):
        warning = "net D is not expected to learn from the paper's Gaussian"
        assert warning not in log_of(net="D", initialisation="glorot")
        assert warning not in log_of(net="A", initialisation="gaussian")
        assert warning in log_of(net="D", initialisation="gaussian")

    def test_a_later_stage_without_init_from_logs_a_warning(self, log_of):
        warning = "init_layers=all has no effect without init_from: the net starts from scratch"
        assert warning not in log_of(net="A")
        assert warning in log_of(net="A", init_layers="all")


def test_a_run_takes_data_that_are_open(tmp_path):
    """They must be those of the recipe."""
    others = Source("folder:others", ("a",), {})
    with pytest.raises(ArgumentError, match=r"folder:mine.*Received: folder:others"):
        train(Recipe(data="folder:mine"), tmp_path / "run", source=others)
    assert not (tmp_path / "run").exists()
