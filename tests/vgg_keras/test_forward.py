"""What the backends of Keras have in common, without a process for each of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from vgg_keras.distribution import find_devices
from vgg_keras.errors import ArgumentError, OutOfMemoryError
from vgg_keras.evaluation.rows import RowFiller, RowPass, Table
from vgg_keras.forward import forward, num_devices
from vgg_keras.pipelines.sources.own import from_arrays
from vgg_keras.report.answers import grad_cam


@pytest.mark.parametrize("call", [find_devices, lambda: forward(None), lambda: num_devices(None)])
def test_other_backends_are_refused(call, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ArgumentError, match=r"must be TensorFlow or JAX: .*Received: torch"):
        call()


def test_grad_cam_needs_tensorflow(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ArgumentError, match="Grad-CAM needs KERAS_BACKEND=tensorflow"):
        grad_cam(None, None, 256, 0)


@pytest.mark.parametrize("is_of_jax", [True, False])
def test_a_batch_that_does_not_fit_is_named(is_of_jax):
    """TensorFlow wraps the error that JAX raises within a function of TensorFlow."""

    def score(views, indices):
        if is_of_jax:
            raise tf.errors.UnknownError(None, None, "JaxRuntimeError: RESOURCE_EXHAUSTED: ...")
        raise tf.errors.UnknownError(None, None, "something else")

    images = from_arrays(np.zeros((2, 40, 40, 3), np.uint8))
    one = RowPass("centre", "centre", 32, False, 32, score)
    rows = np.full((2, 3), np.nan, np.float32)
    table = Table(rows, lambda rows: np.isfinite(rows).all(1), [one])
    with pytest.raises(OutOfMemoryError if is_of_jax else tf.errors.UnknownError):
        RowFiller(images, verbose=0).fill([table])
