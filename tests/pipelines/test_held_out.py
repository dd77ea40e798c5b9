"""Validation images that are held out of data without a `val` split."""

from __future__ import annotations

import shutil

import click
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import encode, write_folder
from tests.pipelines.test_folders import ids, write
from vgg_keras.commands.options import data_options
from vgg_keras.commands.training import recipe_options
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.held_out import hold_out
from vgg_keras.pipelines.splits import Source, Split
from vgg_keras.recipes import Recipe

NAMES = [f"{name}/{i}.jpg" for name, count in (("a", 10), ("b", 4), ("c", 2)) for i in range(count)]


def held_out(root, query="?val=0.2"):
    source = open_source(f"folder:{root}{query}")
    return {name: ids(split) for name, split in source.splits.items()}


class TestWhatIsHeldOut:
    @pytest.mark.parametrize("folder", ["", "train/"])
    def test_each_class_loses_the_fraction_and_at_least_one_image(self, tmp_path, folder):
        names = [folder + name for name in NAMES]
        write(tmp_path, *names)
        found = held_out(tmp_path)
        assert list(found) == ["train", "val"]
        assert sorted(found["train"] + found["val"]) == names
        assert found["train"] == sorted(found["train"])
        labels = open_source(f"folder:{tmp_path}?val=0.2")["val"].all_labels()
        assert np.bincount(labels).tolist() == [2, 1, 1]
        assert [len(v) for v in held_out(tmp_path, "?val=0.95").values()] == [3, 13]

    def test_the_choice_depends_on_the_names_only(self, tmp_path):
        write(tmp_path / "one", *NAMES)
        write(tmp_path / "two", *reversed(NAMES))
        assert held_out(tmp_path / "one") == held_out(tmp_path / "two")
        # Of every system and version: evaluation must find the images that training held out.
        assert held_out(tmp_path / "one")["val"] == ["a/1.jpg", "a/5.jpg", "b/2.jpg", "c/1.jpg"]

    def test_images_that_are_added_move_few(self, tmp_path):
        write(tmp_path, *(f"a/{i}.jpg" for i in range(100)))
        before = set(held_out(tmp_path, "?val=0.1")["val"])
        write(tmp_path, "a/new.jpg")
        assert len(before & set(held_out(tmp_path, "?val=0.1")["val"])) >= 9

    def test_the_streams_are_those_of_the_images_in_folders_of_their_own(self, tmp_path):
        write_folder(tmp_path / "data", 5)
        shutil.rmtree(tmp_path / "data/val")
        source = open_source(f"folder:{tmp_path}/data?val=0.4")
        for name, split in source.splits.items():
            for file in ids(split):
                moved = tmp_path / "moved" / file.replace("train", name, 1)
                moved.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(tmp_path / "data" / file, moved)
        moved = open_source(f"folder:{tmp_path}/moved")
        for name in ("train", "val"):
            some, others = (
                [(e["index"], e["label"], s.read(e)) for e in s.shuffled(np.int64(3))]
                for s in (source[name], moved[name])
            )
            assert some == others

    @pytest.mark.parametrize("kind", ["arrays", "dataset"])
    def test_splits_of_other_kinds_are_divided(self, kind):
        images = np.arange(20, dtype=np.uint8).repeat(48).reshape(20, 4, 4, 3)
        labels = np.arange(20) % 2
        whole = Split.from_arrays(images, labels)
        if kind == "dataset":
            elements = tf.data.Dataset.from_tensor_slices(([*map(encode, images)], labels))
            whole = Split.from_dataset(elements, 20)
        source = hold_out(Source.of(all=whole, test=whole), 0.2)
        assert list(source.splits) == ["train", "val", "test"]
        assert [source[name].name for name in source.splits] == list(source.splits)
        names = [ids(source[name]) for name in ("train", "val")]
        assert sorted(names[0] + names[1]) == sorted(ids(whole))
        for split, size in (("train", 16), ("val", 4)):
            found = [int(e["label"]) for e in source[split].in_order()]
            assert found == source[split].all_labels().tolist()
            assert np.bincount(found).tolist() == [size // 2] * 2


class TestCommands:
    @pytest.mark.parametrize(
        ("given", "data"),
        [
            (["folder:d", "--val-fraction", ".10"], "folder:d?val=0.1"),
            (["tfds:x?image=a", "--val-fraction", "0.25"], "tfds:x?image=a&val=0.25"),
            (["folder:d"], "folder:d"),
        ],
    )
    def test_val_fraction_is_a_part_of_the_data(self, given, data):
        for add in (data_options(), recipe_options(Recipe)):
            command = click.command()(add(lambda **options: options))
            options = command.main(["--data", *given], standalone_mode=False)
            assert options["data"] == data
            assert "val_fraction" not in options


class TestBoxes:
    @pytest.mark.parametrize("split", ["train", "all"])
    def test_boxes_are_those_of_the_split_that_was_divided(self, tmp_path, split):
        folder = "train/" if split == "train" else ""
        spec = write(tmp_path, *(f"{folder}a/{i}.jpg" for i in range(4)))
        rows = "".join(f"{split},a,{i}.jpg,{i},0,47,39\n" for i in range(4))
        (tmp_path / "boxes.csv").write_text("split,class,file,x_min,y_min,x_max,y_max\n" + rows)
        source = open_source(f"{spec}?val=0.5")
        for one in source.splits.values():
            boxes = boxed_split(source, one.without(one.names_of([0]))).boxes
            assert boxes[0][0, 0] * 48 == int(ids(one)[1][-5])


class TestRefused:
    @pytest.mark.parametrize("given", ["0", "1", "-0.1", "nan", "0.1&val=0.2"])
    def test_what_is_no_fraction(self, tmp_path, given):
        spec = f"{write(tmp_path, *NAMES)}?val={given}"
        with pytest.raises(SourceError, match="above 0 and below 1") as error:
            open_source(spec)
        assert repr(spec) in str(error.value)

    @pytest.mark.parametrize("given", ["10%", ""])
    def test_what_is_no_number_and_no_folder(self, tmp_path, given):
        with pytest.raises(SourceError, match=f"val must be a folder .*Received: '{given}'"):
            open_source(f"{write(tmp_path, *NAMES)}?val={given}")

    def test_data_with_a_val_split(self, folder):
        with pytest.raises(SourceError, match=r"without the split val.*train, val"):
            open_source(f"{folder}?val=0.1")

    def test_a_class_of_one_image(self, tmp_path):
        spec = write(tmp_path, *NAMES, "d/only.jpg")
        with pytest.raises(SourceError, match=r"two images or more.*d/only\.jpg"):
            open_source(f"{spec}?val=0.1")

    def test_a_folder_of_that_name_is_opened(self, tmp_path):
        write(tmp_path / "x?val=0.5", *NAMES)
        assert list(held_out(tmp_path, "/x?val=0.5")) == ["all"]
        assert list(held_out(tmp_path, "/x?val=0.5?val=0.5")) == ["train", "val"]
