"""A net as a value: made from a model, loaded, saved, refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.conftest import photo
from tests.tiny import CROP, MEAN, WIDTH, lively, lively_net, tiny_run
from vgg_keras import TrainedNet, vgg
from vgg_keras.architecture import Architecture
from vgg_keras.errors import ArgumentError, RunError, WeightsError
from vgg_keras.evaluation.predict import predict
from vgg_keras.nets import NETS

CLASSES = ("ant", "bee", "cat")


def posteriors_of(net, images):
    return predict(net, images, test_scales=40, verbose=0).posteriors


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [photo(rng, 50, 70), photo(rng, 64, 41)]


class TestArchitecture:
    @pytest.mark.parametrize("net", NETS)
    @pytest.mark.parametrize("rounding", ["down", "up"])
    def test_the_architecture_is_read_from_the_layers(self, net, rounding):
        lrn = "caffe" if NETS[net].lrn else "krizhevsky"
        architecture = Architecture(net, 7, 64, 0.0625, lrn, rounding)
        assert Architecture.of_model(architecture.build()) == architecture

    @pytest.mark.parametrize("width", [1 / 16, 0.1, 0.25, 1 / 3])
    def test_the_architecture_rebuilds_the_same_shapes(self, width):
        model = vgg("A", 5, 32, width)
        rebuilt = Architecture.of_model(model).build()
        assert [w.shape for w in rebuilt.weights] == [w.shape for w in model.weights]

    def test_a_precision_holds_for_this_model_alone(self):
        before = keras.config.dtype_policy().name
        model = Architecture("A", 3, 32, WIDTH).build(precision="mixed_bfloat16")
        assert model.get_layer("block1_conv1").dtype_policy.name == "mixed_bfloat16"
        assert keras.config.dtype_policy().name == before


class TestOfModel:
    def changed(self, model, how, tmp_path):
        if how == "cloned":
            copy = keras.models.clone_model(model)
            copy.set_weights(model.get_weights())
            return copy
        if how == "loaded":
            model.save(tmp_path / "model.keras")
            return keras.models.load_model(tmp_path / "model.keras")
        if how == "frozen":
            model.trainable = False
        if how == "compiled":
            model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    @pytest.mark.parametrize("activation", ["softmax", None])
    @pytest.mark.parametrize("how", ["as made", "cloned", "loaded", "frozen", "compiled"])
    def test_every_form_gives_the_same_posteriors(self, how, activation, images, tmp_path):
        model = self.changed(lively(classifier_activation=activation), how, tmp_path)
        net = TrainedNet.of_model(model, mean=MEAN)
        np.testing.assert_allclose(
            posteriors_of(net, images), posteriors_of(lively_net(), images), rtol=1e-5
        )
        assert net.digest == lively_net().digest

    def test_the_net_shares_its_variables_with_the_model(self, images):
        model = lively()
        net = TrainedNet.of_model(model, mean=MEAN)
        before = posteriors_of(net, images)
        digest = net.digest
        model.get_layer("predictions").bias.assign(np.arange(7.0) * 3)
        assert np.abs(posteriors_of(net, images) - before).max() > 0.1
        assert net.digest != digest  # rows that were cached before are not used

    def test_metadata_are_those_of_the_net(self):
        net = TrainedNet.of_model(lively(), mean=MEAN, class_names="abcdefg", train_scale=40)
        assert net.class_names == tuple("abcdefg")
        assert (net.train_scale, net.validation_scale) == ((40, 40), 40)
        assert net.metadata() == {
            "model": "A",
            "net": "A",
            "train_scale": [40, 40],
            "crop_size": CROP,
            "width": WIDTH,
            "pool_rounding": "down",
            "precision": "float32",
        }
        assert TrainedNet.of_model(lively(), mean=MEAN).class_names == tuple("0123456")
        of_numpy = TrainedNet.of_model(lively(), mean=np.array(MEAN), train_scale=np.int64(40))
        assert (of_numpy.mean, of_numpy.train_scale) == (MEAN, (40, 40))
        found = predict(of_numpy, np.zeros((40, 40, 3), np.uint8), test_scales=np.int64(36))
        assert json.dumps(found.metadata["test_scales"]) == "[36]"

    def test_other_models_are_refused_with_the_reason(self):
        plain = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])
        with pytest.raises(ArgumentError, match=r"it has no layer block1_pool.*'sequential"):
            TrainedNet.of_model(plain, mean=MEAN)
        applications = keras.applications.VGG16(weights=None, include_top=False)
        with pytest.raises(ArgumentError, match="no layer dropout1, dropout2, fc1, fc2, pred"):
            TrainedNet.of_model(applications, mean=MEAN)
        model = lively()
        longer = keras.layers.Dense(3, name="head")(model.output)
        with pytest.raises(ArgumentError, match="further layers: head"):
            TrainedNet.of_model(keras.Model(model.input, longer), mean=MEAN)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"mean": (1, 2)}, "mean must be three finite numbers"),
            ({"class_names": "ab"}, "class_names must fit the outputs of the net: 7 outputs"),
            ({"train_scale": (50, 40)}, "train_scale must be S, or the pair S_min, S_max"),
            ({"regression": "box"}, "regression must be one of per-class, single-class"),
            ({"regression": "per-class", "class_names": "ab"}, "7 outputs of boxes"),
        ],
    )
    def test_arguments_that_do_not_fit_are_refused(self, arguments, message):
        with pytest.raises(ArgumentError, match=message):
            TrainedNet.of_model(lively(), **{"mean": MEAN} | arguments)


class TestSave:
    def test_a_saved_net_is_loaded_with_everything(self, images, tmp_path):
        net = TrainedNet.of_model(
            lively(pool_rounding="up"), mean=MEAN, class_names="abcdefg", train_scale=(32, 48)
        )
        assert net.save(tmp_path / "net") == tmp_path / "net"
        loaded = TrainedNet.load(tmp_path / "net")
        same = ("architecture", "mean", "class_names", "train_scale", "regression", "precision")
        for name in same:
            assert getattr(loaded, name) == getattr(net, name), name
        assert loaded.origin == {"run": str(tmp_path / "net")}
        np.testing.assert_allclose(
            posteriors_of(loaded, images), posteriors_of(net, images), rtol=1e-6
        )

    def test_a_saved_run_has_its_recipe(self, tmp_path):
        run = tiny_run(tmp_path / "run", CLASSES)
        run.save(tmp_path / "net")
        loaded = TrainedNet.load(tmp_path / "net")
        assert loaded.recipe == run.recipe
        assert loaded.digest == run.digest

    def test_a_localisation_net_is_saved_and_loaded(self, tmp_path):
        net = TrainedNet.of_model(
            lively(num_classes=12), mean=MEAN, class_names=CLASSES, regression="per-class"
        )
        net.save(tmp_path / "boxes")
        loaded = TrainedNet.load(tmp_path / "boxes")
        assert (loaded.regression, loaded.class_names) == ("per-class", CLASSES)
        x = np.ones((1, CROP, CROP, 3), "float32")
        np.testing.assert_allclose(loaded.model(x), net.model(x), rtol=1e-5)  # no soft-max
        np.testing.assert_allclose(loaded.in_precision("float32").model(x), net.model(x), rtol=1e-5)

    def test_only_a_saved_net_is_replaced(self, tmp_path):
        lively_net(seed=0).save(tmp_path / "net")
        lively_net(seed=1).save(tmp_path / "net")
        assert TrainedNet.load(tmp_path / "net").digest != lively_net(seed=0).digest
        tiny_run(tmp_path / "run", CLASSES)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "notes.txt").touch()
        for name in ("run", "other"):
            before = sorted((tmp_path / name).iterdir())
            with pytest.raises(RunError, match=f"{name} is not empty and holds no saved net"):
                lively_net().save(tmp_path / name)
            assert sorted((tmp_path / name).iterdir()) == before

    def test_a_net_of_an_earlier_version_whose_saving_was_interrupted_is_replaced(self, tmp_path):
        lively_net(seed=1).save(tmp_path / "net")
        (tmp_path / "net" / "net.json").write_text("{}\n")
        with pytest.raises(RunError, match="saving was interrupted"):
            TrainedNet.load(tmp_path / "net")
        other = lively_net()
        other.save(tmp_path / "net")
        weights = (net.model.get_weights() for net in (TrainedNet.load(tmp_path / "net"), other))
        for found, saved in zip(*weights, strict=True):
            np.testing.assert_array_equal(found, saved)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.pop("mean"), "cannot be read"),
            (lambda d: d.update(class_names=["a"]), "cannot be read.*outputs"),
            (lambda d: d["architecture"].update(net="Z"), "no net of that name|cannot be read"),
        ],
    )
    def test_a_damaged_description_is_named(self, change, message, tmp_path):
        lively_net().save(tmp_path / "net")
        file = tmp_path / "net" / "net.json"
        description = json.loads(file.read_text())
        change(description)
        file.write_text(json.dumps(description))
        with pytest.raises((RunError, ArgumentError), match=message):
            TrainedNet.load(tmp_path / "net")


class TestLoad:
    def test_a_loaded_net_ends_in_a_softmax_or_in_logits(self, images, tmp_path):
        tiny_run(tmp_path / "run", CLASSES)
        softmax = TrainedNet.load(tmp_path / "run")
        logits = TrainedNet.load(tmp_path / "run", classifier_activation=None)
        x = np.zeros((1, CROP, CROP, 3), "float32")
        np.testing.assert_allclose(softmax.model(x).numpy().sum(), 1, rtol=1e-6)
        np.testing.assert_allclose(keras.ops.softmax(logits.model(x)), softmax.model(x), rtol=1e-5)
        assert softmax.digest == logits.digest
        np.testing.assert_allclose(
            posteriors_of(softmax, images), posteriors_of(logits, images), rtol=1e-6
        )

    def test_a_weights_file_has_no_recipe(self, tmp_path):
        run = tiny_run(tmp_path / "run", CLASSES)
        net = TrainedNet.load(tmp_path / "run" / "best.weights.h5", mean=np.array(MEAN))
        assert (net.recipe, net.architecture) == (None, run.architecture)
        assert (net.train_scale, net.mean) == ((37, 37), MEAN)  # in proportion to S = 256
        assert net.metadata()["weights"].endswith("best.weights.h5")

    def test_arguments_of_weights_files_are_refused_for_folders(self, tmp_path):
        tiny_run(tmp_path / "run", CLASSES)
        with pytest.raises(ArgumentError, match="mean goes with a weights file"):
            TrainedNet.load(tmp_path / "run", mean=MEAN)

    def test_missing_files_are_named(self, tmp_path):
        with pytest.raises(RunError, match="is no run and no saved net"):
            TrainedNet.load(tmp_path)
        with pytest.raises(WeightsError, match="There is no weights file"):
            TrainedNet.load(tmp_path / "gone")

    def test_precision_and_pool_rounding_can_be_changed(self, tmp_path):
        tiny_run(tmp_path / "run", CLASSES)
        net = TrainedNet.load(tmp_path / "run", precision="mixed_bfloat16", pool_rounding="up")
        assert (net.precision, net.architecture.pool_rounding) == ("mixed_bfloat16", "up")
        half = net.in_precision("bfloat16")
        assert half.model.get_layer("fc1").kernel.dtype == "bfloat16"
        assert (half.precision, net.model.get_layer("fc1").kernel.dtype) == ("bfloat16", "float32")


def test_a_net_is_immutable():
    net = lively_net()
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.mean = (0, 0, 0)


@pytest.mark.slow
def test_saved_models_load_in_a_new_process(tmp_path):
    lively("A-LRN").save(tmp_path / "model.keras")
    code = (
        "import vgg_keras, keras, sys;"
        f"print(keras.models.load_model({str(tmp_path / 'model.keras')!r}).name)"
    )
    keras_first = code.replace("vgg_keras, keras", "keras, vgg_keras")
    # Other packages look for Keras without importing it.
    looked_for = code.replace(
        "vgg_keras, keras",
        "vgg_keras, importlib.util; importlib.util.find_spec('keras');import keras",
    )
    for order in (code, keras_first, looked_for):
        done = subprocess.run([sys.executable, "-c", order], capture_output=True, text=True)
        assert done.stdout.split()[-1:] == ["A-LRN"], done.stderr[-2000:]
