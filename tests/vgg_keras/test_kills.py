"""Commands killed at each of their file operations, and started again."""

from __future__ import annotations

import functools
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import CLASSES, write_folder
from tests.faults import FaultyDisk
from tests.tiny import lively, tiny_run
from tests.vgg_keras.test_runs import run_here
from vgg_keras.callbacks.checkpoint import Progressed
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.commands import evaluation
from vgg_keras.errors import UserError
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.rows import RowFiller
from vgg_keras.features.extractor import FeatureExtractor
from vgg_keras.features.table import Features
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.saved_models import export as saved
from vgg_keras.sweeps import trials
from vgg_keras.sweeps.results import read_trials
from vgg_keras.trained import TrainedNet
from vgg_keras.weights import read

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"), train=2, val=2)


@pytest.fixture
def work(tmp_path):
    """A folder with a tiny run."""
    tiny_run(tmp_path / "work/run", CLASSES)
    return tmp_path / "work"


def files(folder: Path) -> dict[str, bytes]:
    """Contents of the files that a user sees."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def kill_everywhere(work, command, contents, result=files, least=5):
    """Kills a command at each of its operations, and checks what is left and what becomes of it.

    Args:
        work: folder below which the command writes. Its state now is that before each kill.
        command: runs the command.
        contents: reads what the command writes. After a kill it gives what it gave before the
            command or gives after it, or it raises a UserError.
        result: what must be the same after a kill and another run.
        least: number of operations that the command has at least.
    """

    def seen():
        try:
            return contents()
        except UserError:
            return None

    before, start, disk = seen(), work.with_name("start"), FaultyDisk(work)
    shutil.copytree(work, start)
    with disk.killing(None):
        command()
    operations, after, expected = disk.log, contents(), result(work)
    assert len(operations) >= least, operations
    for number in range(1, len(operations) + 1):
        shutil.rmtree(work)
        shutil.copytree(start, work)
        with disk.killing(number):
            command()
        assert disk.killed, (number, operations)
        left = seen()
        assert left is None or left in (before, after), operations[:number]
        command()
        assert contents() == after, operations[:number]
        assert result(work) == expected, operations[:number]


def table(kind, file):
    """A file of predictions or features as something to compare; a missing one is refused."""
    found = kind.load(file)
    rows = found.posteriors if kind is Predictions else found.values
    return rows.tobytes(), list(found.names), json.dumps(found.metadata, sort_keys=True)


@pytest.fixture
def loaded_once(monkeypatch):
    """Nets are loaded, and their functions traced, once for all kills."""
    for kind in (TrainedNet, FeatureExtractor):
        load = functools.cache(kind.load)
        monkeypatch.setattr(
            kind, "load", lambda where, *a, load=load, **k: load(str(where), *a, **_hashable(k))
        )


def _hashable(options):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


@pytest.fixture
def rows_once(monkeypatch):
    """The rows of images are computed once for all kills. Clear the dictionary for other rows."""
    known, compute = {}, RowFiller._computed

    def computed(self, one, wanted, meter):
        rows = known.setdefault((self.split.name, one.views, one.test_scale), {})
        indices = np.flatnonzero(wanted)
        if not set(indices.tolist()) <= set(rows):
            for found, values in compute(self, one, wanted, meter):
                rows.update(zip(found.tolist(), values, strict=True))
        for batch in np.array_split(indices, 2):
            if len(batch):
                yield batch, np.stack([rows[index] for index in batch.tolist()])

    monkeypatch.setattr(RowFiller, "_computed", computed)
    return known


def test_evaluate(work, data, loaded_once, rows_once, monkeypatch):
    monkeypatch.setattr(evaluation, "provenance", lambda *_: {"provenance": {}})  # it has the time
    out = work / "d.parquet"
    command = ("evaluate", "--run", work / "run", "--data", data, "--test-scales", 32, "--out", out)
    run_here(*command, "--protocol", "centre")  # another result, which is replaced
    rows_once.clear()
    kill_everywhere(work, lambda: run_here(*command), lambda: table(Predictions, out))


@pytest.mark.parametrize("ending", [".parquet", ".npy"])
def test_features(work, data, ending, loaded_once, rows_once):
    out = work / f"d{ending}"
    command = ("features", "--run", work / "run", "--data", data, "--out", out, "--test-scales", 32)
    run_here(*command, "--layer", "block5_pool")
    rows_once.clear()
    kill_everywhere(work, lambda: run_here(*command), lambda: table(Features, out))


@pytest.mark.parametrize("ending", [".npz", ".weights.h5", ".safetensors"])
def test_convert(work, ending):
    out = work / f"a{ending}"
    command = ("convert", work / "run", out)
    run_here(*command)
    lively(seed=5, num_classes=3).save_weights(work / "run/best.weights.h5")

    def contents():
        return [array.tobytes() for arrays in read(out).layers.values() for array in arrays]

    # The order of the metadata in a .safetensors file is random, so values are compared.
    kill_everywhere(work, lambda: run_here(*command), contents, lambda _: contents())


def test_export(work, monkeypatch):
    """TensorFlow's SavedModel is written once, and then copied file by file."""
    folder, ready = work / "exports/net", work.with_name("ready")
    write_model, write_version, given = saved._write_model, saved.write_version, {}

    def write(path, *arguments):
        if not ready.exists():
            write_model(ready, *arguments)
        shutil.copytree(ready, path)

    def record(out, endpoints, **options):
        given.update(options, endpoints=endpoints)
        return write_version(out, endpoints, **options)

    monkeypatch.setattr(saved, "_write_model", write)
    module = importlib.import_module("vgg_keras.serving.export")
    monkeypatch.setattr(module, "write_version", record)
    run_here("export", "--run", work / "run", "--out", folder, "--test-scales", 32)
    for file in folder.glob("*.config"):  # they are written again
        file.unlink()

    def contents():
        return [files(folder / str(version)) for version in saved.versions(folder)]

    def command():
        # After a kill when the version was in place, the command makes another one.
        write_version(folder, **given)
        for version in saved.versions(folder)[2:]:
            shutil.rmtree(folder / str(version))

    kill_everywhere(work, command, contents, least=10)


@pytest.mark.parametrize("tuner", ["grid", "random"])
def test_sweep(work, data, monkeypatch, tuner):
    """Training is replaced by journals like those of a run."""
    out, errors = work / "sweep", {"A": 30.0, "B": 20.0}

    def train(recipe, path, _):
        error = errors[recipe.net]
        line = {"epoch": 1, "val_top1_error": error, "val_top5_error": error / 2, "seconds": 1.0}
        atomic_write(path / "journal.jsonl", json.dumps(line) + "\n")
        return ""

    monkeypatch.setattr(trials, "train_in_process", train)
    monkeypatch.setattr(
        trials,
        "read_progress",
        lambda path: Progressed(len(read_journal(path / "journal.jsonl")), False),
    )
    command = ("sweep", "--data", data, "--nets", "A,B", "--train-scales", 32, "--widths", 0.0625)
    command += ("--crop-size", 32, "--budget-epochs", 1, "--tuner", tuner, "--out", out)

    def rows():
        return [row for row in read_trials(out) if row["status"] == "COMPLETED"]

    def whole():
        """The finished trials are ranked by their own errors, and those after a kill are fewer."""
        assert all(row["error"] == errors[row["net"]] / 2 for row in rows())

    kill_everywhere(work, lambda: run_here(*command), whole, lambda _: rows(), least=20)
