"""Files of Keras in the layouts of all its versions, and what their nets take."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest

from tests.vgg_keras.weights import foreign, keras_layouts
from tests.vgg_keras.weights.keras_layouts import layer, sequential
from tests.vgg_keras.weights.test_formats import assert_equal_layers, images
from tests.vgg_keras.weights.test_refusals import peak
from vgg_keras import TrainedNet, vgg, weights
from vgg_keras.evaluation.posteriors import make_predict_fn
from vgg_keras.nets import NETS
from vgg_keras.weights.keras_config import KerasConfig, fold
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing

SIZE = (7, 64, 1 / 64)
MEAN = PREPROCESSINGS["rgb"].mean


def given(net="D"):
    return foreign.random_weights(foreign.kernel_shapes(net, *SIZE))


class TestLayouts:
    @pytest.mark.parametrize("net", [net for net in NETS if net != "A-LRN"])
    def test_layers_without_names_are_named_by_their_order(self, net, tmp_path):
        with h5py.File(tmp_path / "w.weights.h5", "w") as file:
            keras_layouts.keras_3(file, given(net), is_named=False)
        layers, found = weights.read(tmp_path / "w.weights.h5")
        assert (found.net, found.crop_size, found.is_assumed) == (net, 64, True)
        assert_equal_layers(layers, foreign.in_rgb(given(net)))

    def test_the_configuration_of_an_archive_names_the_layers(self, tmp_path):
        """A head of three layers has other names than the FC layers of the net."""
        with h5py.File(tmp_path / "w.h5", "w") as file:
            keras_layouts.keras_3(file, given(), is_named=False)
        names = [*given()][:-3] + ["hidden", "more", "scores"]
        kinds = ["Conv2D"] * 13 + ["Dense"] * 3
        layers = [layer(kind, name=name) for kind, name in zip(kinds, names, strict=True)]
        keras_layouts.archive(tmp_path / "w.keras", tmp_path / "w.h5", sequential(*layers))
        found = weights.read(tmp_path / "w.keras", partial=True, preprocessing="rgb").contents
        assert found.taken == tuple(names[:-3])
        assert {"hidden/kernel", "more/kernel", "scores/kernel"} <= set(found.left)

    @pytest.mark.parametrize("ending", [".weights.h5", ".h5"])
    def test_bfloat16(self, ending, tmp_path):
        """HDF5 has no such dtype. Keras saves two bytes of no type."""
        dtype = ml_dtypes.bfloat16
        halves = {k: tuple(a.astype(dtype) for a in pair) for k, pair in given().items()}
        if ending == ".h5":
            foreign.applications_h5(tmp_path / "w.h5", halves)
        else:
            with h5py.File(tmp_path / "w.weights.h5", "w") as file:
                keras_layouts.keras_3(file, given(), dtype=dtype)
        layers, _ = weights.read(tmp_path / f"w{ending}", preprocessing="rgb")
        assert_equal_layers(
            layers, {k: tuple(a.astype("f4") for a in pair) for k, pair in halves.items()}
        )

    @pytest.mark.parametrize(
        ("name", "backend", "is_flipped"),
        [
            ("w.h5", b"theano", True),
            ("w.h5", "tensorflow", False),
            ("vgg16_weights_th_dim_ordering_th_kernels.h5", None, True),
            ("vgg16_weights_th_dim_ordering_tf_kernels.h5", None, False),
        ],
    )
    def test_the_ordering_of_theano(self, name, backend, is_flipped, tmp_path):
        turned = keras_layouts.theano(given())
        if not is_flipped:
            turned |= {
                k: (np.ascontiguousarray(kernel[:, :, ::-1, ::-1]), bias)
                for k, (kernel, bias) in turned.items()
                if kernel.ndim == 4
            }
        foreign.applications_h5(tmp_path / name, turned)
        if backend is not None:
            with h5py.File(tmp_path / name, "a") as file:
                file.attrs["backend"] = backend
        assert_equal_layers(weights.read(tmp_path / name).layers, foreign.in_rgb(given()))

    def test_kernels_of_theano_in_the_ordering_of_tensorflow(self, tmp_path):
        path = tmp_path / "vgg16_weights_tf_dim_ordering_th_kernels.h5"
        turned = {
            k: (np.ascontiguousarray(kernel[::-1, ::-1]), bias)
            if kernel.ndim == 4
            else (kernel, bias)
            for k, (kernel, bias) in given().items()
        }
        foreign.applications_h5(path, turned)
        assert_equal_layers(weights.read(path).layers, foreign.in_rgb(given()))

    def test_what_keras_1_and_2_do_not_state_is_asked_for(self, tmp_path):
        foreign.applications_h5(tmp_path / "a.h5", keras_layouts.theano(given()))
        with pytest.raises(weights.WeightsError, match=r"does not state the backend .*th_kernels"):
            weights.read(tmp_path / "a.h5")
        foreign.applications_h5(tmp_path / "b.h5", given())
        with h5py.File(tmp_path / "b.h5", "a") as file:
            file.attrs["backend"] = b"theano"
        with pytest.raises(weights.WeightsError, match="order of the inputs of fc1 is not known"):
            weights.read(tmp_path / "b.h5")

    @pytest.mark.parametrize(
        ("flatten", "is_moved"), [({}, True), ({"data_format": "channels_first"}, False)]
    )
    def test_fc1_of_a_model_with_channels_first(self, flatten, is_moved, tmp_path):
        """Since Keras 2.2 `Flatten` brings the channels to the end itself."""
        fc1 = foreign.channels_first(given(), "fc1").T if is_moved else given()["fc1"][0]
        with h5py.File(tmp_path / "w.h5", "w") as file:
            keras_layouts.keras_3(file, given() | {"fc1": (fc1, given()["fc1"][1])})
        convs = layer("Conv2D", data_format="channels_first")
        config = sequential(convs, layer("Flatten", **flatten))
        keras_layouts.archive(tmp_path / "w.keras", tmp_path / "w.h5", config)
        layers, _ = weights.read(tmp_path / "w.keras", preprocessing="rgb")
        assert_equal_layers(layers, given())

    def test_files_of_2016_have_numbers_for_names(self, tmp_path):
        keras_layouts.keras_1(tmp_path / "vgg16_weights.h5", keras_layouts.theano(given()))
        layers, found = weights.read(tmp_path / "vgg16_weights.h5")
        assert (found.net, found.num_classes) == ("D", 7)
        assert_equal_layers(layers, foreign.in_rgb(given()))

    def test_snapshots_of_caffe(self, tmp_path):
        keras_layouts.caffe(tmp_path / "vgg_iter_9.caffemodel.h5", given())
        layers, found = weights.read(tmp_path / "vgg_iter_9.caffemodel.h5")
        assert found.family == "Caffe"
        assert_equal_layers(layers, foreign.in_rgb(given()))

    def test_a_preset_of_keras_hub(self, tmp_path):
        """The FC layers are conv. layers in another file, and the input is in a third one."""
        sd = np.array([58.0, 57.0, 57.5])
        keras_layouts.keras_hub(tmp_path / "p", given(), list(1 / sd), list(-np.array(MEAN) / sd))
        for name, expected in (
            ("task", given()),
            ("model", {k: v for k, v in given().items() if "conv" in k}),
        ):
            layers, found = weights.read(tmp_path / f"p/{name}.weights.h5")
            np.testing.assert_allclose(found.preprocessing.mean, MEAN)
            np.testing.assert_allclose(found.preprocessing.sd, sd)
            kernel = expected["block1_conv1"][0] / sd.astype("f4")[:, None]
            np.testing.assert_allclose(layers["block1_conv1"][0], kernel, rtol=1e-5)
            del layers["block1_conv1"], expected["block1_conv1"]
            assert_equal_layers(layers, expected)
        (tmp_path / "p/task.json").unlink()
        with pytest.raises(weights.WeightsError, match="does not tell the preprocessing"):
            weights.read(tmp_path / "p/task.weights.h5")


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """A model with a net inside, which takes RGB in 0..255, and its files."""
    folder = tmp_path_factory.mktemp("nested")
    net = vgg("A", 5, 32, 1 / 64, seed=1)
    statistics = keras.layers.Normalization(name="statistics")
    statistics.adapt(images(4, 8, 8, 3) / 127.5 - 1)
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.RandomFlip(),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            statistics,
            net,
            keras.layers.Dense(2, name="own"),
        ]
    )
    model.compile("sgd", "mse")
    for ending in (".h5", ".keras"):
        model.save(folder / f"m{ending}")
    model.save_weights(folder / "m.weights.h5")
    return model, net, folder


class TestNested:
    @pytest.mark.parametrize("ending", [".h5", ".keras", ".weights.h5"])
    def test_a_net_inside_a_model(self, ending, fine_tuned):
        _, net, folder = fine_tuned
        layers, found = weights.read(folder / f"m{ending}", partial=True, preprocessing="rgb")
        assert found.net == "A"
        assert set(found.left) == {"own/kernel", "own/bias"}
        assert_equal_layers(
            layers, {name: net.get_layer(name).get_weights() for name in found.taken}
        )

    @pytest.mark.parametrize("ending", [".h5", ".keras"])
    def test_layers_in_front_of_it_are_taken_into_account(self, ending, fine_tuned):
        model, net, folder = fine_tuned
        layers, found = weights.read(folder / f"m{ending}", partial=True)
        assert not found.is_assumed
        x = images(1, 32, 32, 3)
        front = keras.Sequential([keras.Input((None, None, 3)), *model.layers[1:3]])
        convs = keras.Model(net.input, net.get_layer("block1_conv1").output)
        expected = convs(front(x))
        other = vgg("A", 5, 32, 1 / 64)
        other.get_layer("block1_conv1").set_weights(layers["block1_conv1"])
        got = keras.Model(other.input, other.get_layer("block1_conv1").output)(x - np.float32(MEAN))
        np.testing.assert_allclose(got[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-4)

    def test_weights_alone_do_not_state_their_input(self, fine_tuned):
        with pytest.raises(weights.WeightsError, match="layers of kind normalization, rescaling"):
            weights.read(fine_tuned[2] / "m.weights.h5", partial=True)

    def test_a_net_inside_a_file_without_names(self, tmp_path):
        with h5py.File(tmp_path / "w.weights.h5", "w") as file:
            keras_layouts.keras_3(file, given(), path="layers/functional/layers", is_named=False)
            keras_layouts.keras_3(
                file, {"x": (np.ones((7, 2), "f4"), np.ones(2, "f4"))}, is_named=False
            )
        layers, found = weights.read(tmp_path / "w.weights.h5", partial=True, preprocessing="rgb")
        assert set(found.left) == {"dense/kernel", "dense/bias"}
        assert_equal_layers(layers, given())


class TestFront:
    CONV = layer("Conv2D")

    @pytest.mark.parametrize(
        ("front", "expected"),
        [
            ([layer("Rescaling", scale=1 / 255)], Preprocessing((0, 0, 0), (255,) * 3)),
            (
                [layer("Rescaling", scale=[1 / 58, 1 / 57, 1 / 57], offset=[-2.0, -2.0, -1.0])],
                Preprocessing((116, 114, 57), (58, 57, 57)),
            ),
            (
                [
                    layer("InputLayer"),
                    layer("Resizing"),
                    layer("Normalization", mean=MEAN, variance=1),
                ],
                Preprocessing(MEAN),
            ),
            (
                [
                    layer("Rescaling", scale=1 / 255, offset=0),
                    layer("RandomRotation"),
                    layer("Normalization", mean=[0.5, 0.5, 0.5], variance=[0.25, 0.25, 0.25]),
                ],
                Preprocessing((127.5,) * 3, (127.5,) * 3),
            ),
        ],
    )
    def test_scales_and_means_are_the_preprocessing(self, front, expected):
        found = fold(KerasConfig(sequential(*front, self.CONV)).in_front(), {})
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-9)
        np.testing.assert_allclose(found.sd, expected.sd)

    @pytest.mark.parametrize(
        "front",
        [
            layer("Lambda", function="x / 255"),
            layer("GetItem"),  # of `preprocess_input`
            layer("Normalization", mean=None, variance=None),
            layer("Normalization", mean=[0.5, 0.5, 0.5], variance=[0.05, 0.05, 0.05]),  # of 0..1
            layer("Normalization", mean=0, variance=1, invert=True),
            layer("Rescaling", scale=-1),
            # Layers of somebody's own with names like those of Keras, in Keras 2 and 3.
            layer("mine>Rescaling", scale=1 / 255),
            layer("mine>RandomScale"),
            layer("Rescaling", scale=1 / 255) | {"module": "mine", "registered_name": None},
            layer("Identity") | {"module": "mine", "registered_name": "mine>Identity"},
            layer("Rescaling", scale={"class_name": "__numpy__"}),
            layer("Rescaling", scale=float("nan")),
            layer("Rescaling", scale=[1, 2]),
        ],
    )
    def test_other_layers_are_asked_about(self, front, tmp_path):
        with h5py.File(tmp_path / "w.h5", "w") as file:
            keras_layouts.keras_3(file, given())
        config = sequential(front, self.CONV)
        keras_layouts.archive(tmp_path / "w.keras", tmp_path / "w.h5", config)
        name = front["config"]["name"]
        with pytest.raises(
            weights.WeightsError, match=rf"its layers {name} \([\w>]+\) change what"
        ):
            weights.read(tmp_path / "w.keras")
        assert_equal_layers(weights.read(tmp_path / "w.keras", preprocessing="rgb").layers, given())


FRONTS = {
    "0..1": lambda: keras.layers.Rescaling(1 / 255),
    "-1..1": lambda: keras.layers.Rescaling(1 / 127.5, offset=-1),
    "torch": lambda: keras.layers.Normalization(
        mean=PREPROCESSINGS["torch"].mean, variance=np.square(PREPROCESSINGS["torch"].sd)
    ),
}


def model_of(front, layers, tmp_path):
    """A model of Keras's layers alone that takes RGB in 0..255, with a layer in front of a net."""
    foreign.applications_h5(tmp_path / "plain.h5", foreign.in_rgb(layers))
    weights.convert(tmp_path / "plain.h5", tmp_path / "plain.keras", preprocessing="caffe")
    plain = keras.models.load_model(tmp_path / "plain.keras")
    return keras.Sequential([keras.Input((64, 64, 3)), FRONTS[front](), *plain.layers[1:]])


class TestMean:
    """A net subtracts the mean of its file, so that its padding has the colour that it had."""

    @pytest.mark.parametrize(
        ("front", "ending"),
        [("0..1", ".keras"), ("-1..1", ".h5"), ("torch", ".h5"), ("torch", ".safetensors")],
    )
    def test_posteriors_are_those_of_the_model_on_the_border_too(self, front, ending, tmp_path):
        layers = given("A")
        model = model_of(front, layers, tmp_path)
        x = images(2, 64, 64, 3) * np.float32([1, 0.3])[:, None, None, None]
        head = model.get_layer("predictions")
        kernel, bias = head.get_weights()
        features = keras.Sequential([keras.Input((64, 64, 3)), *model.layers[:-1]])
        logits = keras.ops.convert_to_numpy(features(x)) @ kernel
        head.set_weights([2 * kernel / np.ptp(logits, 0).max(), 0 * bias])  # so that images differ
        layers["predictions"] = head.get_weights()
        file = tmp_path / f"w{ending}"
        if ending == ".safetensors":
            foreign.safetensors(file, foreign.torch_tensors(layers))
        else:
            model.save(file)
        expected = keras.ops.convert_to_numpy(model(x))
        assert np.ptp(expected, 0).max() > 0.01
        net = TrainedNet.load(file)
        np.testing.assert_allclose(
            make_predict_fn(net, flip=False)(x)["posteriors"], expected, atol=1e-5
        )
        weights.convert(file, tmp_path / "out.keras")  # keeps the mean
        again = keras.models.load_model(tmp_path / "out.keras")
        np.testing.assert_allclose(again(x), expected, atol=1e-5)
        assert TrainedNet.load(tmp_path / "out.keras").mean == pytest.approx(net.mean, abs=1e-4)

    def test_the_mean_of_ilsvrc_is_kept_in_every_rounding(self, tmp_path):
        model = model_of("0..1", given("A"), tmp_path)  # writes plain.keras
        assert model.layers[0].scale == 1 / 255
        foreign.matconvnet(tmp_path / "w.mat", given("A"), mean=np.float32(MEAN).tolist())
        for name in ("plain.keras", "plain.h5", "w.mat"):
            assert TrainedNet.load(tmp_path / name).mean == MEAN


class TestNames:
    """A model that somebody named "D" is not one of this package if it has other FC layers."""

    @pytest.mark.parametrize(
        ("net", "given_layers", "is_ours"),
        [
            ("D", given(), False),
            ("D", {k: v for k, v in given().items() if "conv" in k}, True),
            ("vgg16", given(), False),
        ],
    )
    def test_fc_layers_tell_more_than_the_name(self, net, given_layers, is_ours, tmp_path):
        with h5py.File(tmp_path / "w.weights.h5", "w") as file:
            keras_layouts.keras_3(file, given_layers)
            file.create_group("vars").attrs["name"] = net
        layers, found = weights.read(tmp_path / "w.weights.h5")
        kind = "models of vgg_keras" if is_ours else "files with the names of Keras"
        expected = PREPROCESSINGS["rgb" if is_ours else "caffe"]
        assert (found.preprocessing, found.assumed_for) == (expected, kind)
        mean = (1.0, 2.0, 3.0)
        other = weights.read(tmp_path / "w.weights.h5", source_mean=mean).contents
        assert (other.preprocessing.mean, other.is_assumed) == (mean, not is_ours)
        assert_equal_layers(layers, given_layers if is_ours else foreign.in_rgb(given_layers))

    def test_a_head_of_its_own_is_asked_about(self, tmp_path):
        own = {k: v for k, v in given().items() if "conv" in k} | {
            "own": (np.ones((32, 3), "f4"), np.ones(3, "f4"))
        }
        with h5py.File(tmp_path / "w.weights.h5", "w") as file:
            keras_layouts.keras_3(file, own)
            file.create_group("vars").attrs["name"] = "D"
        with pytest.raises(weights.WeightsError, match="does not tell the preprocessing"):
            weights.read(tmp_path / "w.weights.h5", partial=True)


class TestArchive:
    """`convert` to a `.keras` file."""

    def test_it_does_not_depend_on_the_settings_of_keras(self, tmp_path):
        foreign.applications_h5(tmp_path / "w.h5", given("A"))
        keras.config.set_image_data_format("channels_first")
        try:
            weights.convert(tmp_path / "w.h5", tmp_path / "w.keras")
        finally:
            keras.config.set_image_data_format("channels_last")
        loaded = keras.models.load_model(tmp_path / "w.keras")
        assert loaded.get_layer("flatten").data_format == "channels_last"
        assert_equal_layers(weights.read(tmp_path / "w.keras").layers, foreign.in_rgb(given("A")))

    @pytest.mark.parametrize("net", ["C", "A-LRN"])
    def test_keras_loads_it_as_a_model_of_images(self, net, tmp_path):
        model = vgg(net, *SIZE, seed=1)
        weights.save(model, tmp_path / "w.npz")
        weights.convert(tmp_path / "w.npz", tmp_path / "w.keras")
        loaded = keras.models.load_model(tmp_path / "w.keras")
        x = images(2, 64, 64, 3)
        np.testing.assert_allclose(loaded(x), model(x - np.float32(MEAN)), rtol=1e-5, atol=1e-6)
        own = [part for part in loaded.layers if type(part).__module__.startswith("vgg_keras")]
        assert len(own) == (net == "A-LRN")  # others load without this package

    def test_conv_layers_take_images_of_any_size(self, tmp_path):
        convs = {k: v for k, v in given("E").items() if "conv" in k}
        foreign.applications_h5(tmp_path / "notop.h5", convs)
        weights.convert(tmp_path / "notop.h5", tmp_path / "w.keras")
        loaded = keras.models.load_model(tmp_path / "w.keras")
        assert loaded.output_shape == (None, None, None, 8)
        assert loaded(images(1, 64, 96, 3)).shape == (1, 2, 3, 8)

    def test_a_missing_layer_is_refused(self, tmp_path):
        left = {k: v for k, v in given("A").items() if k != "block2_conv1"}
        foreign.applications_h5(tmp_path / "w.h5", left)
        with pytest.raises(weights.WeightsError, match=r"block3_conv1 takes 2 channels.*: 1"):
            weights.convert(tmp_path / "w.h5", tmp_path / "w.keras", partial=True)
        assert not (tmp_path / "w.keras").exists()


def good(path, **options):
    with h5py.File(path, "w") as file:
        keras_layouts.keras_3(file, given("A"), **options)


def cycle(path):
    """A group that has itself as a member."""
    good(path)
    with h5py.File(path, "a") as file:
        file["layers/again"] = file["layers"]


def many_groups(path):
    good(path)
    with h5py.File(path, "a") as file:
        for i in range(2100):
            file.create_group(f"layers/group_{i}")


def external_model(path):
    good(path.with_name("other.h5"))
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        file["layers"] = h5py.ExternalLink(str(path.with_name("other.h5")), "/layers")


def soft_link(path):
    good(path)
    with h5py.File(path, "a") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = h5py.SoftLink("/layers/dense_1/vars/0")


def bomb(shape, path="layers/normalization/vars/0", **options):
    def make(file_path):
        good(file_path)
        with h5py.File(file_path, "a") as file:
            parent, name = path.rsplit("/", 1)
            group = file.require_group(parent)
            for i in {name, "1"}:
                group.create_dataset(i, shape=shape, dtype="f4", **options)

    return make


def archived(make, config):
    def make_archive(path):
        make(path.with_name("inner.h5"))
        keras_layouts.archive(path, path.with_name("inner.h5"), config)

    return make_archive


def caffe_link(path):
    keras_layouts.caffe(path, given("A"))
    with h5py.File(path, "a") as file:
        del file["data/fc6/0"]
        file["data/fc6/0"] = h5py.ExternalLink("/etc/passwd", "/x")


def of_2016(**attributes):
    def make(path):
        keras_layouts.keras_1(path, keras_layouts.theano(given("A")))
        with h5py.File(path, "a") as file:
            file.attrs.update(attributes)

    return make


NORMALIZED = sequential(layer("Normalization", name="normalization"), layer("Conv2D"))
HOSTILE = {
    # name of the file: function that makes it, and text of the message
    "cycle.weights.h5": (cycle, "nests more groups than any model"),
    "many groups.weights.h5": (many_groups, "nests more groups than any model"),
    "model of another file.weights.h5": (external_model, "layers is not stored in the file"),
    "soft link.weights.h5": (soft_link, "0 is not stored in the file itself"),
    "huge kernel.weights.h5": (
        bomb((2**20, 2**20), "layers/dense_9/vars/0", chunks=(64, 64)),
        "made to fill memory",
    ),
    "huge mean.keras": (
        archived(bomb((2**14, 2**14), compression="gzip"), NORMALIZED),
        "change what its conv. layers take",
    ),
    "code.keras": (
        archived(good, sequential(layer("Lambda", function="os.system"), layer("Conv2D"))),
        "lambda (Lambda) change what its conv. layers take",
    ),
    "long configuration.keras": (archived(good, " " * 2**25), "config.json is longer than"),
    "deep configuration.keras": (archived(good, "[" * 10**6), "cannot be read"),
    "layers of no kind.keras": (
        archived(good, '{"config": {"layers": [3, null, {"config": [1]}]}}'),
        "change what its conv. layers take",
    ),
    "link.caffemodel.h5": (caffe_link, "0 is not stored in the file itself"),
    "many layers.h5": (of_2016(nb_layers=2**40), "layer_22"),
    "no number.h5": (of_2016(nb_layers="many"), "invalid literal"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name(name, tmp_path):
    """Nothing runs, no other file is read, and no memory is filled."""
    make, message = HOSTILE[name]
    make(tmp_path / name)
    peak()
    before = peak()
    with pytest.raises(weights.WeightsError) as refusal:
        weights.read(tmp_path / name)
    assert peak() - before < 2**26
    assert name in str(refusal.value)
    assert message in str(refusal.value)


@pytest.mark.slow
def test_models_are_exported_under_jax(tmp_path):
    """Sides that are not known are symbols there. Keras's own export makes a SavedModel."""
    pytest.importorskip("jax")
    code = """
import sys, numpy as np
from vgg_keras import vgg
for net, rounding in (("A", "down"), ("A-LRN", "up")):
    folder = f"{sys.argv[1]}/{net}"
    model = vgg(net, 5, 64, 1 / 64, pool_rounding=rounding)
    model.export(folder, verbose=False)
    import tensorflow as tf
    served = tf.saved_model.load(folder)
    for shape in ((2, 64, 64, 3), (1, 100, 130, 3)):
        x = np.random.default_rng(0).normal(0, 60, shape).astype(np.float32)
        np.testing.assert_allclose(served.serve(x), model(x), rtol=1e-5, atol=1e-6, err_msg=net)
"""
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        env=os.environ | {"KERAS_BACKEND": "jax"},
    )
