"""Fingerprints of splits, by which caches and runs recognise their images."""

from __future__ import annotations

import os
import shutil
import tarfile

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import encode
from vgg_keras.pipelines.boxes import Boxes
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.cropped import CroppedSplit
from vgg_keras.pipelines.splits import Split

FILES = st.dictionaries(
    st.sampled_from("abc"), st.tuples(st.integers(1, 2), st.integers(0, 2)), min_size=1
)


@settings(max_examples=40, deadline=None)
@given(first=FILES, second=FILES)
def test_two_states_of_a_folder_are_the_same_if_and_only_if_all_files_are(
    first, second, tmp_path_factory
):
    """A file is given by its name, its size, and its time of modification in nanoseconds."""
    root = tmp_path_factory.getbasetemp() / "states"

    def fingerprint(files):
        shutil.rmtree(root, ignore_errors=True)
        (root / "class").mkdir(parents=True)
        for name, (size, time) in files.items():
            file = root / "class" / name
            file.write_bytes(b"x" * size)
            os.utime(file, ns=(0, 10**18 + time))
        return open_source(f"folder:{root}")["all"].fingerprint()

    assert (fingerprint(first) == fingerprint(second)) == (first == second)


def test_data_sets_with_the_same_names_sizes_and_times_differ(tmp_path, monkeypatch):
    found = []
    for name in ("one", "other"):
        file = tmp_path / name / "class/a.jpg"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
        os.utime(file, (0, 0))
        monkeypatch.chdir(tmp_path / name)
        found.append(Split.from_paths(["class/a.jpg"]).fingerprint())
        found.append(open_source("folder:.")["all"].fingerprint())
    assert found[0] == found[1] != found[2] == found[3]


def test_a_missing_file_has_a_fingerprint_too(tmp_path):
    """It is skipped later, as an image that cannot be read."""
    file = tmp_path / "a.jpg"
    file.write_bytes(b"x")
    split = Split.from_paths([file])
    before = split.fingerprint()
    file.unlink()
    assert split.fingerprint() != before


def test_images_of_an_archive_change_with_the_archive(tmp_path):
    folder, archive = tmp_path / "256_ObjectCategories/001.a", tmp_path / "256_ObjectCategories.tar"
    folder.mkdir(parents=True)
    for number in (1, 2):
        (folder / f"001_000{number}.jpg").write_bytes(b"x")
    with tarfile.open(archive, "w") as packed:
        packed.add(folder.parent, "256_ObjectCategories")

    def split():
        return open_source(f"caltech256:{archive}")["all"]

    before = split().fingerprint()
    assert len(set(split().identities())) == 2
    assert split().fingerprint() == before
    os.utime(archive, ns=(0, archive.stat().st_mtime_ns + 1))
    assert split().fingerprint() != before
    unpacked = open_source(f"caltech256:{folder.parent}")["all"]
    of_folder = unpacked.fingerprint()
    os.utime(folder / "001_0002.jpg", (0, 0))
    assert unpacked.fingerprint() != of_folder


def test_tfds_images_change_with_their_record_files_which_are_not_read(
    shapes_dir, tmp_path, monkeypatch
):
    shutil.copytree(shapes_dir, tmp_path / "copy")
    source, copy = (open_source("shapes", path) for path in (shapes_dir, tmp_path / "copy"))
    few = source["val"].without(source["val"].names_of([3]))
    monkeypatch.setattr(type(copy["val"].builder), "as_dataset", None)
    before = copy["val"].fingerprint()
    others = [few, source["val"], source["train"], copy["train"]]
    assert len({before, *(split.fingerprint() for split in others)}) == 5
    assert copy["val"].fingerprint() == before
    for file in (tmp_path / "copy").rglob("*-val*"):
        os.utime(file, (0, 0))
    assert copy["val"].fingerprint() != before


def test_images_in_memory_are_recognised_by_their_contents():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    encoded = [encode(image, "PNG") for image in images]

    def fingerprint(encoded):
        pairs = tf.data.Dataset.from_tensor_slices((encoded, [0] * len(encoded)))
        return Split.from_dataset(pairs, len(encoded)).fingerprint()

    assert Split.from_arrays(images).fingerprint() == Split.from_arrays(images + 0).fingerprint()
    assert Split.from_arrays(images).fingerprint() != Split.from_arrays(images[::-1]).fingerprint()
    assert fingerprint(encoded) == fingerprint(encoded) != fingerprint(encoded[::-1])


def test_images_cut_to_other_boxes_are_others(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    whole = Split.from_paths([tmp_path / "a.jpg"])
    found = {
        CroppedSplit("own", whole, Boxes.of_images([[[0, 0, side, 1]]])).fingerprint()
        for side in (0.5, 0.5, 0.6)
    }
    assert len(found | {whole.fingerprint()}) == 3


def test_a_fingerprint_asks_once_for_each_file_and_reads_none(tmp_path, monkeypatch):
    (tmp_path / "class").mkdir()
    for i in range(5):
        (tmp_path / "class" / f"{i}.jpg").touch()
    split = open_source(f"folder:{tmp_path}")["all"]
    asked, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: asked.append(path) or stat(path))
    monkeypatch.setattr("builtins.open", None)
    split.fingerprint()
    monkeypatch.undo()
    assert sorted(asked) == sorted(split.paths)
