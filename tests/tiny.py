"""A tiny net with varied posteriors, and a run folder with such a net."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import keras
import numpy as np
import pytest

from tests.conftest import photo
from vgg_keras import TrainedNet, vgg
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.recipes import Recipe
from vgg_keras.runs import prepare_run_folder, record_classes

CROP, NUM_CLASSES, WIDTH = 32, 7, 1 / 16
MEAN = (120.0, 110.0, 100.0)


def lively(net="A", seed=0, num_classes=NUM_CLASSES, **options) -> keras.Model:
    """A tiny model whose logits differ between images and between positions."""
    options.setdefault("classifier_activation", None)
    model = vgg(net, num_classes, CROP, WIDTH, **options)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = (w.shape for w in layer.get_weights())
            gain = np.sqrt(2 / np.prod(kernel[:-1]))
            layer.set_weights([rng.normal(0, gain, kernel), rng.normal(0, 0.3, bias)])
    last = model.get_layer("predictions")
    logits = keras.Model(model.input, model.get_layer("scores").output)
    images = np.array([photo(rng, CROP, CROP) for _ in range(16)]) - np.float32(MEAN)
    scores = logits(images).numpy()
    last.kernel.assign(last.kernel / scores.std(0))
    last.bias.assign((last.bias - scores.mean(0)) / scores.std(0))
    return model


def lively_net(
    net="A", seed=0, *, mean=MEAN, class_names=None, train_scale=(32, 48), **options
) -> TrainedNet:
    """The model of `lively` as a `TrainedNet`."""
    return TrainedNet.of_model(
        lively(net, seed, **options), mean=mean, class_names=class_names, train_scale=train_scale
    )


def tiny_run(path, class_names, net="A", train_scale=(32, 48)) -> TrainedNet:
    """Writes a run folder with random weights; returns the net loaded from it."""
    recipe = Recipe(net=net, crop_size=CROP, width=WIDTH, train_scale=train_scale)
    prepare_run_folder(path, recipe)
    record_classes(path, class_names)
    dataclasses.replace(ILSVRC, mean=MEAN).save(path / "statistics.json")
    lively(net, num_classes=len(class_names)).save_weights(path / "best.weights.h5")
    return TrainedNet.load(path)


@contextlib.contextmanager
def loading_once(kind):
    """Within it, `kind.load` returns the same net for the same arguments, so that its functions are
    traced once. For tests that change neither the files nor what they load."""
    load, loaded = kind.load, {}

    def load_once(*where, **options):
        key = repr((where, options))
        if key not in loaded:
            loaded[key] = load(*where, **options)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "load", staticmethod(load_once))
        yield


def without_digest(file):
    """Takes the digest out of a description, which earlier versions did not write."""
    description = json.loads(file.read_text())
    del description["sha256"]
    file.write_text(json.dumps(description))
