"""Own data (arrays, files, a `tf.data` dataset) in training, evaluation and export."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import write_folder
from tests.tiny import CROP, MEAN, WIDTH, lively, lively_net
from vgg_keras import TrainedNet, evaluate, predict, vgg
from vgg_keras.evaluation.evaluate import labels_for_net
from vgg_keras.pipelines import (
    Source,
    Split,
    compute_statistics,
    open_source,
    read_images,
    steps_per_epoch,
    training_stream,
    validation_stream,
)

CROPS = {"crop_size": CROP, "batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders of three colours, and the same images in memory."""
    data = open_source(write_folder(tmp_path_factory.mktemp("data"), train=12, val=7))
    arrays = {name: list(read_images(split).values()) for name, split in data.splits.items()}
    return data, arrays


@pytest.fixture(scope="module")
def own(folder):
    data, arrays = folder
    return {
        name: Split.from_arrays(arrays[name], data[name].all_labels(), data.class_names)
        for name in arrays
    }


@pytest.fixture(scope="module")
def compiled():
    """A compiled model that ends in a soft-max, as a net. Its functions are traced once."""
    model = lively(num_classes=3, classifier_activation="softmax")
    options = {"metrics": ["accuracy"], "jit_compile": False}
    model.compile("sgd", "sparse_categorical_crossentropy", **options)
    return TrainedNet.of_model(model, mean=MEAN, class_names=("blue", "green", "red"))


@pytest.mark.slow
def test_a_model_learns_from_arrays(folder, own, tmp_path, monkeypatch):
    """It is fitted with a user's own callbacks and loaded by `load_model`; evaluation gives the
    accuracy that Keras saw. `tests/test_example.py` continues to an export and the command line."""
    monkeypatch.chdir(tmp_path)
    data, _ = folder
    colours = compute_statistics(own["train"])
    model = vgg("A", num_classes=3, crop_size=CROP, width=WIDTH, dropout=0.0)
    sgd = keras.optimizers.SGD(1e-3, momentum=0.9)
    model.compile(sgd, "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        training_stream(own["train"], train_scale=(32, 40), statistics=colours, **CROPS),
        steps_per_epoch=steps_per_epoch(own["train"], 8),
        epochs=6,
        validation_data=validation_stream(own["val"], test_scale=36, mean=colours.mean, **CROPS),
        callbacks=[
            keras.callbacks.EarlyStopping("val_accuracy", patience=4),
            keras.callbacks.ModelCheckpoint("best.keras", "val_accuracy", save_best_only=True),
        ],
        shuffle=False,
        verbose=0,
    ).history
    net = TrainedNet.of_model(
        keras.models.load_model("best.keras"),
        mean=colours.mean,
        class_names=data.class_names,
        train_scale=(32, 40),
    )
    centre = evaluate(net, own["val"], protocol="centre", verbose=0).result()
    best = max(history["val_accuracy"])
    assert best > 0.5  # the net has learnt
    assert centre["top1_error"] == pytest.approx(100 * (1 - best), abs=1e-4)


@pytest.mark.parametrize(
    ("count", "batch_size"), [(1, 8), (7, 8), (8, 8), (9, 8), (20, 8), (21, 64), (5, 1)]
)
def test_accuracy_in_fit_is_that_of_the_central_crop(own, compiled, count, batch_size):
    """The batch size need not divide the number of images for `metrics=["accuracy"]`."""
    images = read_images(own["val"], range(count))
    labels = own["val"].all_labels()[:count]
    split = Split.from_arrays(list(images.values()), labels, own["val"].class_names)
    stream = validation_stream(
        split, crop_size=CROP, test_scale=36, batch_size=batch_size, mean=MEAN
    )
    logs = compiled.model.evaluate(stream, verbose=0, return_dict=True)
    found = evaluate(compiled, split, protocol="centre", test_scales=36, verbose=0).result()
    assert logs["accuracy"] == pytest.approx(1 - found["top1_error"] / 100, abs=1e-6)


class TestEveryForm:
    """The forms of own data give the posteriors of the files in class folders."""

    @pytest.fixture(scope="class")
    def expected(self, folder, compiled):
        return evaluate(compiled, folder[0], test_scales=(32, 40), verbose=0)

    @pytest.mark.parametrize("form", ["arrays", "paths", "dataset", "source"])
    def test_evaluation_gives_the_same_posteriors(self, form, folder, own, compiled, expected):
        data, _ = folder
        paths, labels = data["val"].paths.tolist(), data["val"].all_labels()
        files = tf.data.Dataset.from_tensor_slices((paths, labels))
        split = {
            "arrays": lambda: own["val"],
            "paths": lambda: Split.from_paths(paths, labels, data.class_names),
            "dataset": lambda: Split.from_dataset(
                files.map(lambda path, label: (tf.io.read_file(path), label)),
                len(paths),
                data.class_names,
            ),
            "source": lambda: Source.of(**own),
        }[form]()
        found = evaluate(compiled, split, test_scales=(32, 40), verbose=0)
        np.testing.assert_allclose(found.posteriors, expected.posteriors, rtol=1e-5, atol=1e-7)
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.result()["top1_error"] == expected.result()["top1_error"]

    def test_classes_default_to_the_labels(self, folder):
        _, arrays = folder
        split = Split.from_arrays(arrays["val"], [i % 3 for i in range(len(arrays["val"]))])
        assert split.class_names == ("0", "1", "2")
        assert len(evaluate(lively_net(), split, test_scales=32, verbose=0)) == len(split)

    def test_classes_are_matched_in_any_unicode_form(self, folder):
        """Systems differ in the forms of file names: é is one code point, or e and an accent."""
        _, arrays = folder
        names = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
        splits = [Split.from_arrays(arrays["val"][:2], [0, 1], [name, "b"]) for name in names]
        net = SimpleNamespace(name="net", class_names=("b", names[0], "c"))
        labels = [labels_for_net(net, split, "val").tolist() for split in splits]
        assert labels == [[1, 0]] * 2

    def test_different_images_in_memory_have_different_caches(self, folder, tmp_path):
        """They have no file names, so other pixels at the same index must not share rows."""
        _, arrays = folder
        first, second = arrays["val"][:3], arrays["val"][3:6]
        net = lively_net()
        rows = [
            evaluate(
                net,
                Split.from_arrays(images, [0, 1, 2]),
                test_scales=32,
                cache_dir=tmp_path,
                verbose=0,
            ).posteriors
            for images in (first, second, first)
        ]
        assert np.abs(rows[0] - rows[1]).max() > 1e-3
        np.testing.assert_array_equal(rows[0], rows[2])
        assert len(list(tmp_path.glob("*.npy"))) == 2

    def test_prediction_gives_the_same_posteriors(self, folder):
        data, arrays = folder
        net, paths = lively_net(), [str(path) for path in data["val"].paths[:2]]
        expected = predict(net, paths, verbose=0).posteriors
        encoded = [tf.io.read_file(path).numpy() for path in paths]
        for images in (encoded, arrays["val"][:2]):
            np.testing.assert_allclose(
                net.predict(images, verbose=0).posteriors, expected, rtol=1e-5, atol=1e-7
            )
        for image in (paths[0], encoded[0], arrays["val"][0]):
            one = net.predict(image, verbose=0)
            np.testing.assert_allclose(one.posteriors, expected[:1], rtol=1e-5, atol=1e-7)
        same = np.stack([arrays["val"][0]] * 3)
        assert len(net.predict(same, verbose=0)) == 3


def test_progress_obeys_verbose(own, capfd):
    net = lively_net(num_classes=3)
    split = Split.from_arrays(list(read_images(own["val"], range(3)).values()), [0, 1, 2])
    evaluate(net, split, test_scales=32, verbose=0)
    assert capfd.readouterr().err == ""
    evaluate(net, split, test_scales=32)
    assert "dense Q=32  3/3 images" in capfd.readouterr().err


@pytest.mark.slow
def test_a_script_may_have_modules_with_the_names_of_our_folders(tmp_path):
    """A script with its own callbacks.py, pipelines/ and saved_models.py trains and evaluates."""
    (tmp_path / "callbacks.py").write_text("MINE = 'callbacks'\n")
    (tmp_path / "saved_models.py").write_text("MINE = 'saved_models'\n")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("MINE = 'pipelines'\n")
    spec = write_folder(tmp_path / "data", train=4, val=2)
    (tmp_path / "script.py").write_text(
        "import callbacks, pipelines, saved_models\n"
        "from vgg_keras import Recipe, TrainedNet, evaluate, train\n"
        "from vgg_keras.pipelines import open_source\n"
        "print(callbacks.MINE, pipelines.MINE, saved_models.MINE)\n"
        f"recipe = Recipe(data={spec!r}, crop_size=32, width=1 / 16, train_scale=32, epochs=1,\n"
        "                batch_size=4)\n"
        "net = TrainedNet.load(train(recipe, 'run', verbose=0))\n"
        f"print(evaluate(net, open_source({spec!r}), verbose=0).result()['images'])\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-2:] == ["callbacks pipelines saved_models", "6"]
