"""Checkpoints of TensorFlow: of TF-Slim and of tf.keras, and those that lie."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tensorflow as tf

from tests.vgg_keras.weights import foreign, tf_checkpoints
from tests.vgg_keras.weights.test_formats import assert_equal_layers
from tests.vgg_keras.weights.test_refusals import peak
from vgg_keras import vgg, weights

SIZE = (7, 64, 1 / 64)


def given(net="D"):
    return foreign.random_weights(foreign.kernel_shapes(net, *SIZE))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("net", "scope"), [("D", "vgg_16"), ("E", "vgg_19"), ("A", "vgg_a")])
def test_checkpoints_of_slim(net, scope, version, tmp_path):
    """RGB minus the mean that is stored beside the weights; FC layers are convolutions."""
    tf_checkpoints.slim(tmp_path / "vgg.ckpt", given(net), version=version, scope=scope)
    layers, found = weights.read(tmp_path / "vgg.ckpt", mean=(123.68, 116.78, 103.94))
    assert (found.net, found.family, found.crop_size) == (net, "TF-Slim", 64)
    assert found.preprocessing.mean == pytest.approx((123.68, 116.78, 103.94))
    assert not found.is_assumed
    assert_equal_layers(layers, given(net))
    if version == 2:
        index = weights.read(tmp_path / "vgg.ckpt.index", mean=(123.68, 116.78, 103.94))
        assert_equal_layers(index.layers, given(net))


@pytest.mark.parametrize("names", [True, False])
def test_checkpoints_of_tf_keras(names, tmp_path):
    """Layers have their names in the graph of objects. Otherwise their order tells them."""
    tf_checkpoints.tf_keras(tmp_path / "w.ckpt", given("E"), names=names)
    layers, found = weights.read(tmp_path / "w.ckpt")
    assert (found.net, found.is_assumed) == ("E", True)
    assert_equal_layers(layers, foreign.in_rgb(given("E")))


def test_a_net_inside_a_model(tmp_path):
    tf_checkpoints.tf_keras(tmp_path / "w.ckpt", given(), nested=True)
    layers, found = weights.read(tmp_path / "w.ckpt", partial=True, preprocessing="rgb")
    assert set(found.left) == {"own/kernel"}
    assert_equal_layers(layers, given())


def test_checkpoints_of_keras_3_do_not_state_the_input(tmp_path):
    model = vgg("A", *SIZE, seed=1)
    tf.train.Checkpoint(model=model).write(str(tmp_path / "w"))
    with pytest.raises(weights.WeightsError, match="does not tell the preprocessing"):
        weights.read(tmp_path / "w")
    layers, _ = weights.read(tmp_path / "w", preprocessing="rgb")
    assert_equal_layers(layers, {k: tuple(model.get_layer(k).get_weights()) for k in layers})


GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
LIES = {
    # A negative or overflowing shape ends the process of TensorFlow's own reader.
    "negative": ({"a": tf_checkpoints.entry((-5,), size=12)}, 1, r"a declares shape \[-5\]"),
    "overflow": ({"a": tf_checkpoints.entry((2**62, 2**62), size=16)}, 1, "a declares shape"),
    "many sides": ({"a": tf_checkpoints.entry((1,) * 30)}, 1, "a declares shape"),
    "huge": ({"a": tf_checkpoints.entry((2**39,))}, 1, "is not stored as one tensor"),
    "short": ({"a": tf_checkpoints.entry((2**30,), size=12)}, 1, "is not stored as one tensor"),
    "behind the end": ({"a": tf_checkpoints.entry((3,), offset=4200)}, 1, "is not stored as one"),
    "before the start": ({"a": tf_checkpoints.entry((3,), offset=-4)}, 1, "is not stored as one"),
    "slices": ({"a": tf_checkpoints.entry((3,), slices=True)}, 1, "is not stored as one"),
    "another file": ({"a": tf_checkpoints.entry((3,), shard=7)}, 1, "is not stored as one"),
    "no such file": ({"a": tf_checkpoints.entry((3,))}, 2, "No such file"),
    "many files": ({"a": tf_checkpoints.entry((3,))}, -3, "1 to 1000 files of values"),
    "no dtype": ({"a": tf_checkpoints.entry((3,), dtype=99)}, 1, "99"),
    "graph of many texts": ({GRAPH: tf_checkpoints.entry((2**33,), 7, size=12)}, 1, "be one text"),
    "graph of numbers": ({GRAPH: tf_checkpoints.entry(())}, 1, "be one text"),
    "long graph": ({GRAPH: tf_checkpoints.entry((), 7, offset=4096, size=10)}, 1, "be one text"),
    "means of text": ({"a/mean_rgb": tf_checkpoints.entry((3,), 7, size=12)}, 1, "no tensor with"),
    "strings": ({"a": tf_checkpoints.entry((2**33,), 7, size=12)}, 1, "made to fill memory"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused_by_name(name, tmp_path):
    entries, shards, message = LIES[name]
    tf_checkpoints.lying(tmp_path / name, entries, shards)
    peak()
    before = peak()
    with pytest.raises(weights.WeightsError, match=message) as refusal:
        weights.read(tmp_path / name)
    assert name in str(refusal.value)
    assert peak() - before < 2**25


SHARED = b"\x7f\1\0x"  # an entry that has 127 bytes more than the key before it shares
INDEXES = {
    "no header": ([[(b"a", b"")]], "its index has no header"),
    "long name": ([[(b"a" * 2000, b"")]], "its index is damaged"),
    "long value": ([[(b"a", bytes(2000))]], "its index is damaged"),
    "shared with no name": ([SHARED], "its index is damaged"),
    "many entries": (
        [[(b"%d" % i, b"") for i in range(11_000)]],
        "its index has more than 10,000 entries",
    ),
    "one block many times": (
        [[(b"%d" % i, b"") for i in range(100)]] * 101,
        "its index has more than",
    ),
}


@pytest.mark.parametrize("name", INDEXES)
def test_a_harmful_index_is_refused_by_name(name, tmp_path):
    blocks, message = INDEXES[name]
    tf_checkpoints.table(tmp_path / f"{name}.index", *blocks)
    before = peak()
    with pytest.raises(weights.WeightsError, match=f"{name}: {message}"):
        weights.read(tmp_path / name)
    assert peak() - before < 2**25


def test_damage_is_refused_by_name(tmp_path):
    tf_checkpoints.slim(tmp_path / "w.ckpt", given("A"))
    index = (tmp_path / "w.ckpt.index").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(index)
        for at in rng.integers(0, len(index) - 8, 3):
            damaged[at] = rng.integers(256)
        (tmp_path / "w.ckpt.index").write_bytes(damaged)
        with pytest.raises(weights.WeightsError, match=r"w\.ckpt"):
            weights.read(tmp_path / "w.ckpt")
    (tmp_path / "w.ckpt.index").write_bytes(index)
    os.truncate(tmp_path / "w.ckpt.data-00000-of-00001", 1000)
    with pytest.raises(weights.WeightsError, match="is not stored as one tensor"):
        weights.read(tmp_path / "w.ckpt")
