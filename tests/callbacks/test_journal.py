"""The journal and the progress of training."""

from __future__ import annotations

import io
import re
import time

import numpy as np
import pytest
from rich.console import Console

from tests.callbacks.small import data, small_model
from vgg_keras.callbacks import (
    Journal,
    Progress,
    read_journal,
)
from vgg_keras.callbacks.journal import as_errors
from vgg_keras.callbacks.timing import EpochTimer


class TestJournal:
    def test_each_epoch_has_an_entry(self, tmp_path):
        x, y = data()
        model = small_model()
        model.fit(
            x,
            y,
            validation_data=(x, y),
            epochs=2,
            verbose=0,
            callbacks=[Journal(tmp_path / "j.jsonl", 32)],
        )
        entries = read_journal(tmp_path / "j.jsonl")
        assert [e["epoch"] for e in entries] == [1, 2]
        keys = {
            "loss",
            "top1_error",
            "val_loss",
            "val_top1_error",
            "learning_rate",
            "trainable_parameters",
            "images_per_second",
            "seconds",
            "epoch",
        }
        assert set(entries[0]) == keys
        assert entries[1]["trainable_parameters"] == model.count_params()
        accuracy = model.evaluate(x, y, verbose=0)[1]
        assert entries[1]["val_top1_error"] == pytest.approx(100 * (1 - accuracy), abs=1e-3)

    def test_excluded_keys_are_missing_and_nan_is_null(self, tmp_path):
        journal = Journal(tmp_path / "j.jsonl", 1, exclude=("val_loss",))
        journal.set_model(small_model())
        journal.on_epoch_begin(0)
        journal.on_epoch_end(0, {"loss": float("nan"), "val_loss": 1.0})
        (entry,) = read_journal(tmp_path / "j.jsonl")
        assert entry["loss"] is None
        assert "val_loss" not in entry

    def test_an_epoch_trained_again_replaces_its_entry(self, tmp_path):
        journal = Journal(tmp_path / "j.jsonl", 1)
        journal.set_model(small_model())
        for epoch in (0, 1, 2, 1):
            journal.on_epoch_begin(epoch)
            journal.on_epoch_end(epoch, {"loss": float(epoch)})
        assert [e["epoch"] for e in read_journal(tmp_path / "j.jsonl")] == [1, 2]

    def test_an_incomplete_line_is_ignored(self, tmp_path):
        (tmp_path / "j.jsonl").write_text('{"epoch": 1}\n{"epo')
        assert read_journal(tmp_path / "j.jsonl") == [{"epoch": 1}]
        assert read_journal(tmp_path / "none.jsonl") == []

    def test_accuracies_become_errors_in_percent(self):
        logs = {"accuracy": 0.25, "val_top5_accuracy": 0.9, "loss": 2.0}
        assert as_errors(logs) == {"top1_error": 75.0, "val_top5_error": 10.0, "loss": 2.0}

    def test_values_that_are_not_single_numbers_are_ignored(self):
        logs = {"f1": np.array([0.5, 0.2]), "note": "warm", "loss": np.float32(2)}
        assert as_errors(logs) == {"loss": 2.0}


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_prints_every_epoch_and_the_time_left(terminal):
    stream = io.StringIO()
    x, y = data()
    console = Console(file=stream, force_terminal=terminal, width=100)
    progress = Progress(steps_per_epoch=4, images_per_epoch=32, console=console)
    small_model().fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[progress])
    lines = [line for line in stream.getvalue().splitlines() if "epoch" in line]
    assert len(lines) == 3
    assert "epoch 3/3" in lines[-1]
    assert "left 0:00" in lines[-1]
    assert ("\x1b[" in stream.getvalue()) == terminal


def test_an_epoch_line_shows_errors_instead_of_accuracies():
    stream = io.StringIO()
    progress = Progress(4, 32, Console(file=stream, width=200))
    progress.set_params({"epochs": 9})
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    logs = {"accuracy": 0.705, "val_accuracy": 0.699, "val_top5_accuracy": 0.948}
    progress.on_epoch_end(0, logs | {"loss": 2.0, "box_accuracy": 0.6, "val_box_accuracy": 0.5})
    line = stream.getvalue()
    assert "loss 2.000  top-1 error 29.5 %  val top-1 error 30.1 %  val top-5 error 5.2 %" in line
    assert "localisation error 40.0 %  val localisation error 50.0 %" in line


def test_progress_starts_again_in_a_second_fit():
    stream = io.StringIO()
    x, y = data()
    console = Console(file=stream, force_terminal=True, width=100)
    progress = Progress(steps_per_epoch=4, images_per_epoch=32, console=console)
    model, options = small_model(), {"batch_size": 8, "verbose": 0, "callbacks": [progress]}
    model.fit(x, y, epochs=2, **options)
    stream.truncate(0)
    model.fit(x, y, epochs=5, initial_epoch=2, **options)
    assert "/12" in stream.getvalue()  # steps of the progress bar: three epochs of four steps


def test_images_per_second_exclude_validation():
    timer = EpochTimer(images_per_epoch=1000)
    timer.on_epoch_begin(0)
    timer.on_test_begin()
    rate = timer.images_per_second
    time.sleep(0.02)
    assert timer.images_per_second == rate
    assert timer.epoch_seconds >= 0.02


@pytest.mark.parametrize(("terminal", "heartbeat", "beats"), [(0, 0, 6), (0, 60, 0), (1, 0, 0)])
def test_long_epochs_have_lines_where_there_is_no_terminal(terminal, heartbeat, beats):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=bool(terminal), width=200)
    progress = Progress(4, 32, console, heartbeat)
    progress.set_params({"epochs": 1})
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    for step in range(4):
        progress.on_train_batch_end(step, {"loss": 2.0})
    for step in range(2):
        progress.on_test_batch_end(step)
    progress.close()
    lines = stream.getvalue().splitlines()
    found = [line for line in lines if re.search(r"step \d", line)]
    assert len(found) == beats
    if beats:
        assert re.fullmatch(
            r"epoch 1/1  step 2/4  loss 2\.000  \d+ images/s  left in the epoch 0:\d\d", found[1]
        )
        assert found[4:] == [f"epoch 1/1  validation, step {step}" for step in (1, 2)]
