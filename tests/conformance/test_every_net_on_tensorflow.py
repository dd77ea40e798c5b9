"""Every net of Table 1 has one trace for all sizes and can be served, on TensorFlow."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.cpp_loader import CppModel
from tests.conformance.test_every_net import CROP, build, images
from vgg_keras import TrainedNet, fully_convolutional
from vgg_keras.evaluation.posteriors import make_predict_fn
from vgg_keras.nets import NETS
from vgg_keras.saved_models.export import Endpoint, write_version

pytestmark = [
    pytest.mark.parametrize("net", NETS),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs TensorFlow"),
]


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


def test_a_served_net_gives_the_same_results(net, tmp_path):
    """The C++ loader of TensorFlow Serving gives the same results on crops and whole images."""
    model = build(net, classifier_activation=None)
    look, x = (
        make_predict_fn(TrainedNet.of_model(model, mean=(0.0, 0.0, 0.0)), flip=False),
        images(1, CROP, CROP, 3),
    )
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
