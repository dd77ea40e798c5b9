from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from rich.console import Console

from vgg_keras import callbacks
from vgg_keras.callbacks import (
    Checkpoint,
    Journal,
    PlateauDecay,
    Progress,
    WarmStart,
    read_journal,
    read_layers,
)
from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.callbacks.errors import CheckpointError, WarmStartError
from vgg_keras.callbacks.journal import as_errors
from vgg_keras.callbacks.timing import EpochTimer
from vgg_keras.pipelines.errors import ArgumentError, WriteError


def test_importing_the_package_does_not_import_keras():
    code = (
        "import sys, vgg_keras.callbacks.file_names; from vgg_keras import callbacks; "
        "print(dir(callbacks), {'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = ["Checkpoint", "Journal", "PlateauDecay", "Progress", "WarmStart"]
    assert done.stdout.strip() == f"{[*names, 'read_journal', 'read_layers']} set()"


def test_every_public_name_can_be_loaded():
    for name in callbacks.__all__:
        assert callable(getattr(callbacks, name))


def small_model(units=4, seed=0, dropout=0.5):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(units, name="hidden"),
            keras.layers.Dropout(dropout, seed=1, name="drop"),
            keras.layers.Dense(2, name="out"),
        ],
        name="small",
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def data(n=32):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype("float32")
    return x, (x.sum(1) > 0).astype("int64")


class TestPlateauDecay:
    def follow(self, values, callback=None, **options):
        """Feeds accuracies; returns the rate after each epoch and when training ended."""
        callback = callback or PlateauDecay(**options)
        model = small_model()
        callback.set_model(model)
        model.stop_training = False
        rates = []
        for epoch, value in enumerate(values):
            callback.on_epoch_end(epoch, {"val_accuracy": value})
            rates.append(float(model.optimizer.learning_rate.numpy()))
            if model.stop_training:
                break
        return rates, callback

    def test_drops_thrice_then_stops(self):
        rates, callback = self.follow([0.5] * 50, patience=2, drops=3)
        np.testing.assert_allclose(
            rates, [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4], rtol=1e-5
        )
        assert callback.drops_done == 3
        assert callback.model.stop_training

    def test_improvement_resets_the_wait(self):
        rates, _ = self.follow([0.1, 0.1, 0.2, 0.2, 0.3, 0.3], patience=2)
        np.testing.assert_allclose(rates, [0.1] * 6)

    def test_min_delta_and_mode(self):
        rates, _ = self.follow([0.1, 0.105, 0.109], patience=2, min_delta=0.02)
        assert rates[-1] == pytest.approx(0.01)
        rates, _ = self.follow([3.0, 2.0, 1.0], patience=1, mode="min")
        assert rates[-1] == pytest.approx(0.1)

    def test_no_drops_means_stop_on_the_first_plateau(self):
        rates, callback = self.follow([0.5] * 9, patience=3, drops=0)
        assert len(rates) == 4
        assert callback.model.stop_training

    def test_state_is_carried_over(self):
        values = [0.5, 0.4, 0.4, 0.6, 0.5, 0.5]
        _, whole = self.follow(values, patience=2)
        _, first = self.follow(values[:2], patience=2)
        second = PlateauDecay(patience=2)
        second.set_state(json.loads(json.dumps(first.get_state())))
        self.follow(values[2:], second)
        assert second.get_state() == whole.get_state()

    def test_config_builds_it_again(self):
        config = PlateauDecay(patience=7, mode="min").get_config()
        assert PlateauDecay(**config).get_config() == config

    @pytest.mark.parametrize("bad", [{"factor": 1}, {"patience": 0}, {"drops": -1}, {"mode": "up"}])
    def test_bad_arguments(self, bad):
        with pytest.raises(ArgumentError, match="Received: ") as error:
            PlateauDecay(**bad)
        assert error.value.argument == next(iter(bad))


class TestMonitorThatIsMissing:
    def fit(self, *callbacks, validation_freq=2, epochs=5):
        x, y = data()
        model = small_model()
        model.optimizer.learning_rate = 0.0  # no validated epoch is better than the first
        model.fit(
            x,
            y,
            validation_data=(x, y),
            validation_freq=validation_freq,
            epochs=epochs,
            verbose=0,
            callbacks=list(callbacks),
        )
        return model

    def test_in_some_epochs(self, tmp_path):
        """Two of five epochs are validated; the others are neither a plateau nor compared."""
        epochs_of_best, progress = [], io.StringIO()

        class Watch(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                assert read_progress(tmp_path).epochs == epoch + 1
                if (tmp_path / "best.weights.h5").exists():
                    epochs_of_best.append((tmp_path / "best.weights.h5").stat().st_mtime_ns)

        plateau = PlateauDecay(patience=3)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            self.fit(
                plateau,
                Journal(tmp_path / "j.jsonl", 32),
                Progress(1, 32, Console(file=progress, width=200)),
                Checkpoint(tmp_path),
                Watch(),
            )
        assert (plateau.wait, plateau.drops_done) == (1, 0)
        assert plateau.best is not None
        assert len(epochs_of_best) == 4  # written in epoch 2, and not again
        assert len(set(epochs_of_best)) == 1
        validated = ["val_top1_error" in entry for entry in read_journal(tmp_path / "j.jsonl")]
        assert validated == [False, True, False, True, False]
        lines = progress.getvalue().splitlines()
        assert ["val top-1 error" in line for line in lines] == validated

    def test_in_all_epochs(self, tmp_path):
        plateau = PlateauDecay("val_acuracy")
        with pytest.warns(UserWarning, match="val_acuracy") as found:
            self.fit(plateau, Checkpoint(tmp_path, monitor="val_acuracy"), epochs=2)
        texts = [str(w.message) for w in found if "val_acuracy" in str(w.message)]
        assert [text.split()[0] for text in texts] == ["PlateauDecay", "Checkpoint"]
        for text in texts:
            assert "Available metrics are: accuracy, loss, val_accuracy, val_loss" in text
        assert (plateau.wait, plateau.drops_done) == (0, 0)
        assert [p.name for p in tmp_path.iterdir()] == ["last.weights.h5"]
        assert read_progress(tmp_path) == (2, False)


class TestWarmStart:
    def test_from_a_model_a_file_and_a_folder(self, tmp_path):
        source = small_model(seed=1)
        source.save_weights(tmp_path / "best.weights.h5")
        for given in (source, tmp_path / "best.weights.h5", str(tmp_path)):
            target = small_model(seed=2)
            out_before = target.get_layer("out").get_weights()[0]
            assert WarmStart(given, ["hidden"]).apply(target) == ["hidden"]
            np.testing.assert_array_equal(
                target.get_layer("hidden").get_weights()[0],
                source.get_layer("hidden").get_weights()[0],
            )
            np.testing.assert_array_equal(target.get_layer("out").get_weights()[0], out_before)

    def test_all_layers(self):
        source, target = small_model(seed=1), small_model(seed=2)
        assert WarmStart(source).apply(target) == ["hidden", "out"]
        for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_all_or_nothing(self):
        target = small_model(units=5)
        before = target.get_weights()
        with pytest.raises(
            WarmStartError, match=r"hidden has shapes \[\(3, 4\), \(4,\)\], the model's"
        ):
            WarmStart(small_model(), ["out", "hidden"]).apply(target)
        for a, b in zip(before, target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_missing_layers_are_named(self):
        message = r"fc9 is missing in the source \(its layers: hidden, out\)"
        with pytest.raises(WarmStartError, match=message):
            WarmStart(small_model(), ["fc9"]).apply(small_model())

    def test_in_fit_only_before_the_first_step(self):
        x, y = data()
        source, target = small_model(seed=1), small_model(seed=2)
        target.optimizer.learning_rate = 0.0
        target.fit(x, y, epochs=1, verbose=0, callbacks=[WarmStart(source, ["hidden"])])
        np.testing.assert_array_equal(target.get_weights()[0], source.get_weights()[0])
        other = small_model(seed=3)
        target.fit(x, y, epochs=1, verbose=0, callbacks=[WarmStart(other, ["hidden"])])
        np.testing.assert_array_equal(target.get_weights()[0], source.get_weights()[0])

    def test_logs_what_it_copied(self, caplog):
        with caplog.at_level("INFO"):
            WarmStart(small_model(), ["hidden"]).apply(small_model())
        assert "started from small: hidden" in caplog.text

    def test_no_file(self, tmp_path):
        with pytest.raises(WarmStartError, match="nowhere does not exist"):
            read_layers(tmp_path / "nowhere")

    def test_other_file(self, tmp_path):
        (tmp_path / "x.weights.h5").write_text("no")
        with pytest.raises(WarmStartError, match=r"x\.weights\.h5 is not a Keras"):
            read_layers(tmp_path / "x.weights.h5")
        with h5py.File(tmp_path / "y.weights.h5", "w") as file:
            file["other"] = 1
        with pytest.raises(WarmStartError, match=r"y\.weights\.h5 is not a Keras"):
            read_layers(tmp_path / "y.weights.h5")


class TestCheckpoint:
    def fit(self, folder, epochs, model=None):
        x, y = data()
        model = model or small_model()
        plateau = PlateauDecay(monitor="accuracy", patience=1, drops=9)
        checkpoint = Checkpoint(folder, {"plateau": plateau}, monitor="accuracy")
        done = checkpoint.restore(model)
        model.fit(
            x,
            y,
            batch_size=8,
            shuffle=False,
            epochs=epochs,
            verbose=0,
            initial_epoch=done.epochs,
            callbacks=[plateau, checkpoint],
        )
        return model, plateau, done

    def test_an_interrupted_run_continues_as_if_it_had_not_been(self, tmp_path):
        """Weights, momentum, learning rate, dropout masks and the plateau state are restored."""
        whole, plateau_whole, _ = self.fit(tmp_path / "whole", 6)
        self.fit(tmp_path / "parts", 2)
        _, _, done = self.fit(tmp_path / "parts", 5)
        assert done == (2, False)
        parts, plateau_parts, _ = self.fit(tmp_path / "parts", 6, small_model(seed=9))
        assert plateau_parts.get_state() == plateau_whole.get_state()
        assert plateau_whole.drops_done > 0
        for a, b in zip(whole.variables, parts.variables, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(whole.optimizer.variables, parts.optimizer.variables, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_best_is_kept(self, tmp_path):
        model = small_model()
        checkpoint = Checkpoint(tmp_path)
        checkpoint.set_model(model)
        model.stop_training = False
        kept = []
        for epoch, value in enumerate((0.3, 0.5, 0.4)):
            model.set_weights([np.full(w.shape, epoch, "float32") for w in model.get_weights()])
            checkpoint.on_epoch_end(epoch, {"val_accuracy": value})
            kept.append(read_layers(tmp_path)["out"][0][0, 0])
        assert kept == [0, 1, 1]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["best.weights.h5", "last.weights.h5"]
        other = small_model(seed=5)
        other.load_weights(tmp_path / "best.weights.h5")
        assert {float(w.min()) for w in other.get_weights()} == {1.0}

    def test_nothing_saved(self, tmp_path):
        assert Checkpoint(tmp_path).restore(small_model()) == (0, False)

    def test_end_of_training_is_saved(self, tmp_path):
        model = small_model()
        checkpoint = Checkpoint(tmp_path)
        checkpoint.set_model(model)
        model.stop_training = True
        checkpoint.on_epoch_end(4, {"val_accuracy": 1})
        assert Checkpoint(tmp_path).restore(small_model()) == (5, True)

    def test_broken_file_is_named(self, tmp_path):
        (tmp_path / "last.weights.h5").write_bytes(b"half a file")
        with pytest.raises(CheckpointError, match=r"last\.weights\.h5 cannot be restored"):
            Checkpoint(tmp_path).restore(small_model())

    def test_a_failed_write_leaves_the_old_files_intact(self, tmp_path, monkeypatch):
        self.fit(tmp_path, 1)
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

        def full_disk(self, path, **_):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(keras.Model, "save_weights", full_disk)
        with pytest.raises(WriteError, match="No space left"):
            self.fit(tmp_path, 2)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before

    def test_seeds_of_nested_layers_are_saved(self, tmp_path):
        """The dropout of a model within a model draws the same masks after a restart."""

        def nested():
            model = keras.Sequential([keras.layers.Input((3,)), small_model(seed=3)])
            model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
            return model

        whole, _, _ = self.fit(tmp_path / "whole", 3, nested())
        self.fit(tmp_path / "parts", 1, nested())
        parts, _, _ = self.fit(tmp_path / "parts", 3, nested())
        for a, b in zip(whole.variables, parts.variables, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_a_subclassed_model(self, tmp_path):
        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.out = keras.layers.Dense(2)

            def call(self, x):
                return self.out(x)

        def own():
            model = Own()
            model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
            model(np.zeros((1, 3), "float32"))
            return model

        model, _, _ = self.fit(tmp_path, 2, own())
        restored = own()
        assert Checkpoint(tmp_path).restore(restored) == (2, False)
        np.testing.assert_array_equal(model.get_weights()[0], restored.get_weights()[0])

    def test_with_callbacks_of_keras(self, tmp_path):
        """`EarlyStopping` ends training, and the checkpoint knows it."""
        x, y = data()
        model = small_model()
        model.optimizer.learning_rate = 0.0
        others = [
            keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9.0),
            keras.callbacks.ReduceLROnPlateau("loss"),
            keras.callbacks.ModelCheckpoint(tmp_path / "own.keras", monitor="val_accuracy"),
        ]
        model.fit(
            x,
            y,
            validation_split=0.5,
            epochs=9,
            verbose=0,
            callbacks=[*others, Journal(tmp_path / "j.jsonl", 16), Checkpoint(tmp_path)],
        )
        assert read_progress(tmp_path) == (2, True)
        assert len(read_journal(tmp_path / "j.jsonl")) == 2


class TestJournal:
    def test_entries(self, tmp_path):
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
            "images_per_second",
            "seconds",
            "epoch",
        }
        assert set(entries[0]) == keys
        accuracy = model.evaluate(x, y, verbose=0)[1]
        assert entries[1]["val_top1_error"] == pytest.approx(100 * (1 - accuracy), abs=1e-3)

    def test_excluded_entries_and_nan(self, tmp_path):
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

    def test_errors_in_percent(self):
        logs = {"accuracy": 0.25, "val_top5_accuracy": 0.9, "loss": 2.0}
        assert as_errors(logs) == {"top1_error": 75.0, "val_top5_error": 10.0, "loss": 2.0}

    def test_what_is_not_a_single_number_is_ignored(self):
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


def test_an_epoch_line_says_error():
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
    assert "/12" in stream.getvalue()  # the bar's steps: three epochs of four


def test_images_per_second_exclude_validation():
    timer = EpochTimer(images_per_epoch=1000)
    timer.on_epoch_begin(0)
    timer.on_test_begin()
    rate = timer.images_per_second
    time.sleep(0.02)
    assert timer.images_per_second == rate
    assert timer.epoch_seconds >= 0.02
