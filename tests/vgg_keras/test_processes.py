"""Several processes on loopback under the JAX backend: one net, the batches of one process."""

from __future__ import annotations

import os
import socket
import subprocess
import time

import numpy as np
import pytest

from tests.conftest import write_folder
from tests.vgg_keras.test_runs import arrays, command, run_here
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.distribution import make_strategy
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.trained import TrainedNet

EPOCHS = 3
SMALL = (
    "--net",
    "B",
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
    "0.01",
    "--statistics",
    "training-set",
    "--epochs",
    EPOCHS,
)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Of 51 pictures 48 make six batches; of 12 to validate the last four are for one process."""
    return write_folder(tmp_path_factory.mktemp("data"), train=17, val=4)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Compiled once for all processes, and without XLA's longer optimisations."""
    return os.environ | {
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(data, out, environment, processes=1, slurm=False) -> list[subprocess.Popen]:
    """The processes, told who they are by flags, or by variables as SLURM sets them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*free.getsockname())
    arguments = command("train", *SMALL, "--data", data, "--out", out)
    started = []
    for i in range(processes):
        flags, variables = [], {}
        if slurm:  # JAX makes the port of the job's number
            flags = ["--coordinator", "auto"]
            variables = {
                "SLURM_JOB_ID": str(os.getpid()),
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": str(processes),
                "SLURM_PROCID": str(i),
                "SLURM_STEP_NUM_TASKS": str(processes),
                "SLURM_LOCALID": str(i),
                "SLURM_JOB_NUM_NODES": "1",
            }
        elif processes > 1:
            flags = ["--processes", str(processes), "--process-id", str(i)]
            flags += ["--coordinator", address]
        started.append(
            subprocess.Popen(
                [*arguments, *flags], env=environment | variables, stderr=subprocess.PIPE, text=True
            )
        )
    return started


def finish(processes: list[subprocess.Popen]) -> list[str]:
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said[0][-3000:]
    return said


@pytest.fixture(scope="module")
def single(data, environment, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    finish(start(data, out, environment))
    return out


@pytest.fixture(scope="module")
def pair(data, environment, single, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "two"
    return out, finish(start(data, out, environment, 2))


def test_two_processes_give_the_losses_of_one(single, pair):
    """Dropout included: its mask is of the whole batch, whoever computes it."""
    one, two = (read_journal(path / "journal.jsonl") for path in (single, pair[0]))
    assert len(one) == len(two) == EPOCHS
    assert one[0]["loss"] != one[1]["loss"]
    for a, b in zip(one, two, strict=True):
        for key in set(a) - {"images_per_second", "seconds"}:
            assert b[key] == pytest.approx(a[key], rel=1e-5), key
    expected, got = (arrays(path / "last.weights.h5") for path in (single, pair[0]))
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_one_of_them_writes_and_shows_progress(single, pair):
    out, (first, second) = pair
    assert {p.name for p in out.iterdir()} == {p.name for p in single.iterdir()}
    assert f"epoch {EPOCHS}/{EPOCHS}" in first
    assert "epoch" not in second


def test_tensorflow_goes_on_from_the_run(data, pair):
    """The folder is the same whichever backend wrote it: evaluation here, and more epochs."""
    from vgg_keras.pipelines.sources import open_source

    run = TrainedNet.load(pair[0])
    found = evaluate(run, open_source(data), protocol="centre", test_scales=(36,)).result()
    best = min(entry["val_top1_error"] for entry in read_journal(pair[0] / "journal.jsonl"))
    assert found["top1_error"] == pytest.approx(best, abs=1e-3)


def test_killed_and_started_again_they_end_with_the_same_weights(data, environment, pair, tmp_path):
    """First the one that writes and coordinates, then the other; at last as SLURM starts them."""
    out = tmp_path / "killed"
    for victim in (0, 1):
        done = len(read_journal(out / "journal.jsonl"))
        processes = start(data, out, environment, 2)
        while len(read_journal(out / "journal.jsonl")) == done:
            assert all(p.poll() is None for p in processes), processes[0].communicate()[1][-3000:]
            time.sleep(0.01)
        processes[victim].kill()
        time.sleep(1)
        for process in processes:  # what starts them again ends the survivor first
            process.kill()
            process.communicate()
    finish(start(data, out, environment, 2, slurm=True))
    expected, got = (arrays(path / "last.weights.h5") for path in (pair[0], out))
    assert expected.keys() == got.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


class TestRefused:
    def test_processes_on_tensorflow(self, data, tmp_path):
        error = run_here(
            "train",
            *SMALL,
            "--data",
            data,
            "--out",
            tmp_path / "x",
            "--processes",
            2,
            "--process-id",
            0,
            "--coordinator",
            "localhost:1234",
            code=1,
        )
        assert "set KERAS_BACKEND=jax for each of them" in error
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (("--processes", 2), "need --coordinator HOST:PORT"),
            (("--processes", 2, "--coordinator", "localhost:1"), "--process-id must be given"),
            (("--processes", 2, "--process-id", 2, "--coordinator", "h:1"), "from 0 to processes"),
            (("--coordinator", "localhost"), "HOST:PORT of process 0, or auto"),
        ],
    )
    def test_flags_that_do_not_go_together(self, given, message, data, tmp_path):
        out = tmp_path / "x"
        error = run_here("train", *SMALL, "--data", data, "--out", out, *given, code=1)
        assert message in error

    def test_evaluating_under_jax(self, monkeypatch):
        monkeypatch.setattr("keras.backend.backend", lambda: "jax")
        with pytest.raises(ValueError, match="leave the environment variable KERAS_BACKEND"):
            make_strategy()
