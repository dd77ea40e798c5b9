from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import CLASSES, write_folder
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.screening import find_bad_images
from vgg_keras.pipelines.sources import open_source


def test_a_folder_with_two_splits_is_read(folder):
    source = open_source(folder)
    assert source.class_names == CLASSES
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 24, "val": 12}
    examples = list(source["train"].in_order().as_numpy_iterator())
    assert [e["index"] for e in examples] == list(range(24))
    assert [e["label"] for e in examples] == [0] * 8 + [1] * 8 + [2] * 8


def test_class_folders_alone_are_one_split(tmp_path, folder):
    source = open_source(f"folder:{tmp_path / 'data' / 'val'}")
    assert {name: len(split) for name, split in source.splits.items()} == {"all": 12}
    assert source.class_names == CLASSES


def test_read_returns_the_bytes_of_the_file(tmp_path, folder):
    split = open_source(folder)["train"]
    first = next(iter(split.in_order().map(split.read)))
    assert first.numpy() == (tmp_path / "data/train/blue/000.jpg").read_bytes()
    assert split.names_of([0]) == [str(tmp_path / "data/train/blue/000.jpg")]
    assert split.all_labels().tolist() == [int(e["label"]) for e in split.in_order()]


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_shuffled_is_a_permutation_that_depends_on_the_seed(folder, seed):
    split = open_source(folder)["train"]

    def order(seed):
        shuffled = split.shuffled(tf.constant(seed, tf.int64))
        return [int(e["index"]) for e in shuffled.as_numpy_iterator()]

    assert sorted(order(seed)) == list(range(24))
    assert order(seed) == order(seed)
    assert order(seed) != order(seed + 1)
    assert order(seed) != list(range(24))


def test_every_image_is_equally_likely_to_come_first(tmp_path):
    """Over many seeds, each image comes first about equally often."""
    split = open_source(write_folder(tmp_path, train=4, val=1))["train"]
    orders = tf.data.Dataset.range(3000).flat_map(lambda s: split.shuffled(s).take(1))
    firsts = np.bincount([int(e["index"]) for e in orders.as_numpy_iterator()], minlength=12)
    assert firsts.min() > 180  # 250 expected, sd 15
    assert firsts.max() < 320


def test_without_removes_images_by_name(folder):
    split = open_source(folder)["train"]
    fewer = split.without(split.names_of([0, 5]))
    assert len(fewer) == 22
    assert [int(e["index"]) for e in fewer.in_order().as_numpy_iterator()] == list(range(22))
    assert fewer.names_of([0]) == split.names_of([1])


def test_formats_are_recognised_by_content_and_not_by_name(tmp_path, folder):
    from vgg_keras.pipelines.screening import find_bad_images

    first = tmp_path / "data/train/blue/000.jpg"
    first.rename(first.with_name("no suffix"))
    (first.parent / "notes.txt").write_text("not an image")
    (first.parent / ".hidden").write_text("ignored")
    split = open_source(folder)["train"]
    assert len(split) == 25
    assert find_bad_images(split) == [str(first.parent / "notes.txt")]


class TestErrors:
    def test_an_unknown_kind_is_refused(self):
        with pytest.raises(SourceError, match=r"shapes, folder:DIR, tfds.*Received: 'zip:x'"):
            open_source("zip:x")

    @pytest.mark.parametrize("query", ["", "?val=0.1"])
    def test_a_folder_without_its_kind_is_understood(self, tmp_path, query):
        with pytest.raises(SourceError, match=re.escape(f"may be folder:{tmp_path}{query}")):
            open_source(f"{tmp_path}{query}")

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(SourceError, match=r"no folder .*/nowhere"):
            open_source(f"folder:{tmp_path / 'nowhere'}")

    def test_an_empty_folder_is_named(self, tmp_path):
        with pytest.raises(SourceError, match="holds no class folders"):
            open_source(f"folder:{tmp_path}")

    def test_an_empty_class_folder_is_named(self, tmp_path, folder):
        for file in (tmp_path / "data/train/green").iterdir():
            file.unlink()
        with pytest.raises(SourceError, match="train/green holds no images"):
            open_source(folder)

    def test_a_broken_link_is_an_unreadable_image(self, tmp_path, folder):
        link = tmp_path / "data/train/green/link.jpg"
        link.symlink_to(tmp_path / "gone.jpg")
        assert find_bad_images(open_source(folder)["train"]) == [str(link)]

    def test_splits_with_different_classes_are_refused(self, tmp_path, folder):
        shutil.move(tmp_path / "data/val/green", tmp_path / "data/val/grün")
        with pytest.raises(SourceError, match="only in train: 'green'; only in val: 'grün'"):
            open_source(folder)

    def test_a_missing_split_is_named(self, tmp_path, folder):
        shutil.rmtree(tmp_path / "data/val")
        with pytest.raises(SourceError, match=r"no split 'val'\. Its splits: train"):
            open_source(folder)["val"]

    def test_an_unknown_tfds_name_is_refused(self, tmp_path):
        with pytest.raises(SourceError, match="TFDS has no data set 'no_such_set'"):
            open_source("tfds:no_such_set", tmp_path)

    def test_a_manual_download_is_explained(self, tmp_path):
        with pytest.raises(SourceError, match=r"(?s)Download the files.*manual.*image-net\.org"):
            open_source("tfds:imagenet2012", tmp_path)

    def test_a_tfds_set_without_one_label_per_image_is_refused(self, tmp_path):
        with pytest.raises(SourceError, match="no single label an image"):
            open_source("tfds:coco/2017", tmp_path)


class TestShapes:
    def test_the_shapes_have_enough_classes_and_images(self, shapes_dir):
        from vgg_keras.pipelines.sources.shapes import IMAGES

        source = open_source("shapes", shapes_dir)
        assert len(source.class_names) >= 8
        assert sum(IMAGES.values()) >= 1500
        assert list(source.splits) == list(IMAGES) == ["train", "val"]

    def test_the_same_index_draws_the_same_image(self):
        from vgg_keras.pipelines.sources.shapes import draw_example

        assert draw_example("train", 7, "star") == draw_example("train", 7, "star")
        assert draw_example("train", 7, "star") != draw_example("val", 7, "star")
        assert draw_example("train", 7, "star") != draw_example("train", 8, "star")

    def test_sizes_and_aspects_vary_and_boxes_are_inside(self):
        from vgg_keras.pipelines.sources.shapes import CLASSES as SHAPES
        from vgg_keras.pipelines.sources.shapes import draw_example

        sizes = set()
        for index in range(40):
            jpeg, box = draw_example("train", index, SHAPES[index % len(SHAPES)])
            left, top, right, bottom = box
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            sizes.add(tuple(tf.io.extract_jpeg_shape(jpeg).numpy()[:2]))
        assert len(sizes) > 30

    def test_a_tfds_split_is_read_in_order_and_shuffled(self, shapes_dir):
        split = open_source("shapes", shapes_dir)["val"]
        examples = list(split.in_order().map(lambda e: e | {"image": split.read(e)}))
        assert [int(e["index"]) for e in examples] == list(range(len(split)))
        assert tf.io.is_jpeg(examples[0]["image"])
        shuffled = [int(e["index"]) for e in split.shuffled(tf.constant(3, tf.int64))]
        assert sorted(shuffled) == list(range(len(split)))
        assert shuffled == [int(e["index"]) for e in split.shuffled(tf.constant(3, tf.int64))]
        assert shuffled != [int(e["index"]) for e in split.shuffled(tf.constant(4, tf.int64))]

    def test_the_order_of_a_tfds_split_depends_on_the_seed_alone(self, shapes_dir):
        """TensorFlow's global seed does not matter, also in a graph and for seeds above 31 bits."""
        split = open_source("shapes", shapes_dir)["val"]

        def orders(global_seed):
            tf.random.set_seed(global_seed)
            seeds = tf.data.Dataset.from_tensor_slices(
                tf.constant([0, 2, 2**32, 2**31 - 1], tf.int64)
            )
            shuffled = seeds.flat_map(lambda s: split.shuffled(s).map(lambda e: e["index"]))
            return np.reshape(list(shuffled.as_numpy_iterator()), (4, -1))

        first, second = orders(0), orders(7)
        np.testing.assert_array_equal(first, second)
        assert len({tuple(order) for order in first}) == 4

    def test_without_removes_images_of_a_tfds_split(self, shapes_dir):
        split = open_source("shapes", shapes_dir)["val"]
        names = split.names_of([0, 2])
        fewer = split.without(names)
        assert len(fewer) == len(split) - 2
        assert fewer.names_of([0, 1]) == split.names_of([1, 3])
        assert fewer.all_labels().tolist() == [int(e["label"]) for e in fewer.in_order()]
        assert [int(e["index"]) for e in fewer.in_order()] == list(range(len(fewer)))
        assert len(fewer.without(fewer.names_of([0]))) == len(split) - 3
