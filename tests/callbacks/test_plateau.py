"""Decay of the learning rate, and a monitored value that is missing in the logs."""

from __future__ import annotations

import io
import json
import warnings

import keras
import numpy as np
import pytest
from rich.console import Console

from tests.callbacks.small import data, small_model
from vgg_keras.callbacks import (
    Checkpoint,
    Journal,
    PlateauDecay,
    Progress,
    read_journal,
)
from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.pipelines.errors import ArgumentError


class TestPlateauDecay:
    def follow(self, values, callback=None, **options):
        """Passes accuracies to a callback; returns the rate after each epoch and the callback."""
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

    def test_the_rate_drops_three_times_and_then_training_stops(self):
        rates, callback = self.follow([0.5] * 50, patience=2, drops=3)
        np.testing.assert_allclose(
            rates, [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4], rtol=1e-5
        )
        assert callback.drops_done == 3
        assert callback.model.stop_training

    def test_the_defaults_are_those_of_the_paper(self, caplog):
        """Three drops by 10 (§3.1), each after three epochs without improvement."""
        with caplog.at_level("INFO"):
            rates, _ = self.follow([0.5] * 50)
        expected = [0.1] * 3 + [0.01] * 3 + [1e-3] * 3 + [1e-4] * 4
        np.testing.assert_allclose(rates, expected, rtol=1e-5)
        assert [record.getMessage() for record in caplog.records] == [
            "epoch 4: plateau, learning rate 0.01",
            "epoch 7: plateau, learning rate 0.001",
            "epoch 10: plateau, learning rate 0.0001",
            "epoch 13: plateau after 3 drops, training ends",
        ]

    def test_a_factor_of_2_halves_the_rate(self):
        rates, _ = self.follow([0.5] * 3, patience=1, factor=2)
        np.testing.assert_allclose(rates, [0.1, 0.05, 0.025])

    def test_first_epochs_are_ignored(self):
        """Their best value is none that later epochs must exceed."""
        rates, callback = self.follow([0.9, 0.5, 0.5, 0.6, 0.6], patience=2, start_from_epoch=2)
        assert rates == pytest.approx([0.1] * 5)
        assert (callback.best, callback.wait) == (0.6, 1)

    def test_an_improvement_resets_the_wait(self):
        rates, _ = self.follow([0.1, 0.1, 0.2, 0.2, 0.3, 0.3], patience=2)
        np.testing.assert_allclose(rates, [0.1] * 6)

    def test_min_delta_and_mode_define_an_improvement(self):
        rates, _ = self.follow([0.1, 0.105, 0.109], patience=2, min_delta=0.02)
        assert rates[-1] == pytest.approx(0.01)
        rates, _ = self.follow([3.0, 2.0, 1.0], patience=1, mode="min")
        assert rates[-1] == pytest.approx(0.1)
        for mode, values in (("max", [1.0, 1.5]), ("min", [1.5, 1.0])):
            rates, _ = self.follow(values, patience=1, min_delta=0.5, mode=mode)
            assert rates[-1] == pytest.approx(0.01)  # a gain of min_delta is none

    def test_without_drops_the_first_plateau_stops_training(self):
        rates, callback = self.follow([0.5] * 9, patience=3, drops=0)
        assert len(rates) == 4
        assert callback.model.stop_training

    def test_a_restored_state_continues_where_it_was_saved(self):
        values = [0.5, 0.4, 0.4, 0.6, 0.5, 0.5]
        _, whole = self.follow(values, patience=2)
        _, first = self.follow(values[:2], patience=2)
        second = PlateauDecay(patience=2)
        second.set_state(json.loads(json.dumps(first.get_state())))
        self.follow(values[2:], second)
        assert second.get_state() == whole.get_state()

    @pytest.mark.parametrize("start", [0, 3])
    @pytest.mark.parametrize("drops", [0, 1, 3])
    def test_a_replay_decides_as_training_did(self, drops, start):
        options = {"patience": 2, "drops": drops, "start_from_epoch": start}
        values = np.random.default_rng(drops).choice([0.1, 0.2, 0.3, 0.4, 0.5], 40).tolist()
        rates, callback = self.follow(values, **options)
        replayed = PlateauDecay(**options)
        decisions = replayed.replay(values[: len(rates)])
        fell = np.diff([0.1, *rates]) < 0
        assert [decision == "drop" for decision in decisions] == fell.tolist()
        assert fell.sum() == drops
        assert decisions.index("end") == len(rates) - 1
        assert replayed.get_state() == callback.get_state()

    def test_more_drops_than_allowed_end_at_the_next_plateau(self):
        callback = PlateauDecay(patience=1, drops=1)
        callback.set_state({"best": 0.5, "wait": 0, "drops_done": 2})
        rates, _ = self.follow([0.5], callback)
        assert rates == pytest.approx([0.1])
        assert callback.model.stop_training

    def test_config_round_trip(self):
        config = PlateauDecay(patience=7, mode="min", start_from_epoch=2).get_config()
        assert PlateauDecay(**config).get_config() == config

    def test_the_least_values_are_accepted(self):
        PlateauDecay(factor=1.01, patience=1, drops=0)

    @pytest.mark.parametrize(
        "bad",
        [{"factor": 1}, {"patience": 0}, {"drops": -1}, {"mode": "up"}, {"start_from_epoch": -1}],
    )
    def test_bad_arguments_are_refused(self, bad):
        with pytest.raises(ArgumentError, match="Received: ") as error:
            PlateauDecay(**bad)
        assert error.value.argument == next(iter(bad))


class TestMissingMonitor:
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

    def test_epochs_without_the_monitor_are_ignored(self, tmp_path):
        """Two of five epochs are validated; the others do not count as a plateau or as the best."""
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
        assert len(epochs_of_best) == 4  # written in epoch 2 and not again
        assert len(set(epochs_of_best)) == 1
        validated = ["val_top1_error" in entry for entry in read_journal(tmp_path / "j.jsonl")]
        assert validated == [False, True, False, True, False]
        lines = progress.getvalue().splitlines()
        assert ["val top-1 error" in line for line in lines] == validated

    def test_a_monitor_that_is_never_logged_is_named(self, tmp_path):
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
