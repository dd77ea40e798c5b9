"""Every kind of file for every net at a small size; metadata of files; parts of nets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vgg_keras.weights import foreign
from vgg_keras import TrainedNet, ilsvrc, vgg, weights
from vgg_keras.cli import main
from vgg_keras.errors import ArgumentError, UserError
from vgg_keras.nets import FC_NAMES, NETS, WARM_START_LAYERS
from vgg_keras.pipelines.statistics import Statistics
from vgg_keras.run_files import BEST_WEIGHTS, NET, STATISTICS
from vgg_keras.weights.identification import geometry, identify
from vgg_keras.weights.naming import CONVENTIONS, kernels_of
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing, refit
from vgg_keras.weights.transfer import TARGETS

SIZE = (7, 64, 1 / 16)  # classes, crop size, width
MEAN = np.array(PREPROCESSINGS["rgb"].mean, np.float32)
TORCH = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def given_weights(net, size=SIZE, seed=0):
    return foreign.random_weights(foreign.kernel_shapes(net, *size), seed)


def assert_equal_layers(layers, expected, **tolerance):
    assert list(layers) == list(expected)
    for name in expected:
        for got, wanted in zip(layers[name], expected[name], strict=True):
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, wanted, **({"rtol": 0} | tolerance), err_msg=name)


def images(*shape):
    return np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)


# Functions that write weights in the formats of other projects, by ending.
FOREIGN = {
    "app.h5": foreign.applications_h5,
    "v1.caffemodel": foreign.caffemodel,
    "v2.caffemodel": lambda path, w: foreign.caffemodel(path, w, version=2),
    "tidy.mat": lambda path, w: foreign.matconvnet(path, foreign.in_rgb(w)),
    "old.mat": lambda path, w: foreign.matconvnet(path, foreign.in_rgb(w), old=True),
    "packed.mat": lambda path, w: foreign.matconvnet(path, foreign.in_rgb(w), compress=True),
    "vgg16_weights.npz": lambda path, w: foreign.frossard_npz(path, foreign.in_rgb(w)),
    "keras.npz": lambda path, w: np.savez(
        path,
        **{
            f"{name}/{part}": a
            for name, arrays in w.items()
            for part, a in zip(("kernel", "bias"), arrays, strict=True)
        },
    ),
    "keras.npy": lambda path, w: np.save(path, as_record(w)),
    "epoch.mat": lambda path, w: foreign.matconvnet(path, foreign.in_rgb(w), in_struct=True),
    "dag.mat": lambda path, w: foreign.dagnn(path, foreign.in_rgb(w)),
    "machrisaa.npy": foreign.machrisaa_npy,
    "slim.npz": lambda path, w: np.savez(path, **foreign.slim_tensors(foreign.in_rgb(w))),
    "chainer.npz": foreign.chainer_npz,
    "chainercv.npz": lambda path, w: foreign.chainer_npz(path, foreign.in_rgb(w), "/conv"),
    "vggface.h5": foreign.vggface_h5,
    "caffe2.onnx": lambda path, w: foreign.onnx_model(path, foreign.caffe2_tensors(w)),
    "gluon.onnx": lambda path, w: foreign.onnx_model(
        path, foreign.gluon_tensors(foreign.in_torch(w, *TORCH))
    ),
    "torch.onnx": lambda path, w: foreign.onnx_model(
        path, foreign.torch_tensors(foreign.in_torch(w, *TORCH)), external="torch.onnx.data"
    ),
    "tv.safetensors": lambda path, w: foreign.safetensors(
        path, foreign.torch_tensors(foreign.in_torch(w, *TORCH))
    ),
    "timm.safetensors": lambda path, w: foreign.safetensors(
        path, foreign.torch_tensors(foreign.in_torch(w, *TORCH), foreign.TIMM_FC)
    ),
}


def as_record(w):
    arrays = {
        f"{name}/{part}": a
        for name, pair in w.items()
        for part, a in zip(("kernel", "bias"), pair, strict=True)
    }
    record = np.zeros((), [(name, a.dtype, a.shape) for name, a in arrays.items()])
    for name, a in arrays.items():
        record[name] = a
    return record


@pytest.mark.parametrize("ending", FOREIGN)
@pytest.mark.parametrize("net", ["A", "B", "D", "E"])
def test_files_of_other_projects_give_the_same_net(net, ending, tmp_path):
    """Names, layout, channel order and mean are converted to RGB minus the ILSVRC mean."""
    FOREIGN[ending](tmp_path / ending, given_weights(net))
    layers, found = weights.read(tmp_path / ending)
    is_exact = not ending.startswith(("tv", "timm", "gluon", "torch", "vggface"))
    tolerance = {} if is_exact else {"rtol": 2e-6, "atol": 1e-5}
    assert_equal_layers(layers, foreign.in_rgb(given_weights(net)), **tolerance)
    assert (found.net, found.num_classes, found.crop_size, found.width) == (net, *SIZE)
    assert found.taken == tuple(layers)
    assert found.left == {}
    assert found.has_top


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("ending", TARGETS)
def test_written_files_are_read_again(net, ending, tmp_path):
    model = vgg(net, *SIZE, seed=1)
    file = tmp_path / f"w{ending}"
    if TARGETS[ending].nets and net not in TARGETS[ending].nets:
        with pytest.raises(weights.WeightsError, match=r"torchvision has names .* A, B, D, E\."):
            weights.save(model, file)
        assert not file.exists()
        return
    weights.save(model, file)
    other = vgg(net, *SIZE, seed=2)
    assert weights.load(other, file).net == net  # A-LRN and A are distinguished
    tolerance = {"rtol": 2e-6, "atol": 1e-6} if "safetensors" in ending else {"rtol": 0}
    for got, wanted in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(got, wanted, **tolerance)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("net", NETS)
def test_keras_loads_a_written_file(net, tmp_path):
    model, other = vgg(net, *SIZE, seed=1), vgg(net, *SIZE, seed=2)
    weights.save(model, tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    x = images(1, 64, 96, 3)
    np.testing.assert_array_equal(other(x), model(x))


@pytest.mark.parametrize("whole", [False, True])
def test_reads_a_model_that_keras_saved(whole, tmp_path):
    """`.weights.h5` and `.keras`, also with an optimizer. The net takes RGB."""
    model = vgg("C", *SIZE, seed=1)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    file = tmp_path / ("m.keras" if whole else "m.weights.h5")
    model.save(file) if whole else model.save_weights(file)
    layers, found = weights.read(file)
    assert found.net == "C"
    for name in layers:
        for got, wanted in zip(layers[name], model.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("kind", ["whole.h5", "m.keras", "m.weights.h5"])
def test_reads_a_model_of_keras_applications(kind, tmp_path):
    """Its layer names are ours. The kind of its FC layers shows that it takes BGR."""
    theirs = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=7)
    theirs.save_weights(tmp_path / kind) if "weights" in kind else theirs.save(tmp_path / kind)
    kernel, bias = theirs.get_layer("block1_conv1").get_weights()
    layers, found = weights.read(tmp_path / kind)
    assert (found.net, found.crop_size) == ("D", 32)
    np.testing.assert_array_equal(layers["block1_conv1"][0], kernel[:, :, ::-1])
    np.testing.assert_array_equal(layers["block1_conv1"][1], bias)


def test_reads_a_model_that_keras_saved_in_its_older_format(tmp_path):
    """The configuration, which is read as text, shows that it takes RGB."""
    model = vgg("D", *SIZE, seed=1)
    model.save(tmp_path / "m.h5")
    layers, found = weights.read(tmp_path / "m.h5")
    assert found.net == "D"
    np.testing.assert_array_equal(
        layers["block1_conv1"][0], model.get_layer("block1_conv1").get_weights()[0]
    )


def test_a_feature_extractor_needs_the_preprocessing(tmp_path):
    model = vgg("D", *SIZE, seed=1)
    part = keras.Model(model.input, model.get_layer("block5_pool").output)
    part.save_weights(tmp_path / "f.weights.h5")
    with pytest.raises(weights.WeightsError, match=r"one of rgb, caffe, torch, vggface\."):
        weights.read(tmp_path / "f.weights.h5")
    layers, _ = weights.read(tmp_path / "f.weights.h5", preprocessing="rgb")
    kernel = model.get_layer("block1_conv1").get_weights()[0]
    np.testing.assert_array_equal(layers["block1_conv1"][0], kernel)
    weights.save(part, tmp_path / "f.safetensors", model_preprocessing="rgb")
    # our own files store it
    layers, _ = weights.read(tmp_path / "f.safetensors")
    np.testing.assert_allclose(layers["block1_conv1"][0], kernel, rtol=1e-5, atol=1e-7)


class TestPreprocessing:
    def test_a_given_mean_replaces_only_the_mean(self, tmp_path):
        """The order of the channels stays. So the result is also exact on the border."""
        foreign.applications_h5(tmp_path / "w.h5", given_weights("A"))
        statistics = Statistics((90.0, 100.0, 110.0), (1, 1, 1), ((1, 0, 0),) * 3, 1)
        net = TrainedNet.load(tmp_path / "w.h5", mean=statistics.mean)
        assert net.mean == (90.0, 100.0, 110.0)
        kernel, bias = net.model.get_layer("block1_conv1").get_weights()
        np.testing.assert_array_equal(kernel, given_weights("A")["block1_conv1"][0][:, :, ::-1])
        np.testing.assert_array_equal(bias, given_weights("A")["block1_conv1"][1])

    def test_the_preprocessing_is_that_of_the_argument_or_the_kind_of_file(self, tmp_path):
        w = given_weights("A")
        foreign.applications_h5(tmp_path / "w.h5", w)
        first = {}
        for name in (None, "rgb", "caffe", "torch"):
            layers, _ = weights.read(tmp_path / "w.h5", preprocessing=name)
            first[name] = layers["block1_conv1"]
        np.testing.assert_array_equal(first["rgb"][0], w["block1_conv1"][0])
        np.testing.assert_array_equal(first["caffe"][0], w["block1_conv1"][0][:, :, ::-1])
        np.testing.assert_array_equal(first[None][0], first["caffe"][0])
        sd = np.array(TORCH[1], np.float32)[:, None] * 255
        np.testing.assert_allclose(first["torch"][0], w["block1_conv1"][0] / sd, rtol=1e-6)
        with pytest.raises(ValueError, match=r"one of rgb, caffe, torch, vggface\. Received: 'tf'"):
            weights.read(tmp_path / "w.h5", preprocessing="tf")

    def test_the_mean_of_a_matconvnet_file_is_converted(self, tmp_path):
        w = foreign.in_rgb(given_weights("A"))
        foreign.matconvnet(tmp_path / "w.mat", w, mean=(100.0, 110.0, 120.0))
        layers, _ = weights.read(tmp_path / "w.mat", mean=(100, 110, 120))
        assert_equal_layers(layers, w)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 99), bgr=st.booleans(), bgr_wanted=st.booleans())
    def test_a_refitted_layer_has_the_same_outputs_inside_the_image(self, seed, bgr, bgr_wanted):
        rng = np.random.default_rng(seed)
        given, wanted = (
            Preprocessing(tuple(rng.uniform(90, 130, 3)), tuple(rng.uniform(1, 60, 3)), flipped)
            for flipped in (bgr, bgr_wanted)
        )
        kernel, bias = rng.normal(0, 1, (3, 3, 3, 4)), rng.normal(0, 1, 4)
        image = rng.uniform(0, 255, (1, 5, 6, 3))

        def output(pre, kernel, bias):
            x = (image - pre.mean) / pre.sd
            x = x[..., ::-1] if pre.bgr else x
            return (
                keras.ops.convert_to_numpy(
                    keras.ops.conv(x.astype(np.float32), kernel.astype(np.float32), padding="valid")
                )
                + bias
            )

        before = output(given, kernel, bias)
        after = output(wanted, *refit(kernel.astype("f4"), bias.astype("f4"), given, wanted))
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())

    def test_the_same_preprocessing_gives_a_bit_identical_layer(self):
        kernel, bias = given_weights("A")["block1_conv1"]
        for pre in PREPROCESSINGS.values():
            again = refit(kernel, bias, pre, pre)
            np.testing.assert_array_equal(again[0], kernel)
            np.testing.assert_array_equal(again[1], bias)

    def test_a_run_folder_has_its_own_mean(self, tmp_path):
        model, other = vgg("A", *SIZE, seed=1), vgg("A", *SIZE, seed=2)
        model.save_weights(tmp_path / BEST_WEIGHTS)
        with pytest.raises(weights.WeightsError, match=r"neither statistics\.json nor net\.json"):
            weights.read(tmp_path)
        Statistics((90.0, 100.0, 110.0), (1, 1, 1), ((1, 0, 0),) * 3, 1).save(tmp_path / STATISTICS)
        weights.load(other, tmp_path, mean=(90, 100, 110))
        for got, wanted in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted)
        weights.convert(tmp_path, tmp_path / "w.npz")  # for ILSVRC's mean
        x = images(1, 64, 64, 3)
        weights.load(other, tmp_path / "w.npz")
        inside = keras.Model(model.input, model.get_layer("block1_conv1").output)
        inside_other = keras.Model(other.input, other.get_layer("block1_conv1").output)
        np.testing.assert_allclose(
            inside(x - np.float32((90, 100, 110)))[:, 1:-1, 1:-1],
            inside_other(x - MEAN)[:, 1:-1, 1:-1],
            rtol=1e-4,
            atol=1e-3,
        )

    def test_a_saved_net_has_its_own_mean(self, tmp_path):
        model, other = vgg("A", *SIZE, seed=1), vgg("A", *SIZE, seed=2)
        TrainedNet.of_model(model, mean=(90, 100, 110)).save(tmp_path / "net")
        assert weights.load(other, tmp_path / "net", mean=(90, 100, 110)).net == "A"
        for got, wanted in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted)
        layers, _ = weights.read(tmp_path / "net")  # for ILSVRC's mean
        assert np.abs(layers["block1_conv1"][1]).max() > 0.1  # the biases of the model are 0

    @pytest.mark.parametrize("content", ["", "{}", '{"mean": [1, 2]}', '{"mean": ["a", 2, 3]}'])
    def test_a_saved_net_without_a_mean_is_refused(self, tmp_path, content):
        vgg("A", *SIZE).save_weights(tmp_path / BEST_WEIGHTS)
        (tmp_path / NET).write_text(content)
        with pytest.raises(UserError, match=r"net\.json"):
            weights.read(tmp_path)

    def test_another_mean_is_restored(self, tmp_path):
        """A model for another mean is saved and loaded again for that mean."""
        model, other = vgg("A", *SIZE, seed=1), vgg("A", *SIZE, seed=2)
        weights.save(model, tmp_path / "w.npz", mean=(90, 100, 110))
        weights.load(other, tmp_path / "w.npz", mean=(90, 100, 110))
        for got, wanted in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


class TestTrainedNet:
    """The net that `evaluate --weights` and `predict --weights` load."""

    def test_a_thousand_outputs_are_the_classes_of_ilsvrc(self, tmp_path):
        w = given_weights("A", (1000, 32, 1 / 16))
        foreign.caffemodel(tmp_path / "w.caffemodel", w)
        for names in (None, ("n03126707", "n02012849"), tuple(reversed(ilsvrc.wnids()))):
            net = TrainedNet.load(tmp_path / "w.caffemodel", class_names=names)
            assert net.class_names == ilsvrc.wnids()
        assert (net.architecture.net, net.architecture.crop_size) == ("A", 32)
        assert net.train_scale == (37, 37)
        with pytest.raises(ArgumentError, match=r"1000 outputs .*Received: 2 names, a, b$"):
            TrainedNet.load(tmp_path / "w.caffemodel", class_names=("a", "b"))

    def test_predictions_have_names(self, tmp_path, folder):
        foreign.caffemodel(tmp_path / "w.caffemodel", given_weights("A", (1000, 32, 1 / 16)))
        photo = folder.removeprefix("folder:") + "/val/red/000.jpg"
        done = CliRunner().invoke(
            main,
            [
                "predict",
                "--weights",
                str(tmp_path / "w.caffemodel"),
                "--multi-scale",
                "--json",
                "--score-maps",
                str(tmp_path / "maps"),
                photo,
            ],
        )
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert found["test_scales"] == [32, 37, 42]
        best = found["results"][0]["top"][0]
        assert best["name"] == ilsvrc.readable(best["class"]) != best["class"]
        assert (tmp_path / "maps/000.jpg.png").stat().st_size > 1000

    def test_a_file_without_fc_layers_is_refused(self, tmp_path):
        w = {k: v for k, v in given_weights("D").items() if k not in FC_NAMES}
        foreign.applications_h5(tmp_path / "notop.h5", w)
        with pytest.raises(weights.WeightsError, match="has no FC layers"):
            TrainedNet.load(tmp_path / "notop.h5")


class TestParts:
    @pytest.mark.parametrize("names", [("block1_conv1",), ("block1_conv1", "block2_conv1")])
    def test_few_layers_of_a_are_not_mistaken_for_larger_kernels(self, names, tmp_path):
        w = {name: given_weights("A")[name] for name in names}
        FOREIGN["keras.npz"](tmp_path / "b.npz", w)
        layers, _ = weights.read(tmp_path / "b.npz", partial=True)
        assert_equal_layers(layers, foreign.in_rgb(w))

    def test_incomplete_and_broken_layers_are_skipped(self, tmp_path):
        w = given_weights("A")
        arrays = {
            f"{layer}/{part}": pair[i]
            for layer, pair in w.items()
            for i, part in enumerate(("kernel", "bias"))
        }
        del arrays["fc2/bias"]
        arrays["block5_conv1/bias"] = arrays["block5_conv1/bias"].astype(int)
        arrays["predictions/bias"] = arrays["predictions/bias"] * np.nan
        np.savez(tmp_path / "w.npz", **arrays)
        found = weights.read(tmp_path / "w.npz", partial=True).contents
        assert set(w) - set(found.taken) == {"fc2", "block5_conv1", "predictions"}
        assert found.left == {
            "fc2": "fc2/bias is missing",
            "block5_conv1": "block5_conv1/bias must be float, and has dtype int64",
            "predictions": "predictions/bias holds NaN or Inf",
        }

    def test_fc_layers_alone_keep_their_order(self, tmp_path):
        """A channels-first file without the conv. layers that determine the number of channels."""
        w = {k: v for k, v in given_weights("A", (7, 224, 1 / 16)).items() if k in FC_NAMES}
        FOREIGN["keras.npz"](tmp_path / "fc.npz", w)
        weights.convert(tmp_path / "fc.npz", tmp_path / "fc.safetensors", "A", partial=True)
        layers, _ = weights.read(tmp_path / "fc.safetensors", "A", partial=True)
        assert_equal_layers(layers, w)
        from safetensors.numpy import load_file

        kernel = w["fc1"][0].reshape(7, 7, 32, 256).transpose(3, 2, 0, 1).reshape(256, -1)
        np.testing.assert_array_equal(
            load_file(tmp_path / "fc.safetensors")["classifier.0.weight"], kernel
        )

    def test_another_net_than_that_of_the_metadata_is_refused(self, tmp_path):
        weights.save(vgg("A", *SIZE), tmp_path / "a.npz")
        with pytest.raises(weights.WeightsError, match=r"holds net A\. Received: net='A-LRN'"):
            weights.load(vgg("A-LRN", *SIZE), tmp_path / "a.npz")
        assert weights.load(vgg("A-LRN", *SIZE), tmp_path / "a.npz", partial=True).left == {}

    def test_a_file_without_fc_layers_is_converted_and_partly_loaded(self, tmp_path):
        w = {k: v for k, v in given_weights("D").items() if k not in FC_NAMES}
        foreign.applications_h5(tmp_path / "notop.h5", w)
        found = weights.convert(tmp_path / "notop.h5", tmp_path / "notop.npz")
        assert (found.net, found.has_top, found.width) == ("D", False, 1 / 16)
        model = vgg("D", *SIZE)
        before = model.get_weights()
        with pytest.raises(
            weights.WeightsError, match=r"fc1/kernel is missing;.*With partial=True, only"
        ):
            weights.load(model, tmp_path / "notop.npz")
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))
        found = weights.load(model, tmp_path / "notop.npz", partial=True)
        assert found.taken == tuple(w)
        np.testing.assert_array_equal(
            model.get_layer("block5_conv3").get_weights()[0], w["block5_conv3"][0]
        )
        np.testing.assert_array_equal(model.get_layer("fc1").get_weights()[0], before[-6])

    def test_a_layer_of_another_shape_is_skipped_with_the_reason(self, tmp_path):
        foreign.applications_h5(tmp_path / "w.h5", given_weights("D"))
        model = vgg("D", 3, *SIZE[1:])
        with pytest.raises(
            weights.WeightsError, match=r"shape \(256, 3\), and has shape \(256, 7\)"
        ):
            weights.load(model, tmp_path / "w.h5")
        found = weights.load(model, tmp_path / "w.h5", partial=True)
        assert set(found.left) == {"predictions"}
        assert "shape (256, 3), and has shape (256, 7)" in found.left["predictions"]
        assert "fc2" in found.taken

    def test_the_first_blocks_of_a_net_are_converted(self, tmp_path):
        """A file like vgg19-blocks1-3.npz."""
        w = {k: v for k, v in given_weights("E").items() if k < "block4"}
        FOREIGN["keras.npz"](tmp_path / "b.npz", w)
        files = [str(tmp_path / name) for name in ("b.npz", "o.safetensors")]
        done = CliRunner().invoke(main, ["convert", *files, "--partial"])
        assert done.exit_code == 0, done.output
        assert "net E" in done.output
        assert "took block1_conv1, block1_conv2, block2_conv1" in done.output
        assert "classes" not in done.output  # the file does not determine their number
        layers, _ = weights.read(tmp_path / "o.safetensors", partial=True)
        assert_equal_layers(layers, foreign.in_rgb(w), rtol=2e-6, atol=1e-6)

    def test_a_file_without_any_wanted_layer_is_refused(self, tmp_path):
        FOREIGN["keras.npz"](tmp_path / "w.npz", given_weights("A", (7, 64, 1 / 8)))
        with pytest.raises(weights.WeightsError, match="has none of the wanted layers"):
            weights.load(vgg("A", *SIZE), tmp_path / "w.npz", partial=True)

    def test_training_can_start_from_any_file(self, tmp_path, folder):
        """Fine-tuning on other classes takes all layers of the same shape."""
        foreign.caffemodel(tmp_path / "w.caffemodel", given_weights("A", (9, 32, 1 / 16)))
        arguments = [
            "train",
            "--recipe",
            "small",
            "--net",
            "A",
            "--width",
            "0.0625",
            "--crop-size",
            "32",
            "--train-scale",
            "32,40",
            "--batch-size",
            "8",
            "--epochs",
            "1",
            "--learning-rate",
            "0",
            "--data",
            folder,
            "--out",
            str(tmp_path / "run"),
            "--init-from",
            str(tmp_path / "w.caffemodel"),
            "--init-layers",
        ]
        done = CliRunner().invoke(main, [*arguments, "all"])
        assert "predictions has shapes [(256, 9), (9,)]" in done.output
        assert not (tmp_path / "run").exists()
        done = CliRunner().invoke(main, [*arguments, "matching", "--preprocessing", "rgb"])
        assert done.exit_code == 0, done.output
        layers, _ = weights.read(tmp_path / "run/best.weights.h5")
        expected = given_weights("A", (9, 32, 1 / 16))
        del layers["predictions"], expected["predictions"]
        assert_equal_layers(layers, expected)
        again = [*arguments, "all", "--preprocessing", "torch"]
        again[again.index("--init-from") + 1] = again[again.index("--out") + 1]
        again[again.index("--out") + 1] = str(tmp_path / "again")
        done = CliRunner().invoke(main, again)
        assert "--preprocessing goes with a weights file" in done.output
        assert not (tmp_path / "again").exists()

    def test_warm_start_takes_the_papers_layers_from_a_file(self, tmp_path):
        from vgg_keras.callbacks import WarmStart

        foreign.caffemodel(tmp_path / "a.caffemodel", given_weights("A"))
        model = vgg("D", *SIZE)
        start = WarmStart(weights.read(tmp_path / "a.caffemodel").layers, WARM_START_LAYERS)
        assert start.apply(model) == list(WARM_START_LAYERS)
        kernel = model.get_layer("block3_conv2").get_weights()[0]
        np.testing.assert_array_equal(kernel, given_weights("A")["block3_conv2"][0])


class TestNaming:
    @pytest.mark.parametrize("net", NETS)
    @pytest.mark.parametrize("family", CONVENTIONS, ids=lambda family: family.name)
    def test_every_net_is_identified_in_every_family(self, net, family):
        kernels = kernels_of(NETS[net], *SIZE)
        for prefix in ("", "model/vgg."):
            shapes = {
                name: family.shapes(kernels[layer], layer in FC_NAMES)[0]
                if part == "kernel"
                else kernels[layer][-1:]
                for (layer, part), name in family.names(NETS[net], prefix).items()
            }
            found = identify(shapes)
            assert found is not None
            assert (found.family, found.prefix, found.others) == (family, prefix, ())
            assert found.net.name == net.replace("A-LRN", "A")  # LRN has no weights
            assert found.is_complete

    def test_a_name_longer_than_any_is_ignored(self):
        """Each of its dots could end a prefix, which would take time that is quadratic in them."""
        name = "features.0.weight"
        shape = (64, 3, 3, 3)
        assert identify({"a." * 100 + name: shape}) is not None
        assert identify({"a." * 200 + name: shape}) is None

    @pytest.mark.parametrize("family", CONVENTIONS, ids=lambda family: family.name)
    def test_layouts_are_inverses(self, family):
        rng = np.random.default_rng(0)
        for kernel, is_fc in (((3, 3, 5, 7), False), ((2, 2, 5, 7), True), ((1, 1, 4, 6), True)):
            shape = (int(np.prod(kernel[:3])), kernel[3]) if is_fc else kernel
            array = rng.normal(size=shape).astype(np.float32)
            theirs = family.to_theirs(array, kernel, is_fc)
            assert theirs.shape == family.shapes(kernel, is_fc)[0]
            np.testing.assert_array_equal(family.to_ours(theirs, kernel, is_fc), array)

    @settings(max_examples=60, deadline=None)
    @given(
        net=st.sampled_from(list(NETS)),
        width=st.floats(0.01, 2),
        classes=st.integers(1, 3000),
        crop=st.sampled_from([32, 64, 224]),
        top=st.booleans(),
    )
    def test_the_size_is_inferred_at_any_width(self, net, width, classes, crop, top):
        """Channels are rounded, so the inferred width must give each layer the same number."""
        kernels = kernels_of(NETS[net], classes, crop, width)
        kernels = {k: v for k, v in kernels.items() if top or k not in FC_NAMES}
        sizes = {(k, "kernel"): int(np.prod(v)) for k, v in kernels.items()}
        sizes |= {(k, "bias"): v[-1] for k, v in kernels.items()}
        again = kernels_of(NETS[net], *geometry(NETS[net], sizes))
        assert {k: again[k] for k in kernels} == kernels

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_dataparallel_names_and_half_precision_are_read(self, dtype, tmp_path):
        """Names with `module.`, and bfloat16 in a process without TensorFlow."""
        dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
        tensors = foreign.torch_tensors(foreign.in_torch(given_weights("A"), *TORCH))
        halves = {f"module.{name}": array.astype(dtype) for name, array in tensors.items()}
        foreign.safetensors(tmp_path / "h.safetensors", halves)
        code = (
            "from vgg_keras import weights; import sys; "
            "weights.convert(sys.argv[1] + '/h.safetensors', sys.argv[1] + '/h.npz')"
        )
        subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
        layers, _ = weights.read(tmp_path / "h.npz")
        expected = given_weights("A")["fc2"][0].astype(dtype).astype(np.float32)
        np.testing.assert_array_equal(layers["fc2"][0], expected)


class TestCommand:
    def test_a_run_is_not_overwritten_with_its_own_weights(self, tmp_path):
        with pytest.raises(weights.WeightsError, match=r"must not be the source\. Received"):
            weights.convert(tmp_path, tmp_path / "best.weights.h5")

    def test_convert_prints_json(self, tmp_path):
        foreign.caffemodel(tmp_path / "w.caffemodel", given_weights("D"))
        files = [str(tmp_path / name) for name in ("w.caffemodel", "w.h5")]
        done = CliRunner().invoke(main, ["convert", *files, "--json"])
        (found,) = json.loads(done.stdout)["results"]
        assert (found["net"], found["family"], found["num_classes"]) == ("D", "Caffe", 7)
        assert (found["crop_size"], found["width"]) == SIZE[1:]
        with h5py.File(tmp_path / "w.h5") as file:
            kernel = file["block1_conv1/block1_conv1/kernel:0"][()]
        np.testing.assert_array_equal(kernel, given_weights("D")["block1_conv1"][0])  # BGR again

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (
                ("w.npz", "w.onnx"),
                "end in .weights.h5, .h5, .keras, .safetensors, .npz. Received: w.onnx",
            ),
            (("none.npz", "o.npz"), "There is no weights file"),
            (("w.npz", "w.npz"), "target must not be the source"),
            (("w.npz", "o.npz", "--net", "E"), "exactly net E: block3_conv3/kernel is missing"),
            (("w.txt", "o.npz"), "w.txt is an empty file"),
            ((".", "o.npz"), "is not a run or saved net"),
        ],
    )
    def test_an_error_is_one_line(self, tmp_path, names, message):
        FOREIGN["keras.npz"](tmp_path / "w.npz", given_weights("B"))
        (tmp_path / "w.txt").touch()
        files = [str(tmp_path / name) for name in names[:2]]
        done = CliRunner().invoke(main, ["convert", *files, *names[2:]])
        assert done.exit_code == 1, done.output
        assert message in done.output
        assert done.output.count("\n") == 1
        assert sorted(p.name for p in tmp_path.iterdir()) == ["w.npz", "w.txt"]

    def test_the_choices_of_preprocessing_are_listed(self, tmp_path):
        FOREIGN["keras.npz"](tmp_path / "w.npz", given_weights("B"))
        files = [str(tmp_path / "w.npz"), str(tmp_path / "o.npz")]
        done = CliRunner().invoke(main, ["convert", *files, "--preprocessing", "tf"])
        assert done.exit_code == 2
        assert "'tf' is not one of 'rgb', 'caffe', 'torch', 'vggface'" in done.output

    def test_a_full_disk_leaves_the_old_file(self, tmp_path, monkeypatch):
        import errno

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        FOREIGN["keras.npz"](tmp_path / "w.npz", given_weights("A"))
        (tmp_path / "o.h5").write_text("before")
        monkeypatch.setattr(os, "posix_fallocate", full)
        done = CliRunner().invoke(
            main, ["convert", str(tmp_path / "w.npz"), str(tmp_path / "o.h5")]
        )
        assert "No space left" in done.output
        assert (tmp_path / "o.h5").read_text() == "before"

    def test_convert_does_not_import_tensorflow(self, tmp_path):
        FOREIGN["keras.npz"](tmp_path / "w.npz", given_weights("A"))
        code = (
            "import sys; from vgg_keras import weights; "
            f"weights.convert({str(tmp_path / 'w.npz')!r}, {str(tmp_path / 'w.h5')!r}); "
            "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_weights_of_one_backend_are_used_on_another(tmp_path):
    """Weights of TensorFlow are loaded and used on JAX, and back."""
    pytest.importorskip("jax")
    model = vgg("A-LRN", 5, 32, 1 / 16, seed=3)
    for ending in (".weights.h5", ".npz"):
        weights.save(model, tmp_path / f"w{ending}")
    x = images(1, 32, 64, 3) - MEAN
    np.save(tmp_path / "x.npy", x)
    code = """
import sys, numpy as np, keras
from vgg_keras import vgg, weights
assert keras.backend.backend() == "jax"
folder = sys.argv[1] + "/"
model = vgg("A-LRN", 5, 32, 1 / 16, seed=4)
model.load_weights(folder + "w.weights.h5")
np.save(folder + "y.npy", model.predict(np.load(folder + "x.npy"), verbose=0))
for source, target in (("w.weights.h5", "h5.npz"), ("w.npz", "npz.npz")):
    model.set_weights([0 * w for w in model.get_weights()])
    weights.load(model, folder + source)
    weights.save(model, folder + target)
model.save_weights(folder + "back.weights.h5")
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    expected = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-4, atol=1e-6)
    for file in ("h5.npz", "npz.npz", "back.weights.h5"):
        other = vgg("A-LRN", 5, 32, 1 / 16, seed=5)
        weights.load(other, tmp_path / file)
        for got, wanted in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_keras_file_is_not_run(tmp_path):
    """The configuration in a `.keras` file, which can name code, is not read."""
    vgg("A", *SIZE, seed=1).save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        stored = archive.read("model.weights.h5")
    with zipfile.ZipFile(tmp_path / "evil.keras", "w") as archive:
        archive.writestr("config.json", '{"class_name": "Lambda", "module": "os"}')
        archive.writestr("model.weights.h5", stored)
    assert weights.read(tmp_path / "evil.keras").contents.net == "A"
