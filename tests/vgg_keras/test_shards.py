"""Training from files that hold many images."""

from __future__ import annotations

import dataclasses
import shutil

import h5py
import keras
import numpy as np
import pytest

from tests.conftest import TINY, write_folder
from tests.pipelines.containers import KINDS, write_shards
from vgg_keras import RECIPES, train

pytestmark = pytest.mark.slow


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def arrays(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda key, x: found.update({key: x[()]} if hasattr(x, "dtype") else {}))
    return found


def test_interrupted_training_ends_with_the_weights_of_the_folder(tmp_path):
    """From each kind of file; the images are in another order in the files than in the folder."""
    spec = write_folder(tmp_path / "data", train=4, val=2)
    recipe = dataclasses.replace(
        RECIPES["small"], **TINY, data=spec, batch_size=4, epochs=2, initialisation="glorot"
    )
    expected = arrays(train(recipe, tmp_path / "folder", verbose=0) / "last.weights.h5")
    assert any(key.startswith("optimizer") for key in expected)
    for kind in KINDS:
        of_kind = dataclasses.replace(
            recipe, data=write_shards(kind, tmp_path / "data", tmp_path / kind, seed=3)
        )
        out, options = tmp_path / f"run-{kind}", {"data_dir": tmp_path / "cache", "verbose": 0}
        with pytest.raises(KeyboardInterrupt):
            train(of_kind, out, callbacks=[Interrupt()], **options)
        shutil.rmtree(tmp_path / "cache")  # the index is made again
        train(of_kind, out, **options)
        got = arrays(out / "last.weights.h5")
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(got[key], value, err_msg=f"{kind} {key}")
