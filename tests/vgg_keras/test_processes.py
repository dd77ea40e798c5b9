"""Several processes on loopback train one net with the JAX backend and share its batches."""

from __future__ import annotations

import os
import socket
import subprocess
import time

import numpy as np
import pytest

from tests.conftest import TRAIN_TINY, write_folder
from tests.vgg_keras.test_runs import arrays, command, run_here
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.trained import TrainedNet

EPOCHS = 3
SMALL = ("--net", "B", *TRAIN_TINY, "--learning-rate", "0.01", "--epochs", EPOCHS)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Of 51 training images, 48 make six batches. Of 12 validation images, the last four make a
    batch that one process reads."""
    return write_folder(tmp_path_factory.mktemp("data"), train=17, val=4)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables for a compilation cache that all processes share, and for faster compilation."""
    return os.environ | {
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(data, out, environment, processes=1, slurm=False) -> list[subprocess.Popen]:
    """Starts the processes. Flags number them, or variables like those that SLURM sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*free.getsockname())
    arguments = command("train", *SMALL, "--data", data, "--out", out)
    started = []
    for i in range(processes):
        flags, variables = [], {}
        if slurm:  # JAX computes the port from the job id
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
    logs = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), logs[0][-3000:]
    return logs


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
    """This includes dropout, whose mask is drawn for the whole batch in every process."""
    one, two = (read_journal(path / "journal.jsonl") for path in (single, pair[0]))
    assert len(one) == len(two) == EPOCHS
    assert one[0]["loss"] != one[1]["loss"]
    for a, b in zip(one, two, strict=True):
        for key in set(a) - {"images_per_second", "seconds"}:
            assert b[key] == pytest.approx(a[key], rel=1e-5), key
    expected, got = (arrays(path / "last.weights.h5") for path in (single, pair[0]))
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_only_the_first_process_writes_and_shows_progress(single, pair):
    out, (first, second) = pair
    assert {p.name for p in out.iterdir()} == {p.name for p in single.iterdir()}
    assert f"epoch {EPOCHS}/{EPOCHS}" in first
    assert "epoch" not in second


def test_tensorflow_evaluates_the_run(data, pair):
    """The run folder does not depend on the backend that wrote it."""
    from vgg_keras.pipelines.sources import open_source

    run = TrainedNet.load(pair[0])
    found = evaluate(run, open_source(data), protocol="centre", test_scales=(36,)).result()
    best = min(entry["val_top1_error"] for entry in read_journal(pair[0] / "journal.jsonl"))
    assert found["top1_error"] == pytest.approx(best, abs=1e-3)


def test_jax_evaluates_the_run_on_several_devices(data, environment, pair, tmp_path):
    """Twelve images in batches of ten: the last batch is filled up."""
    options = ("--protocol", "dense", "--test-scales", "40", "--batch-size", "5", "--no-flip")
    found = {}
    for devices in (1, 2):
        out = tmp_path / f"{devices}.parquet"
        arguments = ("--run", pair[0], "--data", data, "--cache-dir", "", "--out", out)
        used = ("--devices", devices)
        subprocess.run(
            command("evaluate", *arguments, *options, *used), env=environment, check=True
        )
        found[devices] = Predictions.load(out).posteriors
    run_here("evaluate", *arguments, *options)
    np.testing.assert_allclose(found[1], found[2], atol=1e-6)
    np.testing.assert_allclose(found[1], Predictions.load(out).posteriors, atol=1e-5)


def test_killed_and_restarted_processes_end_with_the_same_weights(
    data, environment, pair, tmp_path
):
    """The first process, which writes and coordinates, is killed, then the second one. The last
    start is as by SLURM."""
    out = tmp_path / "killed"
    for victim in (0, 1):
        done = len(read_journal(out / "journal.jsonl"))
        processes = start(data, out, environment, 2)
        while len(read_journal(out / "journal.jsonl")) == done:
            assert all(p.poll() is None for p in processes), processes[0].communicate()[1][-3000:]
            time.sleep(0.01)
        processes[victim].kill()
        time.sleep(1)
        for process in processes:  # a scheduler would end the survivor before it starts them again
            process.kill()
            process.communicate()
    finish(start(data, out, environment, 2, slurm=True))
    expected, got = (arrays(path / "last.weights.h5") for path in (pair[0], out))
    assert expected.keys() == got.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


class TestRefused:
    def test_several_processes_on_tensorflow_are_refused(self, data, tmp_path):
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
    def test_incomplete_flags_are_refused(self, given, message, data, tmp_path):
        out = tmp_path / "x"
        error = run_here("train", *SMALL, "--data", data, "--out", out, *given, code=1)
        assert message in error
