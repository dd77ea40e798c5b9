"""Fine-tuning: the FC layers first, then all layers; and random layers that are no use frozen."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

from tests.conftest import TINY, TRAIN_TINY, write_folder
from tests.tiny import tiny_run
from tests.vgg_keras.test_runs import Interrupting, arrays, run_here
from vgg_keras import TrainedNet, train
from vgg_keras.callbacks import read_journal
from vgg_keras.errors import ArgumentError
from vgg_keras.nets import FC_NAMES
from vgg_keras.recipes import RECIPES
from vgg_keras.tasks import compile_model


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A run of other classes, so that its last layer does not fit."""
    return tiny_run(tmp_path_factory.mktemp("runs") / "net", ("a", "b"))


@pytest.fixture(scope="module")
def recipe(net, tmp_path_factory):
    """The recipe, with a rate at which the tiny random net learns."""
    data = write_folder(tmp_path_factory.mktemp("data"), train=6, val=2)
    changes = {"data": data, "init_from": net.name, "batch_size": 6, "epochs": 3, **TINY}
    return dataclasses.replace(RECIPES["fine-tune"], learning_rate=1e-4, **changes)


class Kernels(keras.callbacks.Callback):
    """Copies of a conv. and an FC kernel after each epoch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_epoch_end(self, epoch, logs=None):
        layers = ("block1_conv1", "fc1")
        self.found.append([self.model.get_layer(name).get_weights()[0] for name in layers])


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """The folder of a run that was not interrupted, and its kernels after each epoch."""
    out, kernels = tmp_path_factory.mktemp("runs") / "whole", Kernels()
    train(recipe, out, callbacks=[kernels], verbose=0)
    return out, kernels.found


def test_the_fc_layers_are_trained_first(net, whole):
    given = [net.model.get_layer(name).get_weights()[0] for name in ("block1_conv1", "fc1")]
    conv, fc = zip(*whole[1], strict=True)
    np.testing.assert_array_equal(conv[0], given[0])  # no weight decay either
    assert not np.array_equal(fc[0], given[1])
    for kernels in (conv, fc):
        assert not np.array_equal(kernels[0], kernels[1])


def test_the_journal_has_the_rate_and_the_parameters_of_each_stage(net, whole):
    entries = read_journal(whole[0] / "journal.jsonl")
    assert [e["learning_rate"] for e in entries] == pytest.approx([1e-4, 1e-5, 1e-5])
    model = TrainedNet.load(whole[0]).model
    fc = sum(model.get_layer(name).count_params() for name in FC_NAMES)
    assert [e["trainable_parameters"] for e in entries] == [fc, *[model.count_params()] * 2]


def assert_ends_like(whole, run):
    for name in ("best.weights.h5", "last.weights.h5"):
        expected, found = (arrays(path / name) for path in (whole, run))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)
    rates = [e["learning_rate"] for e in read_journal(run / "journal.jsonl")]
    assert rates == [e["learning_rate"] for e in read_journal(whole / "journal.jsonl")]


@pytest.mark.slow
def test_an_interrupted_run_ends_with_bit_identical_weights(recipe, whole, tmp_path):
    """It is interrupted between the two stages and in the second one."""
    for epoch in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", callbacks=[Interrupting(epoch)], verbose=0)
    train(recipe, tmp_path / "cut", verbose=0)
    assert_ends_like(whole[0], tmp_path / "cut")


@pytest.mark.slow
def test_a_run_of_the_fc_layers_alone_goes_on_with_all_layers(recipe, whole, tmp_path):
    train(dataclasses.replace(recipe, epochs=recipe.fc_epochs), tmp_path / "run", verbose=0)
    train(recipe, tmp_path / "run", verbose=0)
    assert_ends_like(whole[0], tmp_path / "run")


def test_a_callback_that_stops_the_first_stage_ends_training(recipe, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    for callbacks in ([Stop()], []):  # the second call finds a finished run
        train(recipe, tmp_path / "run", callbacks=callbacks, verbose=0)
        assert len(read_journal(tmp_path / "run/journal.jsonl")) == 1


def test_frozen_layers_have_no_gradient_and_no_weight_decay(net, recipe):
    model = TrainedNet.load(net.name).logits
    compile_model(model, dataclasses.replace(recipe, trainable="block5_conv2,fc2", fc_epochs=0))
    names = {variable.path for variable in model.trainable_variables}
    assert names == {
        f"{layer}/{part}" for layer in ("block5_conv2", "fc2") for part in ("kernel", "bias")
    }
    assert len(model.losses) == 2


class TestBeforeTraining:
    def stopped(self, recipe, tmp_path, **changes):
        """Begins to train, and is interrupted before the first step."""
        changed = dataclasses.replace(recipe, **changes)
        with pytest.raises(KeyboardInterrupt):
            train(changed, tmp_path / "run", callbacks=[Interrupting(0)], verbose=0)

    def test_a_random_head_on_layers_that_are_not_frozen_logs_a_warning(
        self, recipe, tmp_path, caplog
    ):
        self.stopped(recipe, tmp_path)
        assert "random" not in caplog.text
        self.stopped(recipe, tmp_path, fc_epochs=0)
        (warning,) = (m for m in caplog.messages if "random weights" in m)
        assert warning.startswith("predictions: random weights, on pretrained layers that are tra")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({}, "trainable=all with fc_epochs=1 freezes block1_conv1, "),
            ({"trainable": "fc"}, r"trainable=fc with fc_epochs=1 freezes block1_conv1, "),
            ({"trainable": "block1_conv1", "fc_epochs": 0}, "freezes block2_conv1, .* predictions"),
        ],
    )
    def test_random_layers_are_not_frozen(self, recipe, tmp_path, changes, message):
        for source in ({"init_from": ""}, {"net": "B"}):
            changed = dataclasses.replace(recipe, **source, **changes)
            if source == {"net": "B"}:  # some of its conv. layers are missing in net A
                message = "freezes .*block1_conv2"
            with pytest.raises(ArgumentError, match=message) as error:
                train(changed, tmp_path / "run", verbose=0)
            assert error.value.argument == "init_from"
            assert not (tmp_path / "run").exists()

    def test_the_command_line_names_the_flag(self, recipe, tmp_path):
        arguments = ("train", *TRAIN_TINY, "--recipe", "fine-tune", "--net", "A", "--data")
        message = run_here(*arguments, recipe.data, "--out", tmp_path / "run", code=1)
        assert "--init-from must give all layers that are frozen" in message
        assert "--fc-epochs 1 freezes block1_conv1" in message


def test_the_option_trainable_is_recorded(recipe, tmp_path):
    arguments = ("train", *TRAIN_TINY, "--recipe", "fine-tune", "--net", "A", "--epochs", 1)
    more = ("--init-from", recipe.init_from, "--trainable", "predictions", "--data", recipe.data)
    run_here(*arguments, *more, "--out", tmp_path / "run")
    assert json.loads((tmp_path / "run/recipe.json").read_text())["trainable"] == "predictions"
    (entry,) = read_journal(tmp_path / "run/journal.jsonl")
    last = TrainedNet.load(tmp_path / "run").model.get_layer("predictions")
    assert entry["trainable_parameters"] == last.count_params()
