"""Greedy merging of boxes: worked examples, and properties that hold for any input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgg_keras.localisation.merging import best_boxes, match_distance
from vgg_keras.localisation.merging import merge as merge_tensors

numbers = st.floats(-2, 3, width=32) | st.sampled_from(
    [0.0, 0.5, 1.0, np.nan, np.inf, -np.inf, 1e30]
)
predictions = st.lists(st.tuples(*[numbers] * 4, st.floats(0, 1, width=32)), max_size=12)
thresholds = st.sampled_from([0.0, 0.5, 0.8, 2.0, 1e9])


def merge(*arguments, **options):
    return tuple(t.numpy() for t in merge_tensors(*arguments, **options))


def arrays(found):
    table = np.array(found, np.float64).reshape(-1, 5)
    return table[:, :4], table[:, 4]


@settings(deadline=None, max_examples=200)
@given(predictions, thresholds)
def test_any_input_gives_boxes_inside_the_image(found, threshold):
    boxes, scores = merge(*arrays(found), threshold)
    assert np.isfinite(boxes).all()
    assert np.isfinite(scores).all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (np.diff(scores) <= 0).all()
    usable = np.isfinite(arrays(found)[0]).all(1)
    assert (len(boxes) > 0) == usable.any()
    np.testing.assert_allclose(scores.sum(), arrays(found)[1][usable].sum(), atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(predictions, thresholds, st.randoms())
def test_the_order_does_not_change_the_result(found, threshold, random):
    mixed = list(found)
    random.shuffle(mixed)
    for one, other in zip(
        merge(*arrays(found), threshold), merge(*arrays(mixed), threshold), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_order_does_not_decide_between_equal_distances(axis):
    """The middle of three boxes is as near to the first as to the last."""
    shift = np.tile(np.eye(2)[axis], 2) / 8
    boxes = [np.array([0, 0, 0.5, 0.5]) + i * shift for i in range(3)]
    expected, _ = merge(np.stack(boxes), np.ones(3))
    assert len(expected) == 2
    for mixed in itertools.permutations(boxes):
        np.testing.assert_array_equal(merge(np.stack(mixed), np.ones(3))[0], expected)


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.floats(0, 1)] * 4), st.integers(1, 9))
def test_identical_boxes_become_one(box, count):
    boxes = np.tile(np.sort(np.reshape(box, (2, 2)), 0).ravel(), (count, 1))
    merged, scores = merge(boxes, np.full(count, 0.25), threshold=0)
    np.testing.assert_allclose(merged, boxes[:1], atol=1e-300)  # denormals may become 0
    assert scores.tolist() == [0.25 * count]


def test_distant_boxes_are_not_merged_and_the_best_comes_first():
    left, right = [0.0, 0, 0.3, 0.3], [0.7, 0.7, 1, 1]
    near = [0.02, 0, 0.32, 0.3]
    merged, scores = merge(np.array([left, right, near]), np.array([0.2, 0.3, 0.2]))
    np.testing.assert_allclose(merged, [[0.01, 0, 0.31, 0.3], right])
    np.testing.assert_allclose(scores, [0.4, 0.3])


def test_a_box_is_the_average_of_all_its_predictions():
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.52, 0.5], [0.14, 0.1, 0.6, 0.5]])
    merged, scores = merge(boxes, np.ones(3), threshold=1e9)
    np.testing.assert_allclose(merged, [boxes.mean(0)])
    assert scores.tolist() == [3]


def test_the_closest_pair_is_merged_first():
    """The middle box is nearer to the right one: with a tight threshold only those two merge."""
    boxes = np.array([[0.0, 0, 0.4, 0.4], [0.12, 0, 0.52, 0.4], [0.2, 0, 0.6, 0.4]])
    first, second = match_distance(boxes[0], boxes[1]), match_distance(boxes[1], boxes[2])
    assert second < first
    merged, _ = merge(boxes, np.array([1.0, 1, 1]), threshold=(first + second) / 2)
    np.testing.assert_allclose(merged, [boxes[1:].mean(0), boxes[0]])


def test_distances_equal_a_worked_example():
    one = np.array([0.1, 0.3, 0.5, 0.5])
    assert match_distance(one, one) == 0
    # The centres are a quarter of the width apart; the boxes share 0.3 x 0.2 of 0.5 x 0.2.
    np.testing.assert_allclose(match_distance(one, one + [0.1, 0, 0.1, 0]), 0.25 + 1 - 0.6)
    # A quarter of the height likewise, and in the other order.
    np.testing.assert_allclose(match_distance(one + [0, 0.05, 0, 0.05], one), 0.25 + 1 - 0.6)
    assert match_distance(one, one + 0.5) > 1


def test_boxes_within_a_third_of_their_width_are_merged_by_default():
    """Shifted by 0.3 widths the distance is 0.3 + 1 - 0.7 / 1.3 = 0.76, by 0.35 it is 0.87."""
    box = np.array([0.0, 0, 0.4, 0.4])
    for shift, count in ((0.3, 1), (0.35, 2)):
        boxes = np.stack([box, box + [shift * 0.4, 0, shift * 0.4, 0]])
        assert len(merge(boxes, np.ones(2))[0]) == count


def test_boxes_without_an_area_have_a_least_side():
    """Two points that are 2e-6 apart are two least sides apart, and do not overlap."""
    point = np.full(4, 0.5)
    np.testing.assert_allclose(match_distance(point, point + [2e-6, 0, 2e-6, 0]), 2 + 1, rtol=1e-6)


def test_a_threshold_that_is_negative_or_not_finite_is_refused():
    for threshold in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"0 or more\. Received: "):
            merge(np.zeros((1, 4)), np.zeros(1), threshold)


def test_each_class_has_its_best_box_or_the_whole_image():
    boxes = np.array([[0.8, 0.8, 0.9, 0.9, 0.2], [0.1, 0.1, 0.5, 0.5, 0.3]])
    found = best_boxes(np.stack([boxes, boxes * np.nan]))
    np.testing.assert_allclose(found, [boxes[1, :4], [0, 0, 1, 1]])
