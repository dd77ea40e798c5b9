"""Training that diverges: NaN is never the best, and nothing continues from it."""

from __future__ import annotations

import logging
import math
import warnings

import keras
import numpy as np
import pytest

from tests.callbacks.small import data, small_model
from vgg_keras.callbacks import (
    Checkpoint,
    Journal,
    PlateauDecay,
    RaiseOnDivergence,
    WarmStart,
    WarnOfChance,
    read_journal,
    read_layers,
)
from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.callbacks.divergence import divergence
from vgg_keras.callbacks.errors import CheckpointError, DivergenceError, WarmStartError
from vgg_keras.pipelines.errors import UserError

NOT_FINITE = (math.nan, math.inf, -math.inf)


class Diverge(keras.callbacks.Callback):
    """Makes the weights NaN at the beginning of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.set_weights([w * np.nan for w in self.model.get_weights()])


class Own(keras.Model):
    """A subclassed model that gives class 1, and class 0 once its weights are NaN."""

    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(2)

    def call(self, x):
        return self.out(x)


def own() -> keras.Model:
    model = Own()
    model.compile(
        keras.optimizers.SGD(0.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
        jit_compile=False,
    )
    model(np.zeros((1, 1), "float32"))
    model.set_weights([np.zeros((1, 2)), np.array([0.0, 1.0])])
    return model


def fit(model, *callbacks, epochs=3, validated=True):
    """Fits on data of which 56 % are of class 0, which NaN is counted as."""
    x, y = np.ones((16, 1)), np.array([0] * 9 + [1] * 7)
    options = {"validation_data": (x, y)} if validated else {}
    return model.fit(x, y, epochs=epochs, verbose=0, callbacks=list(callbacks), **options).history


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("validated", [True, False])
def test_a_diverged_epoch_is_not_saved_and_improves_nothing(epoch, validated, tmp_path, caplog):
    monitor = "val_accuracy" if validated else "accuracy"
    plateau, checkpoint = PlateauDecay(monitor), Checkpoint(tmp_path, monitor=monitor)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the monitor was in the logs
        history = fit(own(), Diverge(epoch), plateau, checkpoint, validated=validated)
    assert history[monitor] == pytest.approx([0.4375] * epoch + [0.5625] * (3 - epoch))
    assert read_progress(tmp_path) == (epoch, False)
    assert plateau.best == checkpoint.best == (0.4375 if epoch else None)
    assert f"epoch {epoch + 1} is not saved" in caplog.text
    if epoch:
        restored = own()
        assert Checkpoint(tmp_path).restore(restored) == (1, False)
        for name in ("best", "last"):
            restored.load_weights(tmp_path / f"{name}.weights.h5")
            np.testing.assert_array_equal(restored.get_weights()[1], [0, 1])


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_monitored_value_that_is_not_finite_is_never_the_best(value, mode, tmp_path):
    """Also if the loss is finite, as for a metric that divides by 0."""
    model, plateau = small_model(), PlateauDecay(patience=9, mode=mode)
    checkpoint = Checkpoint(tmp_path)
    for callback in (plateau, checkpoint):
        callback.set_model(model)
    model.stop_training = False
    for epoch, found in enumerate((value, 0.5, value)):
        for callback in (plateau, checkpoint):
            callback.on_epoch_end(epoch, {"val_accuracy": found, "val_loss": 1.0})
    assert plateau.best == checkpoint.best == 0.5
    assert plateau.wait == 1
    assert read_progress(tmp_path).epochs == 3


def test_the_loss_of_validation_decides_else_that_of_training():
    for value in NOT_FINITE:
        assert divergence({"loss": 1.0, "val_loss": np.float32(value)}) == f"val_loss is {value}"
        assert divergence({"loss": value}) == f"loss is {value}"
        # One batch of mixed_float16 that overflows is skipped by the optimizer.
        assert divergence({"loss": value, "val_loss": 2.0}) == ""
        assert divergence({"val_auc": value, "loss": 1.0}) == ""
    assert divergence({}) == divergence(None) == ""


def test_training_stops_with_an_error_that_says_how_to_go_on(tmp_path):
    journal = Journal(tmp_path / "j.jsonl", 16)
    rule = r"^Training diverged in epoch 2: val_loss is nan\. .*lower learning rate.*clip.*freeze"
    with pytest.raises(DivergenceError, match=rule) as error:
        fit(own(), Diverge(1), journal, RaiseOnDivergence(), Checkpoint(tmp_path))
    assert isinstance(error.value, UserError)
    assert read_progress(tmp_path) == (1, False)
    assert [entry["val_loss"] is None for entry in read_journal(tmp_path / "j.jsonl")] == [0, 1]


class TestWarnOfChance:
    def warnings_of(self, caplog, classes, **logs):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(classes)])
        callback = WarnOfChance()
        callback.set_model(model)
        caplog.clear()
        callback.on_epoch_end(4, logs)
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    @pytest.mark.parametrize(("classes", "value"), [(10, 2.3026), (1000, 6.9085), (2, 0.6927)])
    def test_the_cross_entropy_of_equal_posteriors_is_said(self, caplog, classes, value):
        (line,) = self.warnings_of(caplog, classes, cross_entropy=value, val_cross_entropy=value)
        assert line.startswith(f"epoch 5: cross-entropy {value:.3f} is ln({classes})")

    @pytest.mark.parametrize(
        "logs",
        [
            {"cross_entropy": 2.28, "val_cross_entropy": 2.3026},  # it overfits
            {"cross_entropy": 2.3026, "val_cross_entropy": 2.28},
            {"cross_entropy": 2.3026},
            {"loss": 2.3026, "val_loss": 2.3026},
            {"cross_entropy": math.nan, "val_cross_entropy": math.nan},
        ],
    )
    def test_other_epochs_are_not(self, caplog, logs):
        assert not self.warnings_of(caplog, 10, **logs)

    def test_the_cross_entropy_of_validation_is_printed(self, caplog):
        (line,) = self.warnings_of(caplog, 10, cross_entropy=2.305, val_cross_entropy=2.301)
        assert "cross-entropy 2.301 is ln(10)" in line

    def test_classes_are_the_last_axis(self, caplog):
        callback = WarnOfChance()
        callback.set_model(keras.Sequential([keras.Input((5, 3)), keras.layers.Dense(10)]))
        callback.on_epoch_end(0, {"cross_entropy": 2.3026, "val_cross_entropy": 2.3026})
        assert "ln(10)" in caplog.text

    def test_models_without_one_output_shape_train_on(self):
        fit(own(), WarnOfChance())

    @pytest.mark.parametrize(
        ("values", "epochs", "last"),
        [((2.3026, 2.3026, 2.3026), [1], 3), ((2.3026, 2.1, 2.3026, 2.3026), [1, 3], 2)],
    )
    def test_several_epochs_are_named_once_and_counted_at_the_end(
        self, caplog, values, epochs, last
    ):
        callback = WarnOfChance()
        callback.set_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(10)]))
        for epoch, value in enumerate(values):
            callback.on_epoch_end(epoch, {"cross_entropy": value, "val_cross_entropy": value})
        callback.on_train_end()
        *named, end = [record.getMessage() for record in caplog.records]
        assert [int(line.removeprefix("epoch ")[0]) for line in named] == epochs
        assert f"in the last {last} epochs" in end

    def test_nothing_is_said_at_the_end_of_a_training_that_has_learned(self, caplog):
        callback = WarnOfChance()
        callback.set_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(10)]))
        for epoch, value in enumerate((2.3026, 2.3026, 2.1)):
            callback.on_epoch_end(epoch, {"cross_entropy": value, "val_cross_entropy": value})
        callback.on_train_end()
        assert len(caplog.records) == 1


class TestLoading:
    @pytest.mark.parametrize("value", NOT_FINITE)
    @pytest.mark.parametrize("part", ["weights", "momentum"])
    def test_a_checkpoint_that_is_not_finite_is_refused(self, tmp_path, value, part):
        x, y = data()
        model = small_model()
        model.fit(x, y, verbose=0)
        variables = model.weights if part == "weights" else model.optimizer.variables[2:]
        spoilt = variables[0].numpy()
        spoilt.flat[0] = value
        variables[0].assign(spoilt)
        checkpoint = Checkpoint(tmp_path)
        checkpoint.set_model(model)
        model.stop_training = False
        checkpoint.on_epoch_end(0, {"val_accuracy": 0.5, "val_loss": 1.0})
        with pytest.raises(CheckpointError, match=r"last\.weights\.h5 .*holds NaN or Inf in .*k"):
            Checkpoint(tmp_path).restore(small_model())

    @pytest.mark.parametrize("matching", [False, True])
    @pytest.mark.parametrize("value", NOT_FINITE)
    def test_a_warm_start_from_layers_that_are_not_finite_is_refused(
        self, tmp_path, value, matching
    ):
        source, target = small_model(seed=1), small_model(seed=2)
        kernel, bias = source.get_layer("hidden").get_weights()
        kernel[1, 2] = value
        source.get_layer("hidden").set_weights([kernel, bias])
        source.save_weights(tmp_path / "best.weights.h5")
        before = target.get_weights()
        for given in (source, tmp_path, read_layers(tmp_path)):
            with pytest.raises(WarmStartError, match="hidden holds NaN or Inf"):
                WarmStart(given, matching=matching).apply(target)
            WarmStart(given, ["out"], matching=matching).check(target)  # which is finite
        for a, b in zip(before, target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
