"""Every net of Table 1 has every shared behaviour on every backend.

`make test` runs these tests on TensorFlow, and `make test-jax` runs them on JAX.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from vgg_keras import fully_convolutional, vgg
from vgg_keras.nets import NETS, weight_layers
from vgg_keras.recipes import Recipe
from vgg_keras.tasks import compile_model

CROP, CLASSES, WIDTH = 64, 7, 1 / 16
pytestmark = pytest.mark.parametrize("net", NETS)


def build(net, **options):
    return vgg(net, CLASSES, CROP, WIDTH, **options)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def images(*shape):
    return np.random.default_rng(1).normal(0, 60, shape).astype("float32")


def test_layers_are_those_of_table_1(net):
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
    scores = numpy(maps["score_map"]).mean((1, 2))
    np.testing.assert_allclose(maps["scores"], scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model(x), ops.softmax(scores), rtol=1e-4, atol=1e-6)


def test_posteriors_sum_to_one(net):
    posteriors = numpy(build(net)(images(4, CROP, CROP, 3)))
    np.testing.assert_allclose(posteriors.sum(1), 1, rtol=1e-5)


def test_the_map_uses_the_variables_of_the_net(net):
    model = build(net)
    assert {id(v) for v in fully_convolutional(model).weights} == {id(v) for v in model.weights}


def test_a_whole_model_is_saved_and_loaded(net, tmp_path):
    model = build(net)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = images(2, CROP, 96, 3)
    np.testing.assert_array_equal(again(x), model(x))


def test_weights_are_saved_and_loaded(net, tmp_path):
    model, other = build(net), build(net, seed=5)
    model.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    x = images(2, CROP, CROP, 3)
    np.testing.assert_array_equal(other(x), model(x))


def test_an_image_below_the_crop_size_is_refused(net):
    with pytest.raises(ValueError, match="smaller than the crop size"):
        build(net)(images(1, 32, 64, 3))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_training_reduces_the_loss(net, policy):
    """With the settings of a recipe, training reduces the loss and changes every weight."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build(net, dropout=0.0, weight_decay=0, classifier_activation=None)
    finally:
        keras.config.set_dtype_policy(before)
    compile_model(model, Recipe(learning_rate=1e-3, precision=policy))
    weights = model.get_weights()
    x, y = images(8, CROP, CROP, 3) / 10, np.arange(8) % CLASSES
    logs = model.fit(x, y, epochs=6, batch_size=8, verbose=0).history
    assert set(logs) == {"loss", "accuracy", "top5_accuracy", "cross_entropy"}
    assert np.isfinite(logs["loss"]).all()
    assert logs["loss"][-1] < logs["loss"][0]
    assert logs["loss"] == pytest.approx(logs["cross_entropy"], rel=1e-5)
    for old, new in zip(weights, model.get_weights(), strict=True):
        assert np.abs(new - old).max() > 0
