"""Every net of Table 1 x every behaviour that all of them share."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from saved_models.cpp_loader import CppModel
from saved_models.export import Endpoint, write_version
from vgg_keras import fully_convolutional, vgg
from vgg_keras.evaluation.passes import make_look
from vgg_keras.nets import NETS, weight_layers

CROP, CLASSES, WIDTH = 64, 7, 1 / 16
pytestmark = pytest.mark.parametrize("net", NETS)


def build(net, **options):
    return vgg(net, CLASSES, CROP, WIDTH, **options)


def images(*shape):
    return np.random.default_rng(1).normal(0, 60, shape).astype("float32")


def test_layers_are_those_of_the_table(net):
    model = build(net)
    table = weight_layers(NETS[net], CLASSES, CROP, WIDTH)
    built = [l for l in model.layers if l.weights]
    assert [l.name for l in built] == [l.name for l in table]
    assert [l.count_params() for l in built] == [l.parameters for l in table]
    assert model.count_params() == sum(l.parameters for l in table)


def test_a_crop_gives_one_score_vector(net):
    model = build(net)
    maps = fully_convolutional(model)(images(3, CROP, CROP, 3))
    assert maps["score_map"].shape == (3, 1, 1, CLASSES)
    np.testing.assert_allclose(maps["score_map"][:, 0, 0], maps["scores"], rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (100, 160), (127, 64)])
def test_a_whole_image_gives_the_map_and_its_average(net, height, width):
    model = build(net)
    x = images(2, height, width, 3)
    maps = fully_convolutional(model)(x)
    expected = (height // 32 - CROP // 32 + 1, width // 32 - CROP // 32 + 1)
    assert maps["score_map"].shape[1:3] == expected
    scores = maps["score_map"].numpy().mean((1, 2))
    np.testing.assert_allclose(maps["scores"], scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model(x), tf.nn.softmax(scores), rtol=1e-4, atol=1e-6)


def test_posteriors_sum_to_one(net):
    np.testing.assert_allclose(build(net)(images(4, CROP, CROP, 3)).numpy().sum(1), 1, rtol=1e-5)


def test_maps_are_variables_of_the_same_net(net):
    model = build(net)
    assert {id(v) for v in fully_convolutional(model).weights} == {id(v) for v in model.weights}


def test_every_weight_gets_a_gradient(net):
    model = build(net, dropout=0.0, weight_decay=0)
    x, y = images(8, CROP, CROP, 3), np.arange(8) % CLASSES
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x)))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    assert all(g is not None and np.abs(g).max() > 0 for g in gradients)


def test_saved_and_loaded_whole(net, tmp_path):
    model = build(net)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = images(2, CROP, 96, 3)
    np.testing.assert_array_equal(again(x), model(x))


def test_weights_saved_and_loaded(net, tmp_path):
    model, other = build(net), build(net, seed=5)
    model.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    x = images(2, CROP, CROP, 3)
    np.testing.assert_array_equal(other(x), model(x))


def test_one_trace_serves_all_sizes(net):
    model = build(net)
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def run(x):
        traces.append(1)
        return model(x)

    for size in ((CROP, CROP), (96, 128), (160, 70)):
        x = images(1, *size, 3)
        np.testing.assert_allclose(run(x), model(x), rtol=1e-4, atol=1e-6)
    assert len(traces) == 1


def test_served(net, tmp_path):
    """By the C++ loader of TensorFlow Serving, on crops and whole images."""
    model = build(net, classifier_activation=None)
    look, x = make_look(model, (0.0, 0.0, 0.0), flip=False), images(1, CROP, CROP, 3)
    spec = tf.TensorSpec((None, None, None, 3), tf.float32, "images")
    endpoint = Endpoint(look, [spec], {"images": x})
    served = CppModel(write_version(tmp_path / "net", {"serving_default": endpoint}))
    for shape in ((1, CROP, CROP, 3), (2, 96, 130, 3)):
        x = images(*shape)
        found = served.run("serving_default", {"images": x})
        maps = fully_convolutional(model)(x)
        np.testing.assert_allclose(found["score_map"], maps["score_map"], atol=1e-5)
        posteriors = tf.nn.softmax(maps["scores"])
        np.testing.assert_allclose(found["posteriors"], posteriors, atol=1e-5)
    served.close()


def test_too_small_an_image_is_refused(net):
    with pytest.raises(ValueError, match="smaller than the crop size"):
        build(net)(images(1, 32, 64, 3))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_fits(net, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build(net, dropout=0.0)
    finally:
        keras.config.set_dtype_policy(before)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "sparse_categorical_crossentropy",
                  jit_compile=False)  # fmt: skip
    x, y = images(8, CROP, CROP, 3) / 10, np.arange(8) % CLASSES
    losses = model.fit(x, y, epochs=6, batch_size=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
