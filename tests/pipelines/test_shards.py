"""Data sets in files that hold many images: TFRecord, Parquet, WebDataset."""

from __future__ import annotations

import copy
import os
import pickle
import resource
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tests.conftest import CLASSES, encode, photo, write_folder
from tests.pipelines.containers import (
    KINDS,
    example,
    images_of,
    write_parquet,
    write_shards,
    write_tar,
    write_tfrecord,
)
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.errors import SourceError, WriteError
from vgg_keras.pipelines.screening import check_labels, find_bad_images
from vgg_keras.pipelines.sources import image_index, open_source, shards
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pipelines.training import training_stream

OPTIONS = {"crop_size": 32, "train_scale": (32, 48), "batch_size": 8, "statistics": ILSVRC}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Class folders in `data`, and the same images in shards of each kind."""
    root = tmp_path_factory.mktemp("shards")
    write_folder(root / "data", train=4, val=2)
    for kind in KINDS:
        write_shards(kind, root / "data", root / kind)
    return root


@pytest.fixture(scope="module")
def folder(root):
    return open_source(f"folder:{root / 'data'}")


@pytest.fixture(scope="module")
def expected(folder):
    return stream_of(folder)


def spec_of(kind, path):
    return f"{kind.removeprefix('plain-')}:{path}"


def stream_of(source, batches=4, **options):
    stream = training_stream(source["train"], **OPTIONS, **options).take(batches)
    return [(images.numpy(), labels.numpy()) for images, labels in stream]


def assert_same(stream, expected):
    for batch, other in zip(stream, expected, strict=True):
        for array, another in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, another)


@pytest.mark.parametrize("kind", KINDS)
class TestSameAsFolders:
    def test_images_labels_and_streams_are_those_of_the_folder(
        self, kind, root, folder, expected, tmp_path
    ):
        source = open_source(spec_of(kind, root / kind), tmp_path)
        assert source.class_names == CLASSES
        assert {name: len(split) for name, split in source.splits.items()} == {
            "train": 12,
            "val": 6,
        }
        val = source["val"]
        np.testing.assert_array_equal(val.all_labels(), folder["val"].all_labels())
        for e, (_, _, content) in zip(val.in_order(), images_of(root / "data", "val"), strict=True):
            assert val.read(e).numpy() == content
        assert_same(stream_of(source), expected)
        assert_same(stream_of(source, 1, first_epoch=2), stream_of(folder, 1, first_epoch=2))

    def test_the_order_of_the_images_in_the_files_does_not_change_the_stream(
        self, kind, root, expected, tmp_path
    ):
        spec = write_shards(kind, root / "data", tmp_path / "shards", seed=5, count=3)
        assert_same(stream_of(open_source(spec, tmp_path)), expected)

    def test_names_identities_and_without(self, kind, root, tmp_path):
        split = open_source(spec_of(kind, root / kind), tmp_path)["train"]
        names = split.names_of(range(12))
        assert len(set(names)) == len(set(split.identities())) == 12
        assert names[3].endswith("/blue_003.jpg")
        assert names[3].startswith(f"{root}/{kind}/train-0000")
        assert split.ids_of([3]) == [os.path.relpath(names[3], root / kind)]
        assert split.without([]) is split
        fewer = split.without(np.array([names[3], names[7]]))
        assert fewer.names_of(range(10)) == [n for n in names if n not in (names[3], names[7])]
        assert [int(e["index"]) for e in fewer.in_order()] == list(range(10))
        assert fewer.fingerprint() != split.fingerprint()
        assert find_bad_images(fewer) == []
        for same in (copy.deepcopy(fewer), pickle.loads(pickle.dumps(fewer))):
            assert same.fingerprint() == fewer.fingerprint()

    def test_indexes_are_made_once_and_again_for_a_changed_file(
        self, kind, root, tmp_path, monkeypatch
    ):
        spec = write_shards(kind, root / "data", tmp_path / "shards")
        before = open_source(spec, tmp_path)["train"].fingerprint()
        scanned = []
        real = shards._KINDS[spec.partition(":")[0]]

        def scan(path, *rest):
            scanned.append(os.path.basename(path))
            return real.scan(path, *rest)

        monkeypatch.setitem(shards._KINDS, spec.partition(":")[0], real._replace(scan=scan))
        assert open_source(spec, tmp_path)["train"].fingerprint() == before
        assert not scanned
        changed = sorted((tmp_path / "shards").glob("train-*"))[1]
        os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 1))
        assert open_source(spec, tmp_path)["train"].fingerprint() != before
        assert scanned == [changed.name]
        for file in (tmp_path / "image_indexes").glob("*.arrow"):
            file.write_bytes(file.read_bytes()[:-40])
        open_source(spec, tmp_path)
        assert len(scanned) == 5

    def test_a_file_that_is_cut_short_is_named(self, kind, root, tmp_path):
        spec = write_shards(kind, root / "data", tmp_path / "shards")
        file = sorted((tmp_path / "shards").glob("train-*"))[1]
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(SourceError, match=f"{file} cannot be read as a "):
            open_source(spec, tmp_path)
        file.write_bytes(b"")
        with pytest.raises(SourceError, match=f"{file} "):
            open_source(spec, tmp_path)

    def test_a_file_that_changes_while_it_is_read_is_noticed(self, kind, root, tmp_path):
        spec = write_shards(kind, root / "data", tmp_path / "shards")
        split = open_source(spec, tmp_path)["train"]
        for file in [*(tmp_path / "shards").iterdir(), *tmp_path.glob("image_indexes/*.images")]:
            os.utime(file, ns=(0, 1))
        with pytest.raises(tf.errors.InvalidArgumentError, match="has changed since"):
            next(iter(training_stream(split, **OPTIONS)))

    def test_a_cache_that_cannot_be_written(self, kind, root, tmp_path, caplog):
        (tmp_path / "image_indexes").write_text("not a folder")
        spec = spec_of(kind, root / kind)
        if kind == "parquet":  # compressed
            with pytest.raises(WriteError, match=r"train-00000.* could not be written.*data_dir"):
                open_source(spec, tmp_path)
            return
        assert len(open_source(spec, tmp_path)["train"]) == 12
        assert "cannot be cached" in caplog.text


class TestSplits:
    @pytest.mark.parametrize(
        ("files", "location", "splits"),
        [
            (["train-00000-of-00001", "validation-00000-of-00001"], "", {"train": 1, "val": 1}),
            (["imagenet-train-0.tfrecord", "imagenet-VAL-0.tfrecord"], "", {"train": 1, "val": 1}),
            (["train/train-0.tfrec", "validation/a.record"], "", {"train": 1, "val": 1}),
            (["a.tfrecord", "b.tfrecords", "notes.txt"], "", {"all": 2}),
            (["train-0-of-1", "validation-0-of-1"], "train-*", {"train": 1}),
            (["train/0.x", "train/1.x"], "train/*.x", {"all": 2}),
            (["a-07.x", "a-08.x", "a-09.x", "a-10.x"], "a-{08..10}.x", {"all": 3}),
            (["a[1].x", "a1.x"], "a[1].x", {"all": 1}),
            (["a[1]/train-1.x", "a[1]/train-2.x", "a1/train-3.x"], "a[1]/train-*.x", {"train": 2}),
            (["train_1.tfrecord", "test_1.tfrecord", "b.tfrecord"], "", {"train": 1, "test": 1}),
        ],
    )
    def test_names_of_files_tell_the_splits(self, files, location, splits, tmp_path):
        for i, name in enumerate(files):
            write_tfrecord(tmp_path / "in train" / name, [example(b"x", 1, f"{i}.jpg", "n1")])
        source = open_source(f"tfrecord:{tmp_path / 'in train' / location}", tmp_path)
        assert {name: len(split) for name, split in source.splits.items()} == splits

    def test_missing_files_are_named(self, tmp_path, caplog):
        with pytest.raises(SourceError, match=r"tfrecord:\S+ names no file"):
            open_source(f"tfrecord:{tmp_path}/train-*", tmp_path)
        write_tfrecord(tmp_path / "train-00000-of-00004", [example(b"x")])
        open_source(f"tfrecord:{tmp_path}", tmp_path)
        assert f"only 1 of 00004 files {tmp_path}/train-*" in caplog.text
        write_tfrecord(tmp_path / "n/0-00000-of-00002", [example(b"x")])
        open_source(f"tfrecord:{tmp_path}/n", tmp_path)
        assert f"all: only 1 of 00002 files {tmp_path}/n/0-*" in caplog.text
        write_tfrecord(tmp_path / "a1.x", [example(b"x")])
        with pytest.raises(SourceError, match=rf"missing: {tmp_path}/a2\.x$"):
            open_source(f"tfrecord:{tmp_path}/a{{1..2}}.x", tmp_path)
        with pytest.raises(SourceError, match=r"Received: \{0\.\.999999999\}"):
            open_source(f"tfrecord:{tmp_path}/a{{0..999999999}}.x", tmp_path)

    @pytest.mark.parametrize("name", ["train_val-0.tfrecord", "validation-train.tfrecord"])
    def test_a_name_with_two_splits_is_refused(self, name, tmp_path):
        write_tfrecord(tmp_path / "train" / name, [example(b"x")])
        with pytest.raises(
            SourceError, match=f"at most one of the words .*Received: .*/train/{name}"
        ):
            open_source(f"tfrecord:{tmp_path}", tmp_path)


class TestLabels:
    def opened(self, tmp_path, labels, synsets=None, val=()):
        synsets = synsets or [""] * len(labels)
        records = [
            example(b"x", label, f"{i}.jpg", synset)
            for i, (label, synset) in enumerate(zip(labels, synsets, strict=True))
        ]
        write_tfrecord(tmp_path / "train-0-of-1", records)
        if val:
            write_tfrecord(tmp_path / "val-0-of-1", [example(b"x", l, f"{l}.jpg") for l in val])
        return open_source(f"tfrecord:{tmp_path}", tmp_path)

    @pytest.mark.parametrize("first", [0, 1])
    def test_numbers_from_0_or_1(self, first, tmp_path):
        source = self.opened(tmp_path, [first + 2, first, first + 1, first])
        assert source.class_names == tuple(map(str, range(first, first + 3)))
        assert source["train"].all_labels().tolist() == [0, 0, 1, 2]

    def test_a_labels_file_names_them(self, tmp_path):
        (tmp_path / "labels.txt").write_text("0:background\n7:daisy\n9:rose: red\n")
        assert self.opened(tmp_path, [9, 7]).class_names == ("daisy", "rose: red")

    def test_names_in_records_come_first(self, tmp_path):
        (tmp_path / "labels.txt").write_text("7:daisy\nnot such a line\n")
        source = self.opened(tmp_path, [9, 7], ["n2", "n1"])
        assert source.class_names == ("n1", "n2")
        assert source["train"].ids_of([0]) == ["train-0-of-1/1.jpg"]

    def test_a_missing_label_is_unknown(self, tmp_path):
        source = self.opened(tmp_path, [1, None])
        with pytest.raises(SourceError, match=r"label -1 for .*/1\.jpg"):
            check_labels(source["train"], source.class_names, "x")

    @pytest.mark.parametrize(
        ("labels", "synsets", "message"),
        [
            ([1, 2, 7], None, r"labels\.txt, one line 7:NAME.*the label 7 for .*/2\.jpg"),
            ([2, 3], None, r"all numbers from 0 or 1 .*the label 2 for .*/0\.jpg"),
            ([1, 1], ["n1", "n2"], r"1 is 'n2' for .*1\.jpg, and 1 is 'n1' for .*0\.jpg"),
            ([1, 2], ["n1", "n1"], r"2 is 'n1' for .*1\.jpg, and 1 is 'n1' for .*0\.jpg"),
            ([1, -4], None, r"record 1, at byte \d+: .*from 0\. Received: \[-4\]"),
        ],
    )
    def test_wrong_labels_are_named(self, labels, synsets, message, tmp_path):
        with pytest.raises(SourceError, match=message):
            self.opened(tmp_path, labels, synsets)

    def test_labels_of_validation_images_alone_are_refused(self, tmp_path):
        with pytest.raises(SourceError, match=r"val-0-of-1/3\.jpg has the label 3, which no train"):
            self.opened(tmp_path, [1, 2], val=[1, 3])

    @pytest.mark.parametrize("line", ["daisy", "9" * 5000 + ":daisy"])
    def test_a_wrong_labels_file_is_refused(self, line, tmp_path):
        (tmp_path / "labels.txt").write_text(f"{line}\n")
        problem = rf"labels\.txt must be NUMBER:NAME. Received: '{line[:5]}"
        with pytest.raises(SourceError, match=problem):
            self.opened(tmp_path, [1])

    @pytest.mark.parametrize(
        ("files", "class_names"),
        [
            ({"a.jpg": b"x", "a.cls": b"1\n", "b.JPG": b"x", "b.cls": b"0"}, ("0", "1")),
            ({"a.png": b"x", "a.json": b'{"label": 0}', "README": b"x"}, ("0",)),
            ({"d/a.jpg": b"x", "d/a.json": b'{"label": "cat"}', "._d/a.jpg": b""}, ("cat",)),
            ({"a.jpg": b"x", "a.cls": b"cat"}, r"a\.cls must be a label from 0\. Received: b'cat'"),
            ({"a.jpg": b"x", "a.cls": b"-1"}, r"a\.cls must be a label from 0"),
            ({"a.jpg": b"x", "a.json": b"[0]"}, r"a\.json: Expected `object`"),
            ({"a.jpg": b"x", "a.json": b'{"label": 1.5}'}, r"label in a\.json .*Received: 1\.5"),
            ({"a.cls": b"1"}, r"a must have one image.*Received: \.cls"),
            ({"a.jpg": b"x", "a.png": b"x"}, r"a must have one image.*Received: \.jpg, \.png"),
            ({"a.txt": b"x"}, r"holds no images"),
            (
                {"a.jpg": b"x", "a.cls": b"0", "b.jpg": b"x", "b.json": b'{"label": "cat"}'},
                r"either numbers or names. Received: the number of \S+/a\.jpg",
            ),
        ],
    )
    def test_labels_of_webdataset(self, files, class_names, tmp_path):
        write_tar(tmp_path / "a.tar", files.items())
        if isinstance(class_names, tuple):
            source = open_source(f"webdataset:{tmp_path}", tmp_path)
            assert source.class_names == class_names
        else:
            with pytest.raises(SourceError, match=class_names):
                open_source(f"webdataset:{tmp_path}", tmp_path)

    def test_hugging_face_names_the_classes_and_imagenet_their_wnids(self, tmp_path):
        file = tmp_path / "data/train-00000-of-00001.parquet"
        write_parquet(file, [b"x", b"y", b"z"], [1, 0, -1], class_names=["cat", "dog"])
        source = open_source(f"parquet:{tmp_path}", tmp_path)
        assert source.class_names == ("cat", "dog")
        assert source["train"].all_labels().tolist() == [-1, 0, 1]
        paths = ["n01_1_n01440764.JPEG", "ILSVRC2012_val_00000293_n01443537.JPEG"]
        write_parquet(file, [b"x", b"y"], [0, 1], paths, ["tench", "goldfish"])
        assert open_source(f"parquet:{tmp_path}", tmp_path).class_names == (
            "n01440764",
            "n01443537",
        )
        write_parquet(file, [b"x", b"y"], [0, 2], class_names=["cat", "dog"])
        with pytest.raises(SourceError, match=r"label of row 1 must be from 0 to 1\. Received: 2"):
            open_source(f"parquet:{tmp_path}", tmp_path)
        write_parquet(file, [b"x", None], [0, 1])
        with pytest.raises(SourceError, match="row 1 has no image bytes"):
            open_source(f"parquet:{tmp_path}", tmp_path)
        pq.write_table(pa.table({"img": ["a"], "label": [1]}), file)
        with pytest.raises(SourceError, match=r"Received: img \(string\), label \(int64\)"):
            open_source(f"parquet:{tmp_path}", tmp_path)

    def test_one_of_several_labels_must_be_named_label(self, tmp_path):
        kinds = ", ".join(f'"{name}": {{"_type": "ClassLabel"}}' for name in ("fine", "coarse"))
        metadata = {"huggingface": f'{{"info": {{"features": {{{kinds}}}}}}}'}
        table = pa.table({"image": [b"x"], "fine": [1], "coarse": [0]})
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
        with pytest.raises(SourceError, match=r"a\.parquet .*one label.*Received: fine, coarse"):
            open_source(f"parquet:{tmp_path}", tmp_path)

    def test_columns_are_those_that_hugging_face_describes(self, tmp_path):
        kinds = '"img": {"_type": "Image"}, "fine": {"_type": "ClassLabel", "names": ["a", "b"]}'
        metadata = {"huggingface": f'{{"info": {{"features": {{{kinds}}}}}}}'}
        table = pa.table({"img": [b"x", b"y"], "fine": [1, 0]}).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "a.parquet")
        source = open_source(f"parquet:{tmp_path}", tmp_path)
        assert source.class_names == ("a", "b")
        assert [source["all"].read(e).numpy() for e in source["all"].in_order()] == [b"y", b"x"]


def test_equal_and_missing_names_are_numbered(tmp_path):
    names = ("b", "b", "", "a#5", "a", "a")
    write_tfrecord(tmp_path / "a.tfrecord", [example(b"x", 1, name) for name in names])
    split = open_source(f"tfrecord:{tmp_path}", tmp_path)["all"]
    expected = ["#2", "a", "a#5", "a#5#5", "b", "b#1"]
    assert split.names_of(range(6)) == [f"{tmp_path}/a.tfrecord/{name}" for name in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changes_while_it_is_indexed_is_refused(kind, root, tmp_path, monkeypatch):
    spec = write_shards(kind, root / "data", tmp_path / "shards")
    real = shards._KINDS[spec.partition(":")[0]]

    def scan(path, *rest):
        yield from real.scan(path, *rest)
        os.utime(path, ns=(0, 1))

    monkeypatch.setitem(shards._KINDS, spec.partition(":")[0], real._replace(scan=scan))
    with pytest.raises(SourceError, match=r"shards/\S+ has changed while it was indexed"):
        open_source(spec, tmp_path)


def test_boxes_of_tfrecords_are_shares(tmp_path):
    image = encode(photo(np.random.default_rng(0), 40, 60))
    records = [
        example(image, 1, "a", "n1", [(0.1, 0.2, 0.5, 0.6), (0, 0, 1, 1)]),
        example(image, 1, "b", "n1", []),
    ]
    write_tfrecord(tmp_path / "a.tfrecord", records)
    source = open_source(f"tfrecord:{tmp_path}", tmp_path)
    split, boxes, skipped = boxed_split(source, source["all"], skip_bad=True)
    np.testing.assert_allclose(boxes[0], [[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]], rtol=1e-6)
    assert len(split) == 1
    assert list(skipped.values()) == ["it has no box"]
    write_tfrecord(tmp_path / "a.tfrecord", [example(image)])
    with pytest.raises(SourceError, match="has no boxes"):
        open_source(f"tfrecord:{tmp_path}", tmp_path)["all"].stated_boxes()


def test_an_unreadable_image_is_named_and_no_other(tmp_path):
    good = encode(photo(np.random.default_rng(0), 40, 60))
    records = [example(b"bad" if i == 3 else good, 1, f"{i}.jpg") for i in range(6)]
    write_tfrecord(tmp_path / "a.tfrecord", records)
    split = open_source(f"tfrecord:{tmp_path}", tmp_path)["all"]
    assert find_bad_images(split) == [f"{tmp_path}/a.tfrecord/3.jpg"]


def test_two_processes_read_their_rows_of_each_batch(root, tmp_path):
    from vgg_keras.pipelines.splits import Shard

    source = open_source(f"tfrecord:{root / 'tfrecord'}", tmp_path)
    whole = stream_of(source, 2)
    parts = [stream_of(source, 2, shard=Shard(i, 2)) for i in range(2)]
    for batch, first, second in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch[0], np.concatenate([first[0], second[0]]))


def test_a_row_of_the_index_is_a_member_of_the_archive(tmp_path):
    """The index of an archive is cached too, with hard links."""
    path = tmp_path / "256_ObjectCategories.tar"
    write_tar(path, [("256_ObjectCategories/001.a/001_0001.jpg", b"first")])
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("256_ObjectCategories/001.a/001_0002.jpg")
        member.type, member.linkname = tarfile.LNKTYPE, "256_ObjectCategories/001.a/001_0001.jpg"
        archive.addfile(member)
    for _ in range(2):
        split = open_source(f"caltech256:{path}", tmp_path)["all"]
        assert [split.read(e).numpy() for e in split.in_order()] == [b"first"] * 2
    assert len(list((tmp_path / "image_indexes").glob("*.arrow"))) == 1


def test_an_index_of_another_version_is_made_again(root, tmp_path, monkeypatch):
    cached = f"{root}/tfrecord/train-00000-of-00002", "tfrecord", tmp_path / "image_indexes"
    open_source(f"tfrecord:{root / 'tfrecord'}", tmp_path)
    assert image_index._cached(*cached) is not None
    monkeypatch.setattr(image_index, "_VERSION", 0)
    assert image_index._cached(*cached) is None
    open_source(f"tfrecord:{root / 'tfrecord'}", tmp_path)
    assert image_index._cached(*cached) is not None


def test_a_full_disk_is_not_blamed_on_the_images(tmp_path):
    image = np.random.default_rng(0).bytes(2**18)
    file = write_parquet(tmp_path / "a.parquet", [image], [0], compression="zstd")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(WriteError, match=rf"^{file} holds .*The copy .* could not be written"):
            open_source(f"parquet:{file}", tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_equal_copies_have_equal_states(tmp_path):
    """So a process notices nothing if another one copies the same images once more."""
    file = write_parquet(tmp_path / "a.parquet", [b"x"], [0], compression="zstd")
    splits = [open_source(f"parquet:{file}", tmp_path / cache)["all"] for cache in "ab"]
    assert len({split.files[0].data for split in splits}) == 2
    assert len({split.files[0].data_state for split in splits}) == 1
