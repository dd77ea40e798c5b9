"""Class folders as people have them: nested, linked, badly named, with splits of other names."""

from __future__ import annotations

import logging
import os
import unicodedata

import numpy as np
import pytest

from tests.conftest import encode, write_folder
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.screening import find_bad_images, without_bad_images
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import Split

JPEG = encode(np.full((40, 48, 3), 99, np.uint8))


def write(root, *names):
    """Writes an image under each name, which may be bytes; returns the data spec."""
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(JPEG)
    return f"folder:{root}"


def ids(split):
    return split.ids_of(range(len(split)))


class TestWhatIsRead:
    def test_images_in_folders_of_a_class_folder_are_of_the_class(self, tmp_path):
        names = ["cat/1.jpg", "cat/a/2.jpg", "cat/a/b/3.jpg", "cat-x/4.jpg", "cat-x/.b/5.jpg"]
        source = open_source(write(tmp_path, *names))
        assert source.class_names == ("cat", "cat-x")
        assert ids(source["all"]) == names[:4]
        assert source["all"].labels.tolist() == [0, 0, 0, 1]

    def test_a_class_folder_that_holds_folders_only_is_refused(self, tmp_path):
        spec = write(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg", "images/cat/1.jpg")
        assert ids(open_source(spec)["train"]) == ["train/cat/1.jpg"]
        for split in ("train", "test"):
            (tmp_path / split).rename(tmp_path / f"my-{split}")
        with pytest.raises(
            SourceError, match=r"images holds only folders: cat\. .*\?train=FOLDER&val=FOLDER"
        ):
            open_source(spec)

    def test_the_order_is_that_of_classes_and_then_of_names(self, tmp_path):
        names = ["a/10.jpg", "a/9.jpg", "a/B.jpg", "a/a.jpg", "a b/1.jpg", "a-b/1.jpg", "é/1.jpg"]
        source = open_source(write(tmp_path, *names))
        assert source.class_names == ("a", "a b", "a-b", "é")
        assert ids(source["all"]) == names

    def test_linked_class_folders_are_read(self, tmp_path):
        write(tmp_path / "disk", "cat/1.jpg", "dog/1.jpg")
        for split in ("train", "val"):
            (tmp_path / f"data/{split}").mkdir(parents=True)
            for name in ("cat", "dog"):
                (tmp_path / f"data/{split}/{name}").symlink_to(tmp_path / "disk" / name)
        source = open_source(f"folder:{tmp_path / 'data'}")
        assert ids(source["val"]) == ["val/cat/1.jpg", "val/dog/1.jpg"]
        assert find_bad_images(source["val"]) == []

    def test_a_fifo_and_a_device_are_skipped_by_name(self, tmp_path, caplog):
        spec = write(tmp_path, "cat/1.jpg")
        os.mkfifo(tmp_path / "cat/2.jpg")
        (tmp_path / "cat/3.jpg").symlink_to("/dev/zero")
        split = open_source(spec)["all"]
        assert ids(split) == ["cat/1.jpg"]
        assert "cat/2.jpg" in caplog.text
        assert "cat/3.jpg" in caplog.text
        with pytest.raises(SourceError, match=r"regular files\. Received: .*cat/2\.jpg"):
            Split.from_paths([tmp_path / "cat/1.jpg", tmp_path / "cat/2.jpg"])

    def test_counts_and_ignored_files_are_logged(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, logger="vgg_keras")
        spec = write_folder(tmp_path)
        write(tmp_path, "test/cat/1.jpg", "train/n01.tar", "boxes.csv")
        open_source(spec)
        assert f"{spec}: 3 classes; images: 24 in train, 12 in val" in caplog.text
        assert f"{tmp_path}: ignored beside the splits: test" in caplog.text
        assert f"{tmp_path}/train: ignored beside the class folders: n01.tar" in caplog.text

    def test_archives_that_are_not_unpacked_are_named(self, tmp_path):
        spec = write(tmp_path, "train/n01.tar", "train/n02.tar", "val/n01/1.jpg")
        with pytest.raises(
            SourceError, match=r"train holds no class folders.*holds: n01\.tar, n02"
        ):
            open_source(spec)


class TestSplits:
    @pytest.mark.parametrize("name", ["train", "val", "valid", "test"])
    def test_a_class_may_be_named_like_a_split(self, tmp_path, name):
        source = open_source(write(tmp_path, "bus/1.jpg", f"{name}/1.jpg", "tv/1.jpg"))
        assert source.class_names == tuple(sorted(["bus", "tv", name]))
        assert list(source.splits) == ["all"]

    def test_a_class_of_the_splits_may_be_named_train(self, tmp_path):
        names = [f"{split}/{name}/1.jpg" for split in ("train", "val") for name in ("bus", "train")]
        source = open_source(write(tmp_path, *names))
        assert source.class_names == ("bus", "train")
        assert ids(source["train"]) == names[:2]

    @pytest.mark.parametrize("name", ["validation", "valid"])
    def test_other_names_of_val_are_accepted(self, tmp_path, name):
        spec = write(tmp_path, "train/cat/1.jpg", f"{name}/cat/2.jpg", "test/cat/3.jpg")
        (tmp_path / "boxes.csv").write_text(
            f"split,class,file,x_min,y_min,x_max,y_max\n{name},cat,2.jpg,0,0,47,39\n"
        )
        source = open_source(spec)
        assert list(source.splits) == ["train", "val"]
        assert ids(source["val"]) == [f"{name}/cat/2.jpg"]
        assert boxed_split(source, source["val"]).boxes[0].tolist() == [[0, 0, 1, 1]]

    def test_val_comes_before_its_other_names(self, tmp_path):
        spec = write(tmp_path, "train/cat/1.jpg", "valid/cat/2.jpg", "val/cat/3.jpg")
        assert ids(open_source(spec)["val"]) == ["val/cat/3.jpg"]

    def test_the_folders_of_splits_can_be_chosen(self, tmp_path):
        names = ["Training/a/1.jpg", "Training/a/2.jpg", "test/a/3.jpg", "val/a/4.jpg"]
        spec = write(tmp_path, *names)
        for query, train, val in (
            ("train=Training&val=test", names[:2], names[2:3]),
            ("train=Training", names[:2], names[3:]),
        ):
            splits = open_source(f"{spec}?{query}").splits
            assert {name: ids(split) for name, split in splits.items()} == {
                "train": train,
                "val": val,
            }
        (tmp_path / "val").rename(tmp_path / "other")
        splits = open_source(f"{spec}?train=Training&val=0.5").splits
        assert [len(split) for split in splits.values()] == [1, 1]

    @pytest.mark.parametrize("query", ["test=test", "train", "val=test&val=test", "train=a"])
    def test_folders_that_cannot_be_chosen_are_named(self, tmp_path, query):
        spec = f"{write(tmp_path, 'train/cat/1.jpg', 'test/cat/1.jpg')}?{query}"
        with pytest.raises(SourceError, match=r"chosen as folder:DIR\?train|must be a folder in"):
            open_source(spec)

    def test_the_message_about_a_missing_split_names_folders_that_may_be_one(self, tmp_path):
        source = open_source(write(tmp_path, "train/cat/1.jpg", "Testing/cat/2.jpg"))
        for split in ("val", "test"):
            with pytest.raises(SourceError, match=r"To hold.*also holds Testing: .*\?val=NAME"):
                source[split]

    def test_classes_are_no_splits_that_may_be_missing(self, tmp_path):
        source = open_source(write(tmp_path, "cat/1.jpg", "dog/1.jpg"))
        with pytest.raises(SourceError, match=r"Its splits: all\. .*\?val=0\.1\"\.$"):
            source["train"]

    @pytest.mark.parametrize(
        ("names", "found"),
        [
            (("cat/1.jpg", "build/lib/a.py"), "but build holds only folders: lib"),
            (("cat/1.jpg", "x.egg-info/.a"), "but x.egg-info holds no images"),
            (("photos/cat/1.jpg", "photos/dog/1.jpg"), "but photos holds only folders: cat, dog"),
        ],
    )
    def test_a_folder_that_is_no_class_is_named_and_why_it_would_be_one(
        self, tmp_path, names, found
    ):
        spec = write(tmp_path, *names)
        with pytest.raises(SourceError) as caught:
            open_source(spec)
        root = spec.removeprefix("folder:")
        start = f"{root} holds no folders train and val, so each folder in it is a class, {found}."
        assert str(caught.value).startswith(start)

    def test_what_is_beside_the_splits_is_ignored(self, tmp_path):
        names = ("train/cat/1.jpg", "val/cat/1.jpg")
        beside = ("build/lib/a.py", ".git/x/y", ".venv/bin/a", "a.egg-info/b", "setup.cfg")
        source = open_source(write(tmp_path, *names, *beside))
        assert source.class_names == ("cat",)
        assert list(source.splits) == ["train", "val"]


class TestNames:
    def test_names_that_are_not_utf8_are_read(self, tmp_path):
        names = [
            s + c + f
            for s in (b"train/", b"val/")
            for c in (b"a/", b"\xe9/")
            for f in (b"\xe9.jpg", b"\xff")
        ]
        source = open_source(write(tmp_path, *names))
        (tmp_path / "train/a" / os.fsdecode(b"bad\xe9.jpg")).write_bytes(b"not an image")
        split = open_source(f"folder:{tmp_path}")["train"]
        assert source.class_names == ("a", "\\xe9")
        assert ids(split)[0] == "train/a/bad\\xe9.jpg"
        fewer, bad = without_bad_images(split)
        assert bad == [f"{tmp_path}/train/a/bad\\xe9.jpg"]
        assert ids(fewer) == ids(source["train"])
        images = [image.numpy() for image in fewer.in_order().map(fewer.read)]
        assert images == [JPEG] * 4
        assert (
            find_bad_images(
                Split.from_paths([os.fsdecode(os.path.join(os.fsencode(tmp_path), names[1]))])
            )
            == []
        )

    @pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
    def test_one_name_in_two_unicode_forms_is_one_class(self, tmp_path, forms):
        train, val = (unicodedata.normalize(form, "grün") for form in forms)
        source = open_source(write(tmp_path, f"train/{train}/1.jpg", f"val/{val}/2.jpg"))
        assert source.class_names == ("grün",)
        assert find_bad_images(source["val"]) == []

    def test_two_folders_of_one_name_in_a_split_are_refused(self, tmp_path):
        names = [f"{unicodedata.normalize(form, 'grün')}/1.jpg" for form in ("NFC", "NFD")]
        with pytest.raises(SourceError, match=r"two .*Unicode forms.*'gru\\u0308n' and 'gr\\xfcn'"):
            open_source(write(tmp_path, *names))

    def test_names_that_look_alike_are_shown_with_their_difference(self, tmp_path):
        spec = write(tmp_path, "train/cat/1.jpg", "val/cat\u200b/1.jpg")
        with pytest.raises(SourceError, match=r"only in val: 'cat\\u200b'"):
            open_source(spec)
