"""Geometry of boxes: conversion to the window of a crop and back, and IoU."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.conftest import encode
from vgg_keras.pipelines.boxes import (
    Boxes,
    box_target,
    from_window,
    inside,
    iou,
    to_window,
    window_frame,
)
from vgg_keras.pipelines.images import rescaled_size, window, window_origin

sides = st.integers(1, 700)
shares = st.floats(0, 1, width=32)


@st.composite
def a_box(draw):
    x = sorted((draw(shares), draw(shares)))
    y = sorted((draw(shares), draw(shares)))
    return np.float32([x[0], y[0], x[1], y[1]])


@settings(deadline=None, max_examples=100)
@given(a_box(), sides, sides, st.integers(32, 512), shares, shares, st.booleans())
def test_conversion_to_a_window_and_back_gives_the_same_box(
    box, height, width, scale, down, across, flip
):
    assume(max(height, width) / min(height, width) < 30)
    size, position = np.int32([height, width]), np.float32([down, across])
    frame = window_frame(size, scale, 32, position).numpy()
    seen = to_window(box, frame, flip).numpy()
    again = from_window(seen, frame, flip)
    pixels = np.tile([width, height], 2)
    np.testing.assert_allclose(again * pixels, box * pixels, atol=0.01)


@settings(deadline=None, max_examples=50)
@given(a_box(), sides, sides, st.integers(32, 200), shares, shares, st.booleans())
def test_conversion_equals_rescaling_cropping_and_mirroring(
    box, height, width, scale, down, across, flip
):
    """The expected edges are rescaled, moved by the corner of the crop, and mirrored."""
    assume(max(height, width) / min(height, width) < 30)
    size, position = np.int32([height, width]), np.float32([down, across])
    frame = window_frame(size, scale, 32, position).numpy()
    x, y, w, h = (32 * to_window(box, frame, flip).numpy()).tolist()
    scaled = rescaled_size(size, scale)
    tall, wide = scaled.numpy()
    top, left = window_origin(scaled, 32, position).numpy()
    edges = [box[0] * wide - left, box[2] * wide - left]
    if flip:
        edges = [32 - edge for edge in edges]
    np.testing.assert_allclose([x - w / 2, x + w / 2], sorted(edges), atol=0.01)
    np.testing.assert_allclose(
        [y - h / 2, y + h / 2], [box[1] * tall - top, box[3] * tall - top], atol=0.01
    )


def test_a_converted_box_frames_its_pixels():
    """A white box on black is cropped by `window`; its edges are found in the pixels."""
    pixels = np.zeros((120, 180, 3), np.uint8)
    pixels[36:84, 60:132] = 255
    encoded = encode(pixels, "PNG")
    box = np.float32([60 / 180, 36 / 120, 132 / 180, 84 / 120])
    for position in ([0.1, 0.2], [0.5, 0.5], [0.9, 0.7]):
        for flip in (False, True):
            # As tensors, for which `window` is not traced again.
            where, mirrored = tf.constant(position), tf.constant(flip)
            crop = window(encoded, 100, 64, where, mirrored, (0.0, 0.0, 0.0)).numpy()
            frame = window_frame(np.int32([120, 180]), 100, 64, np.float32(position))
            x, y, w, h = 64 * to_window(box, frame, flip).numpy()
            for axis, low, high in ((0, y - h / 2, y + h / 2), (1, x - w / 2, x + w / 2)):
                lit = np.flatnonzero(crop[..., 0].max(1 - axis) > 127)
                assert abs(lit[0] - max(low, 0)) <= 1
                assert abs(lit[-1] + 1 - min(high, 64)) <= 1


def test_an_object_is_inside_if_the_centre_of_its_box_is():
    seen = np.float32([[0.5, 0.5, 3, 3], [0, 1, 0.1, 0.1], [1.01, 0.5, 1, 1], [0.5, -0.01, 1, 1]])
    assert inside(seen).numpy().tolist() == [True, True, False, False]


@settings(deadline=None, max_examples=100)
@given(*[st.lists(st.integers(0, 24), min_size=4, max_size=4)] * 2)
def test_iou_equals_a_count_of_pixels(first, second):
    def corners(four):
        (x0, x1), (y0, y1) = sorted(four[:2]), sorted(four[2:])
        return [x0, y0, x1, y1]

    def painted(box):
        mask = np.zeros((25, 25), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        return mask

    a, b = corners(first), corners(second)
    one, other = painted(a), painted(b)
    union = (one | other).sum()
    expected = (one & other).sum() / union if union else 0
    np.testing.assert_allclose(iou(np.float64(a) / 25, np.float64(b) / 25), expected, atol=1e-12)


def test_iou_broadcasts_and_is_0_for_empty_boxes():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.5, 1], [0.5, 0.5, 0.5, 0.5]])
    np.testing.assert_allclose(
        iou(boxes[:, None], boxes[None]), [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]
    )


def test_boxes_are_indexed_and_drawn_by_image():
    boxes = Boxes.of_images([[[0, 0, 1, 1]], [], [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]])
    assert len(boxes) == 3
    assert [len(boxes[i]) for i in range(3)] == [1, 0, 2]
    assert boxes[2].tolist() == [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]
    assert (boxes.values.dtype, boxes.splits.dtype) == (np.float32, np.int64)
    drawn = [boxes.drawn(tf.constant(2, tf.int64), draw).numpy()[0] for draw in (0.0, 0.49, 0.51)]
    assert drawn == [0, 0, 0.5]
    assert boxes.drawn(tf.constant(2, tf.int64), np.float32(1 - 2**-24)).numpy()[0] == 0.5


def test_boxes_are_copied_without_their_tensors_and_do_not_change():
    boxes = Boxes.of_images([[[0, 0, 1, 1]], [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]])
    before = len(pickle.dumps(boxes))
    drawn = boxes.drawn(tf.constant(1, tf.int64), 0.9)
    assert len(pickle.dumps(boxes)) == before
    copied = pickle.loads(pickle.dumps(boxes))
    np.testing.assert_array_equal(copied.drawn(tf.constant(1, tf.int64), 0.9), drawn)
    np.testing.assert_array_equal(copied[1], boxes[1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        boxes.values = boxes.values[1:]  # its splits would point elsewhere


def test_a_target_is_the_box_and_the_class():
    target = box_target(np.float32([0, 0, 1, 1]), np.float32([0, 0, 1, 1]), False, 7)
    assert target.numpy().tolist() == [0.5, 0.5, 1, 1, 7]


@pytest.mark.parametrize("flip", [False, True])
def test_negative_sides_count_as_0(flip):
    boxes = from_window(np.array([0.5, 0.5, -1, 0.2]), np.array([0.0, 0, 1, 1]), flip)
    assert boxes[0] == boxes[2] == 0.5


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("convert", [to_window, from_window])
def test_boxes_are_converted_in_tables_as_they_are_alone(convert, flip):
    """Of any number of axes, each with its own frame."""
    boxes, frames = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 5, 4)).astype("float32")
    alone = [
        convert(b, f, flip)
        for b, f in zip(boxes.reshape(-1, 4), frames.reshape(-1, 4), strict=True)
    ]
    np.testing.assert_array_equal(
        convert(boxes, frames, flip), np.reshape(alone, (3, 5, 4)), strict=True
    )
    np.testing.assert_array_equal(convert(boxes, frames), convert(boxes, frames, False))
