"""Evaluation makes no further table of all images and classes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from vgg_keras.evaluation import posteriors as posteriors_module
from vgg_keras.evaluation.metrics import ErrorCount
from vgg_keras.evaluation.posteriors import posteriors
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.procedure import Pass

IMAGES, CLASSES = 8_000, 200


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 50, (IMAGES, CLASSES)).astype(np.float32)  # with ties
    rows /= rows.sum(1, keepdims=True)
    names = [f"{i}.jpg" for i in range(IMAGES)]
    classes = tuple(f"class {i}" for i in range(CLASSES))
    return Predictions(names, rng.integers(0, CLASSES, IMAGES), rows, classes)


@pytest.mark.parametrize(
    "use", [Predictions.result, Predictions.top, "save"], ids=["result", "top", "save"]
)
def test_the_arrays_of_all_classes_are_those_of_some_rows(predictions, use, tmp_path):
    action = use if callable(use) else lambda one: one.save(tmp_path / "rows.parquet")
    action(predictions)  # imports
    tracemalloc.start()
    action(predictions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < predictions.posteriors.nbytes * 0.75


def test_parts_of_the_rows_give_what_all_rows_give(predictions):
    count = ErrorCount()
    count.add(predictions.posteriors, predictions.labels)
    order = np.argsort(-predictions.posteriors, axis=1, kind="stable")[:, :3]
    result, (classes, values) = predictions.result(), predictions.top(3)
    assert (result["top1_error"], result["top5_error"]) == (count.top1_error, count.top5_error)
    np.testing.assert_array_equal(classes, order)
    np.testing.assert_array_equal(values, np.take_along_axis(predictions.posteriors, order, 1))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_rows_in_several_parts_are_saved_and_loaded(predictions, suffix, tmp_path):
    few = slice(0, 2_500)
    some = Predictions(
        predictions.names[few],
        predictions.labels[few],
        predictions.posteriors[few],
        predictions.class_names,
    )
    some.save(tmp_path / f"rows{suffix}")
    loaded = Predictions.load(tmp_path / f"rows{suffix}")
    assert loaded.names == some.names
    np.testing.assert_array_equal(loaded.labels, some.labels)
    np.testing.assert_array_equal(loaded.posteriors, some.posteriors)


class TestMeanOfPasses:
    PASSES = (Pass("multi-crop", 32, True), Pass("multi-crop", 48, True), Pass("dense", 32, True))

    @pytest.fixture
    def tables(self, monkeypatch):
        """The tables that the passes fill."""
        found = []
        monkeypatch.setattr(posteriors_module, "posteriors_by_pass", lambda *_, **__: found)
        return found

    def test_it_is_computed_in_the_first_table(self, tables):
        rng = np.random.default_rng(1)
        tables += [rng.random((5, 4), np.float32) for _ in self.PASSES]
        first, second, third = (table.copy() for table in tables)
        mean = posteriors(None, None, self.PASSES)
        expected = ((first + second) / np.float32(2) + third) / np.float32(2)
        np.testing.assert_array_equal(mean, expected)
        assert np.shares_memory(mean, tables[0])

    def test_cached_rows_are_not_changed(self, tables, tmp_path):
        np.save(tmp_path / "rows.npy", np.full((5, 4), 0.25, np.float32))
        tables.append(np.load(tmp_path / "rows.npy", mmap_mode="r+"))
        posteriors(None, None, self.PASSES[:1])[:] = 0
        assert (np.load(tmp_path / "rows.npy") == 0.25).all()
