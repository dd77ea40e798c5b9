from __future__ import annotations

import types

import numpy as np
import pytest

from vgg_keras.evaluation.evaluate import _warn_of_training_images
from vgg_keras.evaluation.metrics import ErrorCount
from vgg_keras.recipes import Recipe


def count(posteriors, labels):
    counter = ErrorCount()
    counter.add(np.asarray(posteriors, float), np.asarray(labels))
    return counter


def test_errors_are_in_percent():
    posteriors = np.eye(10)[[0, 1, 2, 3]] + np.linspace(0.1, 0, 10)
    counter = count(posteriors, [0, 1, 9, 3])
    assert (counter.images, counter.top1_error, counter.top5_error) == (4, 25.0, 25.0)
    assert count(posteriors, [0, 0, 1, 2]).top5_error == 0.0


def test_batches_sum_to_the_whole():
    rng = np.random.default_rng(0)
    posteriors, labels = rng.random((101, 20)), rng.integers(0, 20, 101)
    whole, parts = count(posteriors, labels), ErrorCount()
    for i in range(0, 101, 7):
        parts.add(posteriors[i : i + 7], labels[i : i + 7])
    assert parts == whole
    order = np.argsort(-posteriors, 1, kind="stable")
    assert whole.top1_errors == (order[:, 0] != labels).sum()
    assert whole.top5_errors == (order[:, :5] != labels[:, None]).all(1).sum()


def test_ties_are_ordered_as_by_a_stable_sort():
    assert count([[0.5, 0.5]], [0]).top1_error == 0.0
    assert count([[0.5, 0.5]], [1]).top1_error == 100.0
    assert count(np.ones((10, 10)), range(10)).top5_error == 50.0


def test_top5_error_is_0_with_fewer_than_five_classes():
    assert count([[0.1, 0.2, 0.7]], [0]).top5_error == 0.0


def test_nan_counts_as_an_error():
    counter = count([[np.nan] * 9], [0])
    assert (counter.top1_error, counter.top5_error) == (100.0, 100.0)


def test_no_image_has_no_error():
    assert (ErrorCount().top1_error, ErrorCount().top5_error) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("trained", "tested", "warns"),
    [
        ("folder:a?val=0.1", "folder:a?val=0.2", True),
        ("folder:a?train=T&val=0.1", "folder:a?train=T&val=0.2", True),
        ("folder:a?val=0.1", "folder:a?val=0.1", False),
        ("folder:a?val=0.1", "folder:b?val=0.2", False),
        ("folder:a", "folder:a?val=0.2", False),
    ],
)
def test_another_held_out_fraction_is_said(trained, tested, warns, caplog):
    net = types.SimpleNamespace(name="runs/a", recipe=Recipe(data=trained))
    _warn_of_training_images(net, tested)
    assert ("runs/a was trained with val=0.1" in caplog.text) == warns
