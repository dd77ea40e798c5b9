from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import TINY
from vgg_keras import training
from vgg_keras.pipelines import screening
from vgg_keras.pipelines.errors import BadImageError, SourceError
from vgg_keras.pipelines.screening import find_bad_images, naming_bad_images, without_bad_images
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.statistics import ILSVRC, compute_statistics
from vgg_keras.pipelines.training import training_stream
from vgg_keras.recipes import Recipe


@pytest.fixture
def broken(tmp_path, folder):
    """A data spec, and the names of its two broken training images: the first and a middle one."""
    first = tmp_path / "data/train/blue/000.jpg"
    middle = tmp_path / "data/train/green/003.jpg"
    first.write_bytes(first.read_bytes()[:300])
    middle.write_text("<html>Not found</html>")
    return folder, [str(first), str(middle)]


def test_all_bad_images_are_found_and_named(broken):
    spec, names = broken
    source = open_source(spec)
    assert find_bad_images(source["train"]) == names
    assert find_bad_images(source["train"], limit=1) == names[:1]
    assert find_bad_images(source["val"]) == []


def test_a_bad_last_image_is_found(tmp_path, folder):
    last = tmp_path / "data/train/red/007.jpg"
    last.write_bytes(b"")
    assert find_bad_images(open_source(folder)["train"]) == [str(last)]


def test_skipped_images_are_logged_by_name(broken, caplog):
    spec, names = broken
    with caplog.at_level(logging.WARNING):
        fewer, skipped = without_bad_images(open_source(spec)["train"])
    assert skipped == names
    assert len(fewer) == 22
    assert all(name in caplog.text for name in names)


def test_a_bad_image_is_named_in_the_error(broken):
    spec, names = broken
    with pytest.raises(BadImageError, match=names[0]):
        compute_statistics(open_source(spec)["train"])


def test_other_errors_are_not_changed(folder):
    with pytest.raises(ZeroDivisionError), naming_bad_images(open_source(folder)["train"]):
        raise ZeroDivisionError


def spoilt_labels(spec, label):
    """A source whose validation split has an image with the given label."""
    source = open_source(spec)
    val = source["val"]
    labels = np.where(np.arange(len(val)) == 5, label, val.labels)
    return replace(source, splits={**source.splits, "val": replace(val, labels=labels)})


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_a_label_without_a_class_is_refused_before_the_first_epoch(
    folder, tmp_path, monkeypatch, caplog, label
):
    monkeypatch.setattr(training, "open_source", lambda *_: spoilt_labels(folder, label))
    recipe = Recipe(data=folder, batch_size=8, epochs=1, **TINY)
    message = rf"from 0 to 2, .*'val' has 1 images without a class.*label {label} for .*001\.jpg"
    with pytest.raises(SourceError, match=message):
        training.train(recipe, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run/journal.jsonl").exists()
    assert "cannot be read" not in caplog.text


@pytest.mark.parametrize("fault", ["label", "net"])
def test_a_failure_in_the_net_is_not_an_unreadable_image(folder, monkeypatch, caplog, fault):
    """It has the type of a decoder's error, and no image is read in search of one."""
    source = open_source(folder)
    if fault == "label":
        source["train"].labels[:] = -1

    class Failing(keras.layers.Layer):
        def call(self, x):
            with tf.control_dependencies([tf.debugging.assert_less(tf.reduce_max(x), -1e9)]):
                return tf.identity(x)

    layers = [Failing()] if fault == "net" else []
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Flatten(), *layers, keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    stream = training_stream(
        source["train"], crop_size=32, train_scale=32, batch_size=8, statistics=ILSVRC
    )
    monkeypatch.setattr(screening, "find_bad_images", lambda *_, **__: pytest.fail("searched"))
    with pytest.raises(tf.errors.InvalidArgumentError), naming_bad_images(source["train"]):
        model.fit(stream, steps_per_epoch=1, verbose=0)
    assert "cannot be read" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_an_image_that_fails_while_a_net_is_trained_is_named(folder, content):
    source = open_source(folder)
    broken = Path(source["train"].paths[3])
    if content is None:
        broken.unlink()
    else:
        broken.write_bytes(content)
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    stream = training_stream(
        source["train"], crop_size=32, train_scale=32, batch_size=8, statistics=ILSVRC
    )
    with pytest.raises(BadImageError, match=broken.name), naming_bad_images(source["train"]):
        model.fit(stream, steps_per_epoch=3, verbose=0)
