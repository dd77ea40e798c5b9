"""`preprocess_input` and `decode_predictions` beside those of `keras.applications`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras.applications import imagenet_utils, vgg16

from tests.conftest import encode
from tests.tiny import lively_net
from vgg_keras import decode_predictions, ilsvrc, preprocess_input
from vgg_keras.errors import ArgumentError
from vgg_keras.evaluation import predict as predict_module

WARNING = "as if they were scaled to 0..1"


def images(*shape, dtype="float32"):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (5, 4, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
class TestPreprocessInput:
    def test_it_is_that_of_keras_in_rgb(self, shape, dtype):
        x = images(*shape, dtype=dtype)
        before = x.copy()
        found = preprocess_input(x)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(x, before)  # Keras writes into it
        expected = vgg16.preprocess_input(x.astype("float32"))[..., ::-1]
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_tensors_give_tensors(self, shape, dtype):
        x = images(*shape, dtype=dtype)
        found = preprocess_input(keras.ops.convert_to_tensor(x))
        assert keras.ops.is_tensor(found)
        np.testing.assert_allclose(found, preprocess_input(x), atol=1e-5)


def test_preprocessing_can_be_part_of_a_model():
    inputs = keras.Input((None, None, 3), dtype="uint8")
    model = keras.Model(inputs, preprocess_input(inputs, mean=(1, 2, 3)))
    x = images(1, 4, 4, 3, dtype="uint8")
    np.testing.assert_array_equal(model(x), x.astype("float32") - np.float32([1, 2, 3]))


@pytest.mark.parametrize("shape", [(3, 4, 4), (4, 3), (4, 4, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ArgumentError, match=r"x must be RGB images \(\.\.\., H, W, 3\). Received"):
        preprocess_input(np.zeros(shape))


class TestRange:
    def test_images_from_0_to_1_draw_a_warning(self, caplog):
        preprocess_input(images(4, 4, 3) / 255)
        assert WARNING in caplog.text

    def test_predict_warns_too(self, caplog, monkeypatch):
        rows = np.eye(2, 7, dtype="float32")
        monkeypatch.setattr(predict_module, "score", lambda *_, **__: (np.arange(2), rows, []))
        net = lively_net()
        x = images(2, 40, 40, 3, dtype="uint8")
        net.predict([x[0], x[1] // 255])
        net.predict([encode(x[0] // 255, "PNG")] * 2)  # files have the range that they have
        assert WARNING not in caplog.text
        net.predict(x // 255)
        assert WARNING in caplog.text


class TestDecodePredictions:
    def test_it_is_that_of_keras(self, monkeypatch):
        names = [
            names.split(",")[0].replace(" ", "_") for names in ilsvrc.names_of_wnids().values()
        ]
        index = {str(k): pair for k, pair in enumerate(zip(ilsvrc.wnids(), names, strict=True))}
        monkeypatch.setattr("keras.src.applications.imagenet_utils.CLASS_INDEX", index)
        preds = np.random.default_rng(0).dirichlet(np.ones(1000), 3).astype("float32")
        for top in (1, 5):
            found = decode_predictions(preds, top=top)
            assert found == imagenet_utils.decode_predictions(preds, top=top)
        assert found == decode_predictions(keras.ops.convert_to_tensor(preds))

    def test_names_are_those_that_keras_users_know(self):
        """As in imagenet_class_index.json of Keras."""
        known = {0: "tench", 2: "great_white_shark", 134: "crane", 386: "African_elephant"}
        for index, name in known.items():
            ((found,),) = decode_predictions(np.eye(1000)[[index]], top=1)
            assert found == (ilsvrc.wnids()[index], name, 1.0)

    @pytest.mark.parametrize("shape", [(1000,), (2, 10)])
    def test_other_shapes_are_refused(self, shape):
        with pytest.raises(ArgumentError, match=r"preds must have the shape \(N, 1000\). Received"):
            decode_predictions(np.zeros(shape))
