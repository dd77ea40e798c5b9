from __future__ import annotations

import logging

import pytest

from vgg_keras.pipelines.errors import BadImageError
from vgg_keras.pipelines.screening import find_bad_images, naming_bad_images, without_bad_images
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.statistics import compute_statistics


@pytest.fixture
def broken(tmp_path, folder):
    """A data spec, and the names of its two broken training images: the first and a middle one."""
    first = tmp_path / "data/train/blue/000.jpg"
    middle = tmp_path / "data/train/green/003.jpg"
    first.write_bytes(first.read_bytes()[:300])
    middle.write_text("<html>Not found</html>")
    return folder, [str(first), str(middle)]


def test_all_bad_images_are_found_and_named(broken):
    spec, names = broken
    source = open_source(spec)
    assert find_bad_images(source["train"]) == names
    assert find_bad_images(source["train"], limit=1) == names[:1]
    assert find_bad_images(source["val"]) == []


def test_a_bad_last_image_is_found(tmp_path, folder):
    last = tmp_path / "data/train/red/007.jpg"
    last.write_bytes(b"")
    assert find_bad_images(open_source(folder)["train"]) == [str(last)]


def test_skipped_images_are_logged_by_name(broken, caplog):
    spec, names = broken
    with caplog.at_level(logging.WARNING):
        fewer, skipped = without_bad_images(open_source(spec)["train"])
    assert skipped == names
    assert len(fewer) == 22
    assert all(name in caplog.text for name in names)


def test_a_bad_image_is_named_in_the_error(broken):
    spec, names = broken
    with pytest.raises(BadImageError, match=names[0]):
        compute_statistics(open_source(spec)["train"])


def test_other_errors_are_not_changed(folder):
    with pytest.raises(ZeroDivisionError), naming_bad_images(open_source(folder)["train"]):
        raise ZeroDivisionError
