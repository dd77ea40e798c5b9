from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from vgg_keras import fully_convolutional, vgg
from vgg_keras.layers import LocalResponseNormalisation, SlidingDense
from vgg_keras.nets import INITIALISATIONS, LRN_PRESETS, NETS, weight_layers
from vgg_keras.pipelines.errors import ArgumentError


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 60, shape).astype("float32")


class TestSlidingDense:
    @pytest.mark.parametrize("window", [1, 2, 3])
    def test_equals_a_convolution_with_the_same_kernel(self, window):
        layer = SlidingDense(7, window)
        x = random_images(2, 5, 6, 2)
        layer.build(x.shape)
        layer.bias.assign(np.arange(7))
        kernel = tf.reshape(layer.kernel, (window, window, 2, 7))
        expected = tf.nn.conv2d(x, kernel, 1, "VALID") + layer.bias
        np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-3)

    def test_a_window_of_1_is_the_default(self):
        assert SlidingDense(7)(random_images(2, 3, 4, 5)).shape == (2, 3, 4, 7)

    def test_an_input_of_the_window_size_equals_dense(self):
        layer = SlidingDense(7, 3)
        x = random_images(2, 3, 3, 4)
        y = layer(x)
        expected = x.reshape(2, -1) @ np.asarray(layer.kernel)
        np.testing.assert_allclose(y[:, 0, 0], expected, rtol=1e-4, atol=1e-3)

    @pytest.mark.parametrize("shape", [(1, 2, 5, 4), (1, 5, 2, 4)])
    def test_a_map_below_the_window_size_is_refused(self, shape):
        with pytest.raises(ValueError, match="smaller than the crop size"):
            SlidingDense(7, 3)(random_images(*shape))

    @pytest.mark.parametrize("shape", [(1, 4, 4), (1, 4, 4, 5), (1, 4, 4, 4, 1)])
    def test_another_rank_or_number_of_channels_is_refused(self, shape):
        layer = SlidingDense(7, 3)
        if len(shape) == 4:
            layer(random_images(1, 5, 3, 4))
        with pytest.raises(ValueError, match="incompatible with the layer"):
            layer(random_images(*shape))

    def test_config_round_trip_and_output_shape(self):
        layer = SlidingDense(7, 3, activation="relu", kernel_regularizer="l2")
        again = SlidingDense.from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert layer.compute_output_shape((None, None, 8, 4)) == (None, None, 6, 7)
        assert layer.compute_output_shape((None, 3, 8, 4)) == (None, 1, 6, 7)


@pytest.mark.parametrize("layer", [SlidingDense, LocalResponseNormalisation])
def test_layers_are_registered_with_keras(layer):
    assert keras.saving.get_registered_name(layer) == f"vgg_keras>{layer.__name__}"


class TestLRN:
    def test_the_defaults_are_those_of_krizhevsky(self):
        assert LocalResponseNormalisation().constants == LRN_PRESETS["krizhevsky"]

    def test_config_round_trip_and_output_shape(self):
        layer = LocalResponseNormalisation(1.0, 3, 0.5, 0.25, name="lrn")
        again = LocalResponseNormalisation.from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert (again.name, again.constants) == ("lrn", layer.constants)
        assert layer.compute_output_shape((None, 4, 5, 6)) == (None, 4, 5, 6)

    @pytest.mark.parametrize("size", [0, 2, 4, 6])
    def test_an_even_size_is_refused(self, size):
        with pytest.raises(ArgumentError, match=f"size must be odd. Received: size={size}"):
            LocalResponseNormalisation(size=size)

    def test_large_values_do_not_overflow_in_half_precision(self):
        x = np.full((1, 1, 1, 5), 2000.0)
        layer = LocalResponseNormalisation(dtype="float16")
        expected = LocalResponseNormalisation()(x)
        np.testing.assert_allclose(layer(x), expected, rtol=1e-2)

    @pytest.mark.parametrize("preset", LRN_PRESETS)
    def test_lrn_equals_tensorflow(self, preset):
        c = LRN_PRESETS[preset]
        x = random_images(2, 3, 3, 9)
        ours = LocalResponseNormalisation(c.k, c.size, c.alpha, c.beta)(x)
        theirs = tf.nn.local_response_normalization(x, c.size // 2, c.k, c.alpha, c.beta)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)

    def test_presets_differ(self):
        x = random_images(1, 32, 32, 3)
        a, b = (vgg("A-LRN", 5, 32, 1 / 16, lrn=p)(x) for p in ("krizhevsky", "caffe"))
        assert np.abs(a - b).max() > 1e-6

    def test_an_unknown_preset_is_refused(self):
        with pytest.raises(ValueError, match=r"krizhevsky, caffe\. Received: 'alexnet'"):
            vgg("A", lrn="alexnet")


class TestInitialisation:
    @pytest.mark.parametrize("name", ["gaussian", "gaussian-0.1"])
    def test_the_gain_is_that_of_the_full_size_at_any_width(self, name):
        """The forward gain is sd**2 * fan-in; it does not change with the width or the crop."""
        full = {l.name: l.kernel**2 * l.inputs for l in weight_layers(NETS["A"])}
        model = vgg("A", 10, 64, 1 / 4, initialisation=name, seed=3)
        for layer in (l for l in model.layers if l.weights):
            kernel, bias = layer.get_weights()
            gain = kernel.var() * np.prod(kernel.shape[:-1])
            expected = INITIALISATIONS[name] ** 2 * full[layer.name]
            assert gain == pytest.approx(expected, rel=0.2)
            assert not bias.any()

    def test_the_first_layer_has_the_papers_sd_at_any_crop_size(self):
        kernel = vgg("A", 10, 32, 1.0, initialisation="gaussian").get_layer("block1_conv1")
        assert kernel.get_weights()[0].std() == pytest.approx(0.01, rel=0.1)

    def test_glorot_has_the_expected_variance(self):
        kernel = vgg("A", 10, 32, 1 / 4).get_layer("fc2").get_weights()[0]
        assert kernel.var() == pytest.approx(2 / (1024 + 1024), rel=0.02)

    def test_weights_depend_on_the_seed(self):
        a, b, c = (vgg("A", 5, 32, 1 / 16, seed=s).get_weights() for s in (0, 0, 1))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        assert not np.array_equal(a[0], c[0])

    def test_layers_are_drawn_independently(self):
        model = vgg("B", 5, 32, 1 / 16)
        kernels = [model.get_layer(f"block5_conv{i}").get_weights()[0] for i in (1, 2)]
        assert not np.array_equal(*kernels)

    def test_kernels_that_are_not_drawn_are_0_and_the_configuration_is_the_same(self):
        drawn, blank = (vgg("A", 5, 32, 1 / 64, initialise=one) for one in (True, False))
        assert all(np.any(kernel) for kernel in drawn.get_weights()[::2])
        assert not any(np.any(kernel) for kernel in blank.get_weights())
        assert drawn.to_json() == blank.to_json()

    def test_an_unknown_initialisation_is_refused(self):
        with pytest.raises(ValueError, match=r"gaussian, gaussian-0\.1, glorot\. Received: 'he'"):
            vgg("A", initialisation="he")


def test_weight_decay_is_that_of_caffe_for_kernels_alone():
    """The gradient of the penalty is lambda * w for kernels and none for biases, as in Caffe."""
    model = vgg("A", 5, 32, 1 / 16, weight_decay=5e-4)
    with tf.GradientTape() as tape:
        penalty = tf.add_n(model.losses)
    kernels = [l.kernel.value for l in model.layers if l.weights]
    biases = [l.bias.value for l in model.layers if l.weights]
    gradients = tape.gradient(penalty, kernels + biases)
    for kernel, gradient in zip(kernels, gradients, strict=False):
        np.testing.assert_allclose(gradient, 5e-4 * kernel, rtol=1e-5)
    assert gradients[len(kernels) :] == [None] * len(biases)
    assert vgg("A", 5, 32, 1 / 16, weight_decay=0).losses == []


def test_scores_stay_in_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = vgg("A", 5, 32, 1 / 16)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("fc2").compute_dtype == "bfloat16"
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert model(random_images(1, 32, 32, 3)).dtype == tf.float32


@pytest.mark.parametrize(("given", "name"), [("vgg16", "D"), ("a-lrn", "A-LRN")])
def test_an_alias_gives_the_net_under_its_own_name(given, name):
    assert vgg(given, 5, 32, 1 / 16).to_json() == vgg(name, 5, 32, 1 / 16).to_json()
    assert vgg(given, 5, 32, 1 / 16).name == name


def test_the_scores_have_a_softmax_or_no_activation():
    x = random_images(2, 32, 32, 3)
    scores = vgg("A", 5, 32, 1 / 16, classifier_activation=None)(x)
    np.testing.assert_allclose(vgg("A", 5, 32, 1 / 16)(x), tf.nn.softmax(scores), rtol=1e-5)
    with pytest.raises(ArgumentError, match=r"must be one of None, softmax\. Received: 'relu'"):
        vgg("A", classifier_activation="relu")


class TestKerasSettings:
    """Settings in a user's keras.json do not change the net, or they are refused by name."""

    @pytest.mark.parametrize("net", ["A-LRN", "C"])
    def test_channels_first_gives_the_same_net(self, net):
        expected = vgg(net, 5, 32, 1 / 16)
        x = random_images(1, 64, 96, 3)
        keras.config.set_image_data_format("channels_first")
        try:
            found = vgg(net, 5, 32, 1 / 16)
            np.testing.assert_array_equal(found(x), expected(x))
            maps = fully_convolutional(found)(x)
        finally:
            keras.config.set_image_data_format("channels_last")
        assert found.to_json() == expected.to_json()
        assert maps["score_map"].shape == (1, 2, 3, 5)

    @pytest.mark.parametrize("floatx", ["float16", "float64"])
    def test_another_floatx_is_refused(self, floatx):
        keras.config.set_floatx(floatx)
        try:
            with pytest.raises(ArgumentError, match=f"floatx must be .*Received: .*{floatx}"):
                vgg("A", 5, 32, 1 / 16)
        finally:
            keras.config.set_floatx("float32")

    def test_the_dtype_policy_is_used(self):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float64")
        try:
            model = vgg("A", 5, 32, 1 / 16)
        finally:
            keras.config.set_dtype_policy(before)
        assert {variable.dtype for layer in model.layers for variable in layer.variables} >= {
            "float64"
        }
        assert model(random_images(1, 32, 32, 3)).dtype == tf.float64

    def test_a_backend_that_is_not_installed_is_named(self, tmp_path):
        """The backend in keras.json is torch, and PyTorch is not installed."""
        (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))
        code = "import sys; sys.modules['torch'] = None; from vgg_keras import TrainedNet"
        settings = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=settings | {"KERAS_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        last = done.stderr.strip().splitlines()[-1]
        assert "MissingPackageError" in last
        assert '"backend" in keras.json' in last
