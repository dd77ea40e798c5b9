"""Which features of a TFDS data set are read: those that are stated or chosen, never the first."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.images import decode
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.tfds_features import chosen_features, image_and_label

F = tfds.features
KINDS = {
    "photo": F.Image(),
    "image": F.Image(),
    "mask": F.LabeledImage(labels=2),
    "label": F.ClassLabel(num_classes=3),
    "breed": F.ClassLabel(num_classes=4),
    "labels": F.Sequence(F.ClassLabel(num_classes=5)),
    "id": F.Text(),
}


def keys(names, supervised=None, several_labels=False, **chosen):
    """The keys of a data set with these features, in whatever order TFDS lists them."""
    found = set()
    for order in itertools.permutations(names):
        info = SimpleNamespace(
            features=F.FeaturesDict({name: KINDS[name] for name in order}),
            supervised_keys=supervised,
        )
        builder = SimpleNamespace(info=info)
        try:
            found.add(image_and_label("tfds:x", builder, several_labels, chosen))
        except SourceError as error:
            found.add(str(error))
    (only,) = found
    return only


class TestChoice:
    def test_one_of_each_is_taken(self):
        assert keys(["photo", "breed", "id"]) == ("photo", "breed")
        assert keys(["photo", "mask", "breed"]) == ("photo", "breed")

    def test_supervised_keys_come_first(self):
        assert keys(["photo", "image", "breed", "label"], ("photo", "breed")) == ("photo", "breed")
        assert keys(["photo", "image", "breed"], ("photo", "breed", "id")) == ("photo", "breed")

    @pytest.mark.parametrize("supervised", [("photo", "mask"), ("id", "breed"), ("photo", "photo")])
    def test_supervised_keys_of_other_kinds_are_ignored(self, supervised):
        assert keys(["photo", "mask", "id", "breed"], supervised) == ("photo", "breed")
        assert "photo, photo" not in keys(["photo", "image", "mask", "breed"], supervised)

    def test_several_are_refused_with_their_names(self):
        assert "one of the features image, photo as tfds:NAME?image=FEATURE" in keys(
            ["photo", "image", "label"]
        )
        assert "one of the features breed, label as tfds:NAME?label=FEATURE" in keys(
            ["photo", "label", "breed"]
        )

    def test_the_spec_chooses(self):
        names = ["photo", "image", "breed", "label"]
        assert keys(names, image="image", label="breed") == ("image", "breed")
        assert keys(names, ("photo", "label"), label="breed") == ("photo", "breed")
        assert "Received: mask" in keys(["photo", "mask", "breed"], image="mask")
        assert "Received: gone" in keys(["photo", "breed"], label="gone")

    def test_several_labels_come_first_where_they_are_accepted(self):
        names = ["photo", "breed", "labels"]
        assert keys(names) == ("photo", "breed")
        assert keys(names, ("photo", "breed"), several_labels=True) == ("photo", "labels")
        assert keys(names, several_labels=True, label="breed") == ("photo", "breed")

    def test_no_label_is_refused_with_all_features(self):
        assert "Its features: id, photo." in keys(["photo", "id"])

    @pytest.mark.parametrize("query", ["photo", "images=a", "image=a&image=b", "image=a&", "&"])
    def test_other_queries_are_refused(self, query):
        with pytest.raises(SourceError, match=r"must be chosen as tfds:NAME\?image=FEATURE"):
            chosen_features(f"tfds:x?{query}", query)
        assert chosen_features("tfds:x", "") == {}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data set with two images, two labels and two features with boxes an example."""
    folder = tmp_path_factory.mktemp("tfds")
    features = F.FeaturesDict(
        {
            "mask": F.Image(shape=(40, 48, 3)),
            "photo": F.Image(shape=(40, 48, 3)),
            "breed": F.ClassLabel(num_classes=4),
            "species": F.ClassLabel(names=["cat", "dog"]),
            "head": F.BBoxFeature(),
            "body": F.BBoxFeature(),
        }
    )

    def rows():
        for i in range(4):
            images = {"mask": np.zeros((40, 48, 3), np.uint8)}
            images["photo"] = np.full((40, 48, 3), 99, np.uint8)
            box = np.array([0, 0, 1, 1], np.float32)
            yield images | {"breed": i, "species": i % 2, "head": box, "body": box}

    data = tf.data.Dataset.from_generator(rows, output_signature=features.get_tensor_spec())
    tfds.dataset_builders.store_as_tfds_dataset(
        name="pets",
        version="1.0.0",
        features=features,
        split_datasets={"train": data, "valid": data},
        config="x",
        data_dir=folder,
    )
    return folder


def test_a_data_set_with_several_images_and_labels(data_dir):
    with pytest.raises(SourceError, match=r"tfds:pets must choose one of the features mask, photo"):
        open_source("tfds:pets", data_dir)
    with pytest.raises(SourceError, match=r"one of the features breed, species"):
        open_source("tfds:pets?image=photo", data_dir)
    photos = open_source("tfds:pets/x?image=photo&label=species", data_dir)
    masks = open_source("tfds:pets?image=mask&label=breed", data_dir)
    assert photos.class_names == ("cat", "dog")
    assert list(photos.splits) == ["train", "val"]
    assert sorted(photos["val"].all_labels()) == [0, 0, 1, 1]
    assert sorted(masks["train"].all_labels()) == [0, 1, 2, 3]
    for source, value in ((photos, 99), (masks, 0)):
        split = source["train"]
        assert np.unique([decode(split.read(e)) for e in split.in_order()]) == [value]
    assert not set(photos["train"].identities()) & set(masks["train"].identities())
    with pytest.raises(SourceError, match=r"one feature with boxes\. Received: body, head"):
        boxed_split(photos, photos["train"])


def pixels_of_tfds(folder, dtype, value):
    """Decoded pixels of a data set of one grey image."""
    features = F.FeaturesDict(
        {"image": F.Image(shape=(40, 48, 1), dtype=dtype), "label": F.ClassLabel(num_classes=2)}
    )
    rows = {"image": np.full((1, 40, 48, 1), value, dtype), "label": [0]}
    data = tf.data.Dataset.from_tensor_slices(rows)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="grey",
        version="1.0.0",
        features=features,
        split_datasets={"train": data},
        config="x",
        data_dir=folder,
    )
    split = open_source("tfds:grey", folder)["train"]
    return np.unique([decode(split.read(e)) for e in split.in_order()]).tolist()


def test_pixels_of_8_and_16_bits_are_read_and_others_are_refused(tmp_path):
    assert pixels_of_tfds(tmp_path / "8", np.uint8, 77) == [77]
    assert pixels_of_tfds(tmp_path / "16", np.uint16, 0x4D3A) == [0x4D]
    with pytest.raises(SourceError, match="Received: feature 'image' of float32"):
        pixels_of_tfds(tmp_path / "float", np.float32, 0.5)
