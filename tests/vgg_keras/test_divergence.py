"""NaN: training that diverges, and files that hold it."""

from __future__ import annotations

import dataclasses
import json
import math

import keras
import numpy as np
import pytest

from tests.conftest import TINY, TRAIN_TINY, write_folder
from tests.tiny import lively_net, tiny_run, without_digest
from tests.vgg_keras.test_runs import run_here
from vgg_keras import TrainedNet, weights
from vgg_keras.callbacks import read_journal, read_layers
from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.callbacks.errors import DivergenceError, WarmStartError
from vgg_keras.errors import PredictionsError, RunError, SourceError, WeightsError
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.features.extractor import FeatureExtractor
from vgg_keras.pipelines.statistics import ILSVRC, Statistics
from vgg_keras.recipes import Recipe
from vgg_keras.report.curves import learning_curves
from vgg_keras.runs import finished_files
from vgg_keras.sweeps.trials import has_diverged
from vgg_keras.training import train

NOT_FINITE = (math.nan, math.inf, -math.inf)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"), train=6, val=3)


class Diverge(keras.callbacks.Callback):
    """Makes a bias before a ReLU NaN when the second epoch has been trained, before validation."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_test_begin(self, logs=None):
        if self.epoch == 1:
            bias = self.model.get_layer("block1_conv1").bias
            bias.assign(bias * np.nan)


@pytest.mark.slow
def test_a_run_that_diverges_keeps_its_last_good_epoch(data, tmp_path):
    recipe = Recipe(
        data=data, batch_size=8, epochs=2, learning_rate=1e-3, initialisation="glorot", **TINY
    )
    out = tmp_path / "run"
    for again in (False, True):  # the second call continues after the first epoch
        with pytest.raises(
            DivergenceError, match=r"diverged in epoch 2: val_loss is nan\. .* learning_rate below"
        ):
            train(recipe, out, callbacks=[Diverge()], verbose=0)
        assert read_progress(out) == (1, False), again
        assert [e["val_cross_entropy"] is None for e in read_journal(out / "journal.jsonl")] == [
            False,
            True,
        ]
        assert has_diverged(out)
        assert all(np.isfinite(w).all() for w in TrainedNet.load(out).model.get_weights())
    learning_curves({"run": out / "journal.jsonl"})  # null is drawn as a gap
    train(recipe, out, verbose=0)  # what made it diverge is gone
    assert read_progress(out).epochs == 2
    assert not has_diverged(out)


def test_the_command_line_says_how_to_go_on(data, tmp_path):
    arguments = ("train", *TRAIN_TINY, "--data", data, "--epochs", 2, "--out", tmp_path / "run")
    message = run_here(*arguments, "--net", "A", "--learning-rate", 1e20, code=1)
    (line,) = (line for line in message.splitlines() if line.startswith("Error: "))
    assert "Training diverged in epoch 1: val_loss is nan." in line
    assert "another folder (--out)" in line
    assert "--learning-rate below 1e+20" in line
    assert f"--init-from {tmp_path / 'run'} --init-layers all" in line
    assert not (tmp_path / "run/best.weights.h5").exists()
    assert not finished_files(tmp_path / "run")  # another recipe may take the folder


def spoil(folder, layer, value):
    """Puts a value into a bias in the best weights of a run or saved net."""
    model = TrainedNet.load(folder).model
    bias = model.get_layer(layer).bias.numpy()
    bias[0] = value
    model.get_layer(layer).bias.assign(bias)
    keras.Model(model.inputs, model.outputs).save_weights(folder / "best.weights.h5")


class TestLoading:
    """NaN in the first layer does not reach the scores: max-pooling or ReLU hides it."""

    @pytest.fixture(params=["run", "saved net"])
    def folder(self, request, tmp_path):
        folder = tmp_path / "net"
        if request.param == "run":
            tiny_run(folder, ("a", "b", "c"))
        else:
            lively_net().save(folder)
            without_digest(folder / "net.json")  # which would refuse the spoilt weights first
        return folder

    @pytest.mark.parametrize(
        ("layer", "value"),
        [("block1_conv1", math.nan), ("block1_conv1", -math.inf), ("fc2", math.inf)],
    )
    def test_a_folder_with_weights_that_are_not_finite_is_refused(self, folder, layer, value):
        spoil(folder, layer, value)
        message = rf"best\.weights\.h5 holds NaN or Inf in {layer}/bias"
        with pytest.raises(RunError, match=message):
            TrainedNet.load(folder)
        with pytest.raises(RunError, match=message):
            FeatureExtractor.load(folder, "block5_pool")
        with pytest.raises(WeightsError, match=f"{layer}/bias holds NaN or Inf"):
            weights.convert(folder, folder.parent / "x.npz")
        assert np.isnan(value) or np.isinf(read_layers(folder)[layer][1][0])

    def test_a_run_does_not_start_from_weights_that_are_not_finite(self, data, tmp_path):
        tiny_run(tmp_path / "net", ("a", "b", "c"))
        spoil(tmp_path / "net", "block1_conv1", math.nan)
        recipe = Recipe(data=data, batch_size=8, init_from=str(tmp_path / "net"), **TINY)
        for layers in ("warm-start", "all", "matching"):
            with pytest.raises(WarmStartError, match="block1_conv1 holds NaN or Inf"):
                train(dataclasses.replace(recipe, init_layers=layers), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("field", ["mean", "eigenvalues", "eigenvectors"])
    @pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
    def test_statistics_that_are_not_finite_are_refused(self, tmp_path, field, value):
        file = tmp_path / "statistics.json"
        fields = dataclasses.asdict(ILSVRC)
        row = [1.0, 2.0, "VALUE"]
        fields[field] = [row] * 3 if field == "eigenvectors" else row
        file.write_text(json.dumps(fields).replace('"VALUE"', value))
        with pytest.raises(SourceError, match=r"statistics\.json .*must be finite"):
            Statistics.load(file)

    def test_a_mean_that_is_not_finite_is_refused(self, tmp_path):
        lively_net().save(tmp_path / "net")
        file = tmp_path / "net/net.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"mean": [1.0, 2.0, math.nan]}))
        with pytest.raises(RunError, match=r"net\.json .*must be finite"):
            TrainedNet.load(tmp_path / "net")

    @pytest.mark.parametrize("ending", [".parquet", ".csv"])
    @pytest.mark.parametrize("value", NOT_FINITE)
    def test_posteriors_that_are_not_finite_are_refused(self, tmp_path, ending, value):
        rows = np.full((2, 3), 1 / 3, np.float32)
        predictions = Predictions(("x", "y"), np.array([0, 1]), rows, ("a", "b", "c"))
        file = tmp_path / f"p{ending}"
        predictions.save(file)
        Predictions.load(file)
        rows[1, 2] = value
        predictions.save(file)
        with pytest.raises(PredictionsError, match="must be float32 from 0 to 1"):
            Predictions.load(file)
