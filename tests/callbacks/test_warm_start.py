"""Starting a model from layers of another."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tests.callbacks.small import data, small_model
from vgg_keras.callbacks import (
    WarmStart,
    read_layers,
)
from vgg_keras.callbacks.errors import WarmStartError


class TestWarmStart:
    def test_layers_come_from_a_model_a_file_or_a_folder(self, tmp_path):
        source = small_model(seed=1)
        source.save_weights(tmp_path / "best.weights.h5")
        for given in (source, tmp_path / "best.weights.h5", str(tmp_path)):
            target = small_model(seed=2)
            out_before = target.get_layer("out").get_weights()[0]
            assert WarmStart(given, ["hidden"]).apply(target) == ["hidden"]
            np.testing.assert_array_equal(
                target.get_layer("hidden").get_weights()[0],
                source.get_layer("hidden").get_weights()[0],
            )
            np.testing.assert_array_equal(target.get_layer("out").get_weights()[0], out_before)

    def test_all_layers_are_copied_by_default(self):
        source, target = small_model(seed=1), small_model(seed=2)
        assert WarmStart(source).apply(target) == ["hidden", "out"]
        for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_nothing_is_copied_if_one_layer_does_not_fit(self):
        target = small_model(units=5)
        before = target.get_weights()
        with pytest.raises(
            WarmStartError, match=r"hidden has shapes \[\(3, 4\), \(4,\)\], the model's"
        ):
            WarmStart(small_model(), ["out", "hidden"]).apply(target)
        for a, b in zip(before, target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_missing_layers_are_named(self):
        message = r"fc9 is missing in the source \(its layers: hidden, out\)"
        with pytest.raises(WarmStartError, match=message):
            WarmStart(small_model(), ["fc9"]).apply(small_model())

    def test_fit_copies_layers_only_before_the_first_step(self):
        x, y = data()
        source, target = small_model(seed=1), small_model(seed=2)
        target.optimizer.learning_rate = 0.0
        target.fit(x, y, epochs=1, verbose=0, callbacks=[WarmStart(source, ["hidden"])])
        np.testing.assert_array_equal(target.get_weights()[0], source.get_weights()[0])
        other = small_model(seed=3)
        target.fit(x, y, epochs=1, verbose=0, callbacks=[WarmStart(other, ["hidden"])])
        np.testing.assert_array_equal(target.get_weights()[0], source.get_weights()[0])

    def test_copied_layers_are_logged(self, caplog):
        with caplog.at_level("INFO"):
            WarmStart(small_model(), ["hidden"]).apply(small_model())
        assert "started from small: hidden" in caplog.text

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(WarmStartError, match="nowhere does not exist"):
            read_layers(tmp_path / "nowhere")

    def test_a_file_without_weights_is_named(self, tmp_path):
        (tmp_path / "x.weights.h5").write_text("no")
        with pytest.raises(WarmStartError, match=r"x\.weights\.h5 is not a Keras"):
            read_layers(tmp_path / "x.weights.h5")
        with h5py.File(tmp_path / "y.weights.h5", "w") as file:
            file["other"] = 1
        with pytest.raises(WarmStartError, match=r"y\.weights\.h5 is not a Keras"):
            read_layers(tmp_path / "y.weights.h5")
