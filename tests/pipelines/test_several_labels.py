"""VOC, VOC action and Caltech-256 in their published layouts."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.conftest import encode, photo
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.images import decode
from vgg_keras.pipelines.screening import find_bad_images
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.cropped import CroppedSplit
from vgg_keras.pipelines.sources.tfds import SeveralLabelsSplit
from vgg_keras.pipelines.sources.voc_action import ACTIONS

RNG = np.random.default_rng(0)


def jpeg(height=30, width=40):
    return encode(photo(RNG, height, width), quality=90)


def packed(folder, archive, name):
    """Packs a folder under a name into a tar archive; returns the path of the archive."""
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, name)
    return archive


class TestCaltech256:
    @pytest.fixture
    def folder(self, tmp_path):
        """Two classes and the clutter class, with stray files like those of the archive."""
        root = tmp_path / "256_ObjectCategories"
        for number, name, count in ((1, "ak47", 3), (56, "dog", 2), (257, "clutter", 2)):
            (root / f"{number:03d}.{name}").mkdir(parents=True)
            for i in range(1, count + 1):
                file = root / f"{number:03d}.{name}/{number:03d}_{i:04d}.jpg"
                file.write_bytes(jpeg())
        (root / "056.dog/greg/vision309").mkdir(parents=True)
        (root / "056.dog/greg/vision309/056_0001.jpg.old").write_text("not an image")
        (root / "001.ak47/RENAME2").write_text("mv a b")
        return root

    @pytest.mark.parametrize("kind", ["folder", "above", "archive"])
    def test_a_folder_or_an_archive_is_read(self, folder, tmp_path, kind):
        path = {"folder": folder, "above": tmp_path}.get(kind)
        path = path or packed(folder, tmp_path / "c.tar", folder.name)
        source = open_source(f"caltech256:{path}")
        assert source.class_names == ("001.ak47", "056.dog", "257.clutter")
        split = source["all"]
        assert split.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
        assert split.all_targets(3)[3].tolist() == [-1, 1, -1]
        assert split.ids_of([0])[0].endswith("001.ak47/001_0001.jpg")
        for example, path in zip(split.in_order(), split.paths, strict=True):
            inside = folder / "/".join(path.split("/")[-2:])
            assert split.read(example).numpy() == inside.read_bytes()
        assert find_bad_images(split) == []
        assert len(split.without(split.names_of([1]))) == 6

    def test_names_of_any_bytes_are_read_from_an_archive(self, tmp_path):
        root = tmp_path / "256_ObjectCategories"
        names = [os.fsdecode(b"001.ak\xe9/001_0001.jpg"), "002.naïve/002_0001.jpg"]
        for name in names:
            (root / name).parent.mkdir(parents=True)
            (root / name).write_bytes(jpeg())
        archive = packed(root, tmp_path / "c.tar", root.name)
        for _ in range(2):  # the second index is read from the cache
            source = open_source(f"caltech256:{archive}", tmp_path)
            assert source.class_names == (r"001.ak\xe9", "002.naïve")
            split = source["all"]
            found = [split.read(example).numpy() for example in split.in_order()]
            assert found == [(root / name).read_bytes() for name in names]
            assert split.names_of([0]) == [rf"{archive}/{root.name}/001.ak\xe9/001_0001.jpg"]

    def test_names_links_and_hidden_files(self, folder, tmp_path):
        """Any case of the suffix is read, and hard links are, packed and unpacked."""
        (folder / "001.ak47/001_0001.jpg").rename(folder / "001.ak47/001_0001.JPG")
        os.link(folder / "056.dog/056_0001.jpg", folder / "056.dog/056_0003.jpg")
        (folder / "056.dog/._056_0001.jpg").write_bytes(b"\0\5\x16\7")
        (folder / ".trash/056.dog").mkdir(parents=True)
        (folder / ".trash/056.dog/056_0009.jpg").write_bytes(jpeg())
        for path in (folder, packed(folder, tmp_path / "c.tar", folder.name)):
            split = open_source(f"caltech256:{path}")["all"]
            assert split.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
            assert find_bad_images(split) == []
            third, fifth = (split.read(list(split.in_order())[i]) for i in (3, 5))
            assert third == fifth

    def test_linked_class_folders_are_read(self, folder, tmp_path):
        (tmp_path / "links").mkdir()
        for name in ("001.ak47", "056.dog"):
            (tmp_path / "links" / name).symlink_to(folder / name)
        source = open_source(f"caltech256:{tmp_path / 'links'}")
        assert source["all"].labels.tolist() == [0, 0, 0, 1, 1]
        archive = packed(tmp_path / "links", tmp_path / "c.tar", folder.name)
        with pytest.raises(SourceError, match=r"symbolic links .*/001\.ak47.*Unpack it"):
            open_source(f"caltech256:{archive}")

    def test_a_sparse_file_is_refused_by_name(self, tmp_path):
        with tarfile.open(tmp_path / "c.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            member = tarfile.TarInfo("001.ak47/001_0001.jpg")
            member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
            tar.addfile(member, io.BytesIO(bytes(512)))
        with pytest.raises(SourceError, match=r"sparse files.*001_0001\.jpg"):
            open_source(f"caltech256:{tmp_path / 'c.tar'}")

    def test_other_files_are_counted_and_named(self, folder, caplog):
        caplog.set_level(logging.INFO, logger="vgg_keras")
        open_source(f"caltech256:{folder}")
        assert "2 other files ignored: 001.ak47/RENAME2, 056.dog/greg/vision309" in caplog.text

    def test_a_missing_image_is_named(self, folder):
        split = open_source(f"caltech256:{folder}")["all"]
        gone = folder / "056.dog/056_0002.jpg"
        gone.unlink()
        assert find_bad_images(split) == [str(gone)]

    def test_missing_and_invalid_archives_are_named(self, tmp_path):
        with pytest.raises(SourceError, match=r"no folder or archive .*256_ObjectCategories\.tar"):
            open_source(f"caltech256:{tmp_path / 'nowhere'}")
        with pytest.raises(SourceError, match=r"no images like 001\.ak47/001_0001\.jpg"):
            open_source(f"caltech256:{tmp_path}")
        with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
            tar.add(__file__)
        for content in ((tmp_path / "c.tar.gz").read_bytes(), b"nonsense"):
            (tmp_path / "c.tar").write_bytes(content)
            with pytest.raises(SourceError, match=r"not an uncompressed tar archive.*Unpack it"):
                open_source(f"caltech256:{tmp_path / 'c.tar'}")


def person(box, *actions):
    xmin, ymin, xmax, ymax = box
    values = "".join(f"<{a}>{int(a in actions)}</{a}>" for a in sorted(ACTIONS))
    return (
        f"<object><name>person</name><difficult>0</difficult><actions>{values}</actions><bndbox>"
        f"<xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymax>{ymax}</ymax><ymin>{ymin}</ymin></bndbox>"
        f"</object>"
    )


class TestVocAction:
    @pytest.fixture
    def folder(self, tmp_path):
        root = tmp_path / "VOCdevkit/VOC2012"
        for name in ("ImageSets/Action", "Annotations", "JPEGImages"):
            (root / name).mkdir(parents=True)
        objects = {
            "2010_000001": [
                "<object><name>horse</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
                "<ymax>9</ymax></bndbox></object>",
                person((5, 4, 14, 23), "ridinghorse"),
                person((1, 1, 40, 30), "other"),
            ],
            "2010_000002": [person((11, 1, 30, 30), "walking", "phoning")],
        }
        for name, found in objects.items():
            text = f"<annotation><filename>{name}.jpg</filename>{''.join(found)}</annotation>"
            (root / f"Annotations/{name}.xml").write_text(text)
            (root / f"JPEGImages/{name}.jpg").write_bytes(jpeg())
        sets = root / "ImageSets/Action"
        (sets / "train.txt").write_text("2010_000001  2\n2010_000001  3\n")
        (sets / "val.txt").write_text("2010_000002  1\n")
        (sets / "trainval.txt").write_text("2010_000001  2\n2010_000001  3\n2010_000002  1\n")
        (sets / "jumping_train.txt").write_text("2010_000001  2 -1\n2010_000001  3 -1\n")
        return root

    @pytest.mark.parametrize("kind", ["folder", "above", "archive"])
    def test_examples_are_people_with_actions_and_boxes(self, folder, tmp_path, kind):
        path = {"folder": folder, "above": tmp_path}.get(kind)
        path = path or packed(tmp_path / "VOCdevkit", tmp_path / "v.tar", "VOCdevkit")
        source = open_source(f"voc-action:{path}", several_labels=True)
        assert source.class_names == ACTIONS
        assert list(source.splits) == ["train", "val"]
        split = source["train"]
        assert [name.split("/")[-1] for name in split.ids_of(range(2))] == [
            "2010_000001.jpg#2",
            "2010_000001.jpg#3",
        ]
        there = [[ACTIONS[k] for k in np.flatnonzero(row == 1)] for row in split.all_targets(11)]
        assert there == [["ridinghorse"], ["other"]]
        assert np.flatnonzero(source["val"].all_targets(11)[0] == 1).tolist() == [
            ACTIONS.index("phoning"),
            ACTIONS.index("walking"),
        ]
        found = boxed_split(source, split)
        # Pixels 5 to 14 and 4 to 23 of 40 x 30, counted from 1.
        np.testing.assert_allclose(found.boxes[0], [[4 / 40, 3 / 30, 14 / 40, 23 / 30]], 1e-6)
        np.testing.assert_allclose(found.boxes[1], [[0, 0, 1, 1]], 1e-6)
        whole = decode((folder / "JPEGImages/2010_000001.jpg").read_bytes()).numpy()
        cropped = CroppedSplit("train", found.split, found.boxes)
        cut = [decode(cropped.read(example)).numpy() for example in cropped.in_order()]
        np.testing.assert_array_equal(cut[0], whole[3:23, 4:14])
        np.testing.assert_array_equal(cut[1], whole)
        assert len(set(cropped.names_of(range(2)))) == 2
        assert (cropped.all_targets(11) == split.all_targets(11)).all()
        assert len(cropped.without(cropped.names_of([0]))) == 1

    def test_several_labels_must_be_allowed(self, folder):
        with pytest.raises(SourceError, match="no single label an image"):
            open_source(f"voc-action:{folder}")

    def test_lists_and_names_of_other_systems_are_read(self, folder):
        file = folder / "ImageSets/Action/val.txt"
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
        (folder / "JPEGImages/2010_000002.jpg").rename(folder / "JPEGImages/2010_000002.JPG")
        val = open_source(f"voc-action:{folder}", several_labels=True)["val"]
        assert val.ids_of([0]) == ["JPEGImages/2010_000002.JPG#1"]
        assert find_bad_images(val) == []

    def test_people_of_a_test_set_have_boxes_and_no_actions(self, folder):
        sets = folder / "ImageSets/Action"
        for name in ("train", "val"):
            (sets / f"{name}.txt").unlink()
        (sets / "test.txt").write_text("2010_000002 1\n2010_000001 2\n")
        for file in (folder / "Annotations").iterdir():
            file.write_text(re.sub("<actions>.*?</actions>", "", file.read_text()))
        source = open_source(f"voc-action:{folder}", several_labels=True)
        assert list(source.splits) == ["test"]
        names = ["JPEGImages/2010_000002.jpg#1", "JPEGImages/2010_000001.jpg#2"]
        assert source["test"].ids_of(range(2)) == names
        assert (source["test"].all_targets(11) == -1).all()
        assert len(boxed_split(source, source["test"]).boxes) == 2

    def test_a_folder_without_lists_is_refused(self, folder):
        shutil.rmtree(folder / "ImageSets")
        with pytest.raises(SourceError, match=r"one folder with .* Received: none\..*VOCtrainval"):
            open_source(f"voc-action:{folder}", several_labels=True)

    def test_two_years_in_a_folder_are_refused(self, folder):
        shutil.copytree(folder, folder.with_name("VOC2011"))
        with pytest.raises(SourceError, match=r"must hold one .*Received: VOC2011/, VOC2012/\."):
            open_source(f"voc-action:{folder.parent}", several_labels=True)

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("ImageSets/Action/val.txt", "2010_000002\n", r"val\.txt must have an image name"),
            ("ImageSets/Action/val.txt", "2010_000002 9\n", "names object 9 of 2010_000002"),
            ("ImageSets/Action/val.txt", "2010_000003 1\n", r"no .*Annotations/2010_000003\.xml"),
            ("Annotations/2010_000002.xml", "<annotation>", r"2010_000002\.xml cannot be read"),
        ],
    )
    def test_broken_files_are_named(self, folder, file, content, message):
        (folder / file).write_text(content)
        with pytest.raises(SourceError, match=message):
            open_source(f"voc-action:{folder}", several_labels=True)


LABELS = ("cat", "dog", "sheep")
# For each image: its labels, and the labels of its objects that are not difficult, as in `voc`.
EXAMPLES = {
    "train": [((0, 1), (0, 1)), ((1,), ()), ((2,), (2,))],
    "validation": [((0, 2), (2,)), ((), ())],
    "test": [((1,), (1,))],
}


class Voc(tfds.core.GeneratorBasedBuilder):
    """A TFDS data set with the features of `voc`, other labels and fewer images."""

    VERSION = tfds.core.Version("5.0.0")

    def _info(self):
        labels = tfds.features.ClassLabel(names=LABELS)
        features = {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(
                {
                    "label": labels,
                    "bbox": tfds.features.BBoxFeature(),
                    "pose": tfds.features.ClassLabel(names=["frontal", "rear"]),
                    "is_truncated": np.bool_,
                    "is_difficult": np.bool_,
                }
            ),
            "labels": tfds.features.Sequence(labels),
            "labels_no_difficult": tfds.features.Sequence(labels),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in EXAMPLES}

    def _generate_examples(self, name):
        for i, (there, clear) in enumerate(EXAMPLES[name]):
            objects = [
                {
                    "label": k,
                    "bbox": tfds.features.BBox(0.0, 0.0, 0.5, 1.0),
                    "pose": "frontal",
                    "is_truncated": False,
                    "is_difficult": k not in clear,
                }
                for k in there
            ]
            yield (
                i,
                {
                    "image": np.frombuffer(photo(RNG, 30, 40).tobytes(), np.uint8).reshape(
                        30, 40, 3
                    ),
                    "image/filename": f"{name}{i}.jpg",
                    "objects": objects,
                    "labels": there,
                    "labels_no_difficult": clear,
                },
            )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voc")
    Voc(data_dir=folder).download_and_prepare()
    return folder


class TestTfdsVoc:
    def test_a_split_has_targets_and_no_single_label(self, data_dir):
        source = open_source("tfds:voc:5.0.0", data_dir, several_labels=True)
        assert source.class_names == LABELS
        assert list(source.splits) == ["train", "val", "test"]
        for name, tfds_name in (("train", "train"), ("val", "validation"), ("test", "test")):
            split = source[name]
            assert isinstance(split, SeveralLabelsSplit)
            expected = {
                tuple(1 if k in clear else 0 if k in there else -1 for k in range(3))
                for there, clear in EXAMPLES[tfds_name]
            }
            assert set(map(tuple, split.all_targets(3).tolist())) == expected
            assert (split.all_labels() == -1).all()
        train = source["train"]
        names = train.names_of(range(3))
        assert len(set(names)) == 3
        fewer = train.without(names[:1])
        np.testing.assert_array_equal(fewer.all_targets(3), train.all_targets(3)[1:])
        for example in train.in_order():
            assert decode(train.read(example)).shape == (30, 40, 3)
            assert example["label"] == tf.constant(-1, tf.int64)

    def test_voc_is_refused_where_one_label_is_needed(self, data_dir):
        with pytest.raises(SourceError, match="no single label an image"):
            open_source("tfds:voc:5.0.0", data_dir)

    def test_boxes_of_images_with_several_labels_are_refused(self, data_dir):
        source = open_source("tfds:voc:5.0.0", data_dir, several_labels=True)
        with pytest.raises(SourceError, match="several labels an image, so no box"):
            boxed_split(source, source["train"])
