"""The test protocols give what the net gives for their views, on every backend."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from vgg_keras import fully_convolutional, vgg
from vgg_keras.distribution import find_devices
from vgg_keras.evaluation.posteriors import posteriors
from vgg_keras.evaluation.predict import predict
from vgg_keras.evaluation.procedure import Procedure
from vgg_keras.features.descriptors import extract_features
from vgg_keras.features.extractor import FeatureExtractor
from vgg_keras.forward import forward, num_devices
from vgg_keras.localisation.dense import make_box_fn, make_rating_fn
from vgg_keras.pipelines.evaluation import grid_crops, whole_images
from vgg_keras.pipelines.sources.own import from_arrays
from vgg_keras.trained import TrainedNet

CROP, CLASSES, MEAN, SCALES = 32, 5, (120.0, 110.0, 100.0), (36, 68)
NAMES = tuple("abcde")


@pytest.fixture(scope="module")
def split():
    return from_arrays(np.random.default_rng(2).integers(0, 256, (7, 40, 52, 3), np.uint8))


@pytest.fixture
def net():
    return as_net(
        vgg("A", CLASSES, CROP, 1 / 16, classifier_activation=None, initialisation="glorot")
    )


def as_net(model):
    return TrainedNet.of_model(model, mean=MEAN, class_names=NAMES, train_scale=SCALES)


def softmax_of(net, views, flip):
    """Posteriors of views `(B, V, H, W, 3)`: the mean over views and flips, by Keras alone."""
    maps = fully_convolutional(net.model)
    images = views.reshape(-1, *views.shape[2:]) - np.float32(MEAN)
    shown = [
        ops.convert_to_numpy(ops.softmax(maps(images[:, :, ::step])["scores"]))
        for step in (1, -1)[: 1 + flip]
    ]
    return np.mean(shown, 0).reshape(*views.shape[:2], -1).mean(1)


def expected_posteriors(net, split, protocol):
    kinds = []
    for views in protocol.split("+"):
        of_scales = []
        for scale in SCALES:
            grid = {"centre": 1, "multi-crop": 5, "dense": 0}[views]
            stream = (
                grid_crops(split, crop_size=CROP, grid=grid, test_scale=scale, batch_size=2)
                if grid
                else whole_images(split, test_scale=scale, batch_pixels=CROP**2)
            )
            rows = np.zeros((len(split), CLASSES))
            for indices, shown in stream.as_numpy_iterator():
                rows[indices] = softmax_of(net, shown, flip=views != "centre")
            of_scales.append(rows)
        kinds.append(np.mean(of_scales, 0))
    return np.mean(kinds, 0)


@pytest.mark.parametrize("protocol", ["centre", "multi-crop+dense"])
def test_posteriors_are_the_mean_over_the_views(net, split, protocol):
    passes = Procedure(protocol, SCALES).passes(net)
    found = posteriors(net, split, passes, batch_size=30, verbose=0)
    np.testing.assert_allclose(found, expected_posteriors(net, split, protocol), atol=1e-6)


def test_the_batch_size_does_not_change_the_posteriors(net, split):
    """The last of several batches is smaller than the others."""
    small, large = (
        posteriors(net, split, Procedure("dense", 36).passes(net), batch_size=size, verbose=0)
        for size in (4, 64)
    )
    np.testing.assert_allclose(small, large, atol=1e-6)


def test_weights_that_change_later_are_those_of_the_next_call(net):
    images = tf.random.stateless_uniform((2, CROP, CROP, 3), (0, 1), 0, 255)
    computed = tf.function(forward(fully_convolutional(net.model)))
    before = computed(images)["scores"].numpy()
    layer = net.model.get_layer("predictions")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias + 1])
    np.testing.assert_allclose(computed(images)["scores"].numpy(), before + 1, atol=1e-5)


def test_descriptors_are_the_mean_over_positions_and_mirror_images(net, split):
    extractor = FeatureExtractor.of_net(net, "block4_pool")
    found = extract_features(extractor, split, test_scales=36, verbose=0)
    ((indices, images),) = whole_images(
        split, test_scale=36, batch_pixels=10**6
    ).as_numpy_iterator()
    layer = keras.Model(net.model.input, net.model.get_layer("block4_pool").output)
    flips = [
        ops.convert_to_numpy(layer(images[:, 0, :, ::step] - np.float32(MEAN))).mean((1, 2))
        for step in (1, -1)
    ]
    expected = np.mean(flips, 0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(found.values)[indices], expected, atol=1e-5)


def test_boxes_and_their_scores_are_those_of_the_maps(net):
    model = vgg("A", 4 * CLASSES, CROP, 1 / 16, classifier_activation=None, initialisation="glorot")
    boxes_of = TrainedNet.of_model(
        model, mean=MEAN, class_names=NAMES, train_scale=SCALES, regression="per-class"
    )
    images = np.random.default_rng(3).uniform(0, 255, (2, 64, 96, 3)).astype(np.float32)

    def score_map(model):
        found = fully_convolutional(model)(images - np.float32(MEAN))["score_map"]
        return ops.convert_to_numpy(found)

    boxes = make_box_fn(boxes_of)(images)
    np.testing.assert_allclose(boxes, score_map(model).reshape(2, 2, 3, CLASSES, 4), atol=1e-5)
    posteriors = make_rating_fn([net])(images)
    np.testing.assert_allclose(
        posteriors, ops.convert_to_numpy(ops.softmax(score_map(net.model))), atol=1e-6
    )


def test_a_net_of_the_scope_of_find_devices_can_be_tested(split):
    """A process of these tests has one device; several are in `test_processes`."""
    with find_devices().scope():
        model = vgg("A", CLASSES, CROP, 1 / 16, classifier_activation=None)
    assert num_devices(model) == 1
    found = predict(as_net(model), split, protocol="centre", test_scales=36, verbose=0)
    assert found.posteriors.shape == (len(split), CLASSES)
