"""What images a net takes is stated, inferred and said, or asked for; it is never guessed."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from tests.vgg_keras.weights import foreign
from tests.vgg_keras.weights.test_formats import (
    FOREIGN,
    MEAN,
    SIZE,
    TORCH,
    given_weights,
    images,
)
from vgg_keras import TrainedNet, vgg, weights
from vgg_keras.cli import main
from vgg_keras.errors import ArgumentError
from vgg_keras.features.extractor import FeatureExtractor
from vgg_keras.nets import FC_NAMES
from vgg_keras.weights.preprocessing import PREPROCESSINGS

CAFFE = "BGR in 0..255 minus (103.939, 116.779, 123.68)"
RGB = "RGB in 0..255 minus (123.68, 116.779, 103.939)"
SCALED = "(RGB in 0..255 minus (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)"
TOLD = {
    "app.h5": CAFFE,
    "v1.caffemodel": CAFFE,
    "vgg16_weights.npz": RGB,
    "tv.safetensors": SCALED,
    "timm.safetensors": SCALED,
}


@pytest.mark.parametrize("name", TOLD)
def test_the_assumed_input_is_said(name, tmp_path, caplog):
    FOREIGN[name](tmp_path / name, given_weights("A"))
    with caplog.at_level("INFO", "vgg_keras"):
        contents = weights.read(tmp_path / name).contents
    assert contents.is_assumed
    assert contents.input.startswith(f"{TOLD[name]}, assumed for files with the names of ")
    assert caplog.messages == [f"{tmp_path / name}: net A takes {contents.input}."]
    given = weights.read(tmp_path / name, preprocessing="rgb").contents
    assert (given.input, given.is_assumed) == (RGB, False)


def test_a_stated_input_is_not_assumed(tmp_path):
    weights.save(vgg("A", *SIZE), tmp_path / "w.h5")
    contents = weights.read(tmp_path / "w.h5").contents
    assert (contents.input, contents.is_assumed) == (CAFFE, False)
    foreign.matconvnet(tmp_path / "w.mat", given_weights("A"), mean=(100.0, 110.0, 120.5))
    contents = weights.read(tmp_path / "w.mat").contents
    assert (contents.input, contents.is_assumed) == (
        "RGB in 0..255 minus (100, 110, 120.5)",
        False,
    )


def test_nets_and_commands_say_the_input_once(tmp_path, folder, caplog):
    path = tmp_path / "w.caffemodel"
    foreign.caffemodel(path, given_weights("A"))
    said = f"{CAFFE}, assumed for files with the names of Caffe"
    assert TrainedNet.load(path).metadata()["input"] == said
    assert FeatureExtractor.load(path).metadata["input"] == said
    photo = folder.removeprefix("folder:") + "/val/red/000.jpg"
    for arguments in (
        ["predict", "--weights", str(path), photo, "--json"],
        ["convert", str(path), str(tmp_path / "w.npz"), "--json"],
    ):
        for more, wanted in (((), said), (("--preprocessing", "rgb"), RGB)):
            caplog.clear()
            done = CliRunner().invoke(main, [*arguments, *more])
            assert done.exit_code == 0, done.output
            assert json.loads(done.stdout)
            assert [line for line in caplog.messages if "net A takes" in line] == [
                f"{path}: net A takes {wanted}."
            ]


def gap_head(path):
    """Conv. layers with a pooling and one FC layer behind, as in most tutorials."""
    w = {k: v for k, v in given_weights("D").items() if k not in FC_NAMES}
    w["predictions"] = np.ones((32, 3), np.float32), np.ones(3, np.float32)
    foreign.applications_h5(path, w)


def features_only(path):
    """As IMAGENET1K_FEATURES of torchvision: the FC layers hold NaN."""
    w = foreign.in_torch(given_weights("D"), *TORCH)
    empty = {name: tuple(a * np.nan for a in w[name]) for name in FC_NAMES}
    foreign.safetensors(path, foreign.torch_tensors(w | empty))


UNTOLD = {
    # name of the file: function that writes it, and reason in the message
    "vgg16_caffe.safetensors": (
        lambda path: foreign.safetensors(path, foreign.torch_tensors(given_weights("D"))),
        "nets with different preprocessing are saved in such files",
    ),
    **{
        f"{name}.safetensors": (
            lambda path: foreign.safetensors(path, foreign.torch_tensors(given_weights("D"))),
            "nets with different preprocessing are saved in such files",
        )
        for name in ("VGG16_Caffe", "vgg16-00b39a1b", "vgg19-d01eb7cb", "vgg16_reducedfc")
    },
    "advised.npz": (
        lambda path: foreign.frossard_npz(path, given_weights("D")),
        "nets with different preprocessing are saved in such files",
    ),
    "gap.h5": (gap_head, "its FC layers are a head of its own"),
    "features.safetensors": (features_only, "its FC layers hold no numbers"),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_an_input_that_nothing_tells_is_asked_for(name, tmp_path):
    make, reason = UNTOLD[name]
    make(tmp_path / name)
    with pytest.raises(weights.WeightsError, match=f"{reason}.*one of rgb, caffe, torch"):
        weights.read(tmp_path / name, partial=True)
    files = [str(tmp_path / name), str(tmp_path / "out.npz")]
    done = CliRunner().invoke(main, ["convert", *files, "--partial"])
    assert "Give --preprocessing NAME, one of rgb, caffe, torch, vggface." in done.output
    layers, contents = weights.read(tmp_path / name, partial=True, preprocessing="caffe")
    expected = foreign.in_rgb(given_weights("D"))["block1_conv1"][0]
    if name != "features.safetensors":
        np.testing.assert_array_equal(layers["block1_conv1"][0], expected)
    assert contents.preprocessing == PREPROCESSINGS["caffe"]


def test_fc_layers_without_numbers_tell_it_where_they_are_not_wanted(tmp_path):
    features_only(tmp_path / "w.safetensors")
    with pytest.raises(weights.WeightsError, match="its FC layers hold no numbers"):
        vgg("D", *SIZE, include_top=False, weights=tmp_path / "w.safetensors")


def test_a_saved_net_and_a_release_keep_their_own_input(tmp_path):
    foreign.caffemodel(tmp_path / "w.caffemodel", given_weights("A"))
    TrainedNet.load(tmp_path / "w.caffemodel").save(tmp_path / "net")
    with pytest.raises(ArgumentError, match=r"net takes RGB in 0.* Received: \(RGB in .*\) / \("):
        weights.read(tmp_path / "net", preprocessing="torch")
    assert weights.read(tmp_path / "net", preprocessing="rgb").contents.net == "A"
    done = CliRunner().invoke(
        main,
        ["convert", str(tmp_path / "net"), str(tmp_path / "w.npz"), "--preprocessing", "caffe"],
    )
    assert "--preprocessing goes with a weights file" in done.output
    assert not (tmp_path / "w.npz").exists()


@pytest.fixture(scope="module")
def theirs():
    """A net of Keras Applications, with its logits."""
    model = keras.applications.VGG16(
        weights=None, input_shape=(32, 32, 3), classes=7, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            shapes = [w.shape for w in layer.weights]
            scale = np.sqrt(2 / np.prod(shapes[0][:-1]))
            layer.set_weights([rng.normal(0, scale, shape) for shape in shapes])
    return model


def logits(model, x):
    return keras.ops.convert_to_numpy(model(x))


@pytest.mark.slow  # its width is that of the paper
@pytest.mark.parametrize("ending", [".h5", ".safetensors", ".npz"])
def test_a_model_of_keras_applications_is_saved_and_loaded(theirs, ending, tmp_path):
    x = images(1, 32, 32, 3)
    wanted = logits(theirs, keras.applications.vgg16.preprocess_input(x.copy()))
    path = tmp_path / f"w{ending}"
    weights.save(theirs, path, model_preprocessing="caffe")
    ours = vgg("D", 7, 32, classifier_activation=None)
    weights.load(ours, path)
    far = {"rtol": 1e-3, "atol": 1e-3 * np.abs(wanted).max()}
    np.testing.assert_allclose(logits(ours, x - MEAN), wanted, **far)
    again = keras.models.clone_model(theirs)
    weights.load(again, path, model_preprocessing="caffe")
    for got, given in zip(again.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(got, given, rtol=1e-5, atol=1e-5)


def test_a_model_that_vgg_did_not_build_is_asked_what_it_takes(tmp_path):
    model = vgg("A", *SIZE, seed=1)
    part = keras.Model(model.input, model.get_layer("block5_pool").output)
    path = tmp_path / "w.npz"
    with pytest.raises(ArgumentError, match="model_preprocessing must be given"):
        weights.save(part, path)
    assert not path.exists()
    weights.save(part, path, model_preprocessing="caffe")
    before = part.get_weights()
    with pytest.raises(ArgumentError, match=r"caffe is that of Keras Applications"):
        weights.load(part, path)
    for got, given in zip(part.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, given)
    weights.load(part, path, model_preprocessing=PREPROCESSINGS["caffe"])
    for got, given in zip(part.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, given)
    weights.load(part, path, model_preprocessing="rgb")
    np.testing.assert_array_equal(part.get_weights()[0], before[0][:, :, ::-1])
