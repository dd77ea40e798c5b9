"""Strings that are packed, and splits whose examples are looked up in tensors made once."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle

import numpy as np
import pytest
import tensorflow as tf

from vgg_keras.pipelines.boxes import Boxes
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.sources.own import from_arrays
from vgg_keras.pipelines.sources.packed import PackedStrings

STRINGS = ["b", "", "naïve", "\udce9.jpg", "a much longer string", *map(str, range(45))]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, len(STRINGS)])
def test_packed_strings_are_those_of_the_list(count):
    listed = STRINGS[:count]
    packed = PackedStrings.of(text for text in listed)
    assert packed.tolist() == listed == [packed[i] for i in range(count)]
    assert len(packed) == count
    assert PackedStrings.of(packed) is packed
    indices = np.arange(count)[::-1]
    found = tf.function(packed.lookup())(tf.constant(indices)).numpy()
    assert found.tolist() == [os.fsencode(text) for text in listed[::-1]]
    assert packed[indices].tolist() == packed[::-1].tolist() == listed[::-1]
    assert packed[indices < 9].tolist() == listed[max(count - 9, 0) :]


def test_an_index_beyond_the_end_is_an_error():
    packed = PackedStrings.of(STRINGS)
    assert packed[-1] == STRINGS[-1]
    with pytest.raises(IndexError):
        packed[len(STRINGS)]


def split_of_names(count):
    names = [f"/data/n{i // 100:08d}/n{i // 100:08d}_{i}.JPEG" for i in range(count)]
    return FolderSplit("train", names, np.arange(count) // 100)


def split_of_arrays(count):
    return from_arrays(np.zeros((count, 1, 1, 3), np.uint8), np.arange(count) // 100)


def drawn_boxes(count):
    boxes = Boxes(np.zeros((count, 4), np.float32), np.arange(count + 1))
    return lambda seed: boxes.drawn(seed, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda count: split_of_names(count).shuffled,
        lambda count: split_of_arrays(count).shuffled,
        drawn_boxes,
    ],
    ids=["names", "arrays", "boxes"],
)
def test_the_graph_that_a_stream_traces_does_not_grow_with_the_images(make):
    """A million paths as constants of the graph cost 38 seconds and 2.8 GB."""

    def graph_bytes(count):
        traced = tf.function(make(count), autograph=False)
        graph = traced.get_concrete_function(tf.TensorSpec((), tf.int64)).graph
        return graph.as_graph_def().ByteSize()

    assert abs(graph_bytes(20_000) - graph_bytes(4_000)) < 200


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_splits_and_boxes_can_be_copied_after_they_were_used(copied):
    for split in (split_of_names(3), split_of_arrays(3)):
        before = list(split.in_order().as_numpy_iterator())
        np.testing.assert_equal(list(copied(split).in_order().as_numpy_iterator()), before)
    boxes = Boxes.of_images([[[0, 0, 1, 1]]])
    drawn = boxes.drawn(tf.constant(0, tf.int64), 0.0).numpy()
    again = copied(boxes).drawn(tf.constant(0, tf.int64), 0.0).numpy()
    np.testing.assert_array_equal(again, drawn)


def test_the_examples_of_all_epochs_are_those_of_earlier_versions():
    """The digest was computed when each path was a constant."""
    epochs = tf.data.Dataset.range(50, 53).flat_map(split_of_names(700).shuffled)
    examples = list(epochs.as_numpy_iterator())
    rows = [(int(e["index"]), int(e["label"]), e["path"]) for e in examples]
    assert len(rows) == 2100
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == "9ee2fca29049550a"


def test_the_number_of_examples_is_known():
    assert int(split_of_names(700).in_order().cardinality()) == 700
