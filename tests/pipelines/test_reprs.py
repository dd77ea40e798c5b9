"""What is printed of objects with many images or large arrays: a line or two."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import vgg_keras
from vgg_keras.pipelines.reprs import ShortRepr, short
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.splits import Source, Split
from vgg_keras.weights import Contents, Weights
from vgg_keras.weights.preprocessing import PREPROCESSINGS

NAMES = tuple(f"image {i}.jpg" for i in range(5000))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), np.float32), "<float32 (2, 3)>"),
        (NAMES, "('image 0.jpg', 'image 1.jpg', 'image 2.jpg', ... 5000 in all)"),
        ((1.5, 2), "(1.5, 2)"),
        ({"a": NAMES[:1], "b": None}, "{'a': ('image 0.jpg'), 'b': None}"),
        (dict.fromkeys(range(9)), "{0: None, 1: None, 2: None, ... 9 in all}"),
        ("a long text", "'a long text'"),
    ],
)
def test_long_values_are_cut(value, text):
    assert short(value) == text


def test_fields_are_named():
    @dataclasses.dataclass(repr=False)
    class Rows(ShortRepr):
        names: tuple[str, ...]
        hidden: int = dataclasses.field(default=0, repr=False)

    assert repr(Rows(("a",))) == "Rows(names=('a'))"


def test_objects_with_many_images_are_printed_in_a_line():
    images = np.zeros((40, 8, 8, 3), np.uint8)
    split = Split.from_arrays(images, np.arange(40))
    source = Source.of(train=split, val=split)
    files = FolderSplit("train", NAMES, np.zeros(5000, int))
    values = np.zeros((5000, 900), np.float32)
    labels = np.zeros(5000, np.int64)
    predictions = vgg_keras.Predictions(NAMES, labels, values, NAMES[:900])
    arrays = {f"layer {i}": (values, labels) for i in range(16)}
    contents = Contents("Keras", "D", 9, 32, 1.0, ("a",), {}, PREPROCESSINGS["rgb"], "")
    for one in (split, source, files, predictions, Weights(arrays, contents)):
        text = repr(one)
        assert len(text) < 600
        assert text.startswith(type(one).__name__)
        assert "\n" not in text
    assert "<float32 (5000, 900)>" in repr(predictions)
    assert "'train': ArraySplit('train', 40 images)" in repr(source)
    assert "'layer 0': (<float32 (5000, 900)>, <int64 (5000,)>)" in repr(Weights(arrays, contents))


def test_public_dataclasses_with_arrays_have_short_texts():
    names = ("Features", "Predictions", "TrainedNet")
    assert all(issubclass(getattr(vgg_keras, name), ShortRepr) for name in names)
