"""A tiny net with outputs that differ between images, and a run folder with it."""

from __future__ import annotations

import dataclasses

import numpy as np
from vgg_keras.pipelines.statistics import ILSVRC

from tests.conftest import photo
from vgg_keras import vgg
from vgg_keras.recipes import Recipe
from vgg_keras.runs import prepare_run_folder, record_classes
from vgg_keras.trained import TrainedNet

CROP, NUM_CLASSES, WIDTH = 32, 7, 1 / 16
MEAN = (120.0, 110.0, 100.0)


def lively(net="A", seed=0, num_classes=NUM_CLASSES, **options):
    """A tiny net whose posteriors differ between images and between positions."""
    model = vgg(net, num_classes, CROP, WIDTH, classifier_activation=None, **options)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = (w.shape for w in layer.get_weights())
            gain = np.sqrt(2 / np.prod(kernel[:-1]))
            layer.set_weights([rng.normal(0, gain, kernel), rng.normal(0, 0.3, bias)])
    last = model.get_layer("predictions")
    scores = model(np.array([photo(rng, CROP, CROP) for _ in range(16)]) - np.float32(MEAN)).numpy()
    last.kernel.assign(last.kernel / scores.std(0))
    last.bias.assign((last.bias - scores.mean(0)) / scores.std(0))
    return model


def tiny_run(path, class_names, net="A", train_scale=(32, 48)):
    """Writes a run whose weights are random, and loads it."""
    recipe = Recipe(net=net, crop_size=CROP, width=WIDTH, train_scale=train_scale)
    prepare_run_folder(path, recipe)
    record_classes(path, class_names)
    statistics = dataclasses.replace(ILSVRC, mean=MEAN)
    statistics.save(path / "statistics.json")
    model = lively(net, num_classes=len(class_names))
    model.save_weights(path / "best.weights.h5")
    return TrainedNet.load(path)
