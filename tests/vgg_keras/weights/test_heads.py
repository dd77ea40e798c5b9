"""The conv. layers decide net and width. FC layers can have other sizes and names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from tests.vgg_keras.weights import foreign
from tests.vgg_keras.weights.test_formats import TORCH, assert_equal_layers, given_weights
from vgg_keras import TrainedNet, weights
from vgg_keras.cli import main
from vgg_keras.features import DeepFeatures
from vgg_keras.nets import FC_NAMES, NETS
from vgg_keras.report.best import _first_net


def convs(net):
    return {k: v for k, v in given_weights(net).items() if k not in FC_NAMES}


def torchvision(net, head):
    """Conv. layers with torchvision's names, and FC layers of other sizes or names."""
    return foreign.torch_tensors(foreign.in_torch(convs(net), *TORCH)) | head


def dense(name, inputs, outputs, ending="weight"):
    return {
        f"{name}.{ending}": np.ones((outputs, inputs), np.float32),
        f"{name}.bias": np.ones(outputs, np.float32),
    }


HEADS = {
    "smaller": dense("classifier.0", 128, 32) | dense("classifier.3", 32, 2),
    "one layer": dense("classifier", 128, 2),
    "more layers": dense("classifier.0", 128, 256)
    | dense("classifier.3", 256, 64)
    | dense("classifier.6", 64, 8)
    | dense("classifier.9", 8, 2),
    "nested": dense("classifier.6.0", 256, 64) | dense("classifier.6.3", 64, 2),
    "of 3x3, as fc_reduced": {
        "classifier.0.weight": np.ones((64, 32, 3, 3), np.float32),
        "classifier.0.bias": np.ones(64, np.float32),
    }
    | dense("classifier.3", 64, 64),
}


@pytest.mark.parametrize("net", ["A", "B", "D", "E"])
@pytest.mark.parametrize("head", HEADS)
def test_a_head_of_its_own_is_reported_and_left_out(net, head, tmp_path):
    path = tmp_path / "head.safetensors"
    foreign.safetensors(path, torchvision(net, HEADS[head]))
    with pytest.raises(weights.WeightsError, match=r"read as net \w at width 0\.0625") as refusal:
        weights.read(path)
    assert "followed by classifier" in str(refusal.value)
    layers, contents = weights.read(path, partial=True)
    assert (contents.net, contents.width) == (net, 1 / 16)
    assert [name for name in layers if name not in FC_NAMES] == list(NETS[net].conv_names)
    fitting = {"fc1"} if head == "more layers" else set()
    assert set(layers) & set(FC_NAMES) == fitting
    assert contents.left
    assert contents.num_classes == 1000  # not determined


def test_features_need_no_head(tmp_path):
    path = tmp_path / "head.safetensors"
    foreign.safetensors(path, torchvision("A", HEADS["smaller"]))
    extractor = DeepFeatures(str(path), layer="block5_pool").fit(["x"])
    assert extractor.get_params()["layer"] == "block5_pool"


def named_caffe(path, name, w, monkeypatch):
    original = foreign.caffe_name
    monkeypatch.setattr(
        foreign, "caffe_name", lambda one: name if one == "predictions" else original(one)
    )
    foreign.caffemodel(path, w)


@pytest.mark.parametrize("name", ["fc8_voc", "fc8a", "score_fr"])
def test_a_head_of_another_name_is_read_if_it_is_named(name, tmp_path, monkeypatch):
    named_caffe(tmp_path / "voc.caffemodel", name, given_weights("D"), monkeypatch)
    with pytest.raises(weights.WeightsError, match=rf"followed by fc6, fc7, {name}\..*head=NAME"):
        weights.read(tmp_path / "voc.caffemodel")
    layers, contents = weights.read(tmp_path / "voc.caffemodel", head=name)
    assert_equal_layers(layers, foreign.in_rgb(given_weights("D")))
    assert (contents.num_classes, contents.left) == (7, {})
    for other in ("fc9", "fc7", "conv1_1"):
        with pytest.raises(weights.WeightsError, match=rf"head must be one of {name}\..*{other}"):
            weights.read(tmp_path / "voc.caffemodel", head=other)


@pytest.mark.parametrize("name", ["classifier.7", "model.classifier.7"])
def test_a_head_is_named_with_or_without_the_prefix(name, tmp_path):
    tensors = foreign.torch_tensors(
        foreign.in_torch(given_weights("A"), *TORCH),
        ("classifier.0", "classifier.3", "classifier.7"),
    )
    path = tmp_path / "head.safetensors"
    foreign.safetensors(path, {f"model.{key}": array for key, array in tensors.items()})
    layers, contents = weights.read(path, head=name)
    np.testing.assert_array_equal(layers["predictions"][0], given_weights("A")["predictions"][0])
    assert contents.net == "A"


def test_commands_take_the_name_of_the_head(tmp_path, folder, monkeypatch):
    named_caffe(tmp_path / "v.caffemodel", "fc8_voc", given_weights("A"), monkeypatch)
    photo = folder.removeprefix("folder:") + "/val/red/000.jpg"
    arguments = ["predict", "--weights", str(tmp_path / "v.caffemodel"), photo, "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "With --head NAME" in done.output
    done = CliRunner().invoke(main, [*arguments, "--head", "fc8_voc"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["head"] == "fc8_voc"
    assert _first_net(found).origin["head"] == "fc8_voc"  # the net is loaded again for a report
    done = CliRunner().invoke(main, [*arguments, "--head", "fc9"])
    assert done.output.endswith("head must be one of fc8_voc. Received: --head fc9\n")
    target = str(tmp_path / "v.npz")
    done = CliRunner().invoke(main, ["convert", arguments[2], target, "--head", "fc8_voc"])
    assert done.exit_code == 0, done.output
    assert TrainedNet.load(target).class_names == tuple("0123456")
