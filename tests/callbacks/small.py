"""A small model and small data."""

from __future__ import annotations

import keras
import numpy as np


def small_model(units=4, seed=0, dropout=0.5):
    """A compiled classifier of three numbers into two classes, with dropout."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.layers.Input((3,), name="inputs"),
            keras.layers.Dense(units, name="hidden"),
            keras.layers.Dropout(dropout, seed=1, name="drop"),
            keras.layers.Dense(2, name="out"),
        ],
        name="small",
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, name="sgd"),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # compiling takes longer than the few steps of a test
    )
    return model


def data(n=32):
    """Inputs `(n, 3)` and labels: whether the sum is positive."""
    x = np.random.default_rng(0).normal(size=(n, 3)).astype("float32")
    return x, (x.sum(1) > 0).astype("int64")
