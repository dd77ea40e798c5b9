"""What messages say about specs of data that are wrong, and about missing splits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import encode
from tests.pipelines.containers import write_parquet
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import open_source


@pytest.fixture
def images(tmp_path):
    """A folder with images of two classes, and no validation images."""
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.full((40, 40, 3), 50 * i, np.uint8)
            (tmp_path / "train" / name / f"{i}.jpg").write_bytes(encode(pixels))
    return tmp_path


def test_a_path_without_a_kind_is_given_one(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").touch()
    (tmp_path / "a.parquet").touch()
    (tmp_path / "notes.txt").touch()
    for spec, meant in {
        str(images / "train"): f"; it may be folder:{images / 'train'}",
        "shards": "; it may be webdataset:shards",
        "a.parquet": "; it may be parquet:a.parquet",
        "floder:x": "; it may be folder:x",
        "notes.txt": "",
        "none": "",
        "/a/path": "; folder:/a/path would be a folder of images, but /a/path does not exist",
        "xyz:x": "",
        "": "",
    }.items():
        with pytest.raises(SourceError) as caught:
            open_source(spec)
        assert str(caught.value).endswith(f" or voc-action:PATH. Received: {spec!r}{meant}")


def test_a_missing_split_can_be_held_out(images):
    files = sorted((images / "train").glob("*/*.jpg"))
    contents, labels = [file.read_bytes() for file in files], [0] * 4 + [1] * 4
    write_parquet(images / "shards/train-0.parquet", contents, labels, class_names=["cat", "dog"])
    for spec in (f"folder:{images}", f"parquet:{images / 'shards'}"):
        with pytest.raises(SourceError) as caught:
            open_source(spec)["val"]
        assert str(caught.value) == (
            f"{spec} has no split 'val'. Its splits: train. To hold a tenth of each class out as "
            f'val, give data="{spec}?val=0.1".'
            + f" {images} also holds shards: folder:DIR?val=NAME takes such a folder as val, and "
            "folder:DIR/NAME opens it alone, as the split all." * spec.startswith("folder:")
        )
        assert len(open_source(f"{spec}?val=0.5")["val"]) == 4
    with pytest.raises(SourceError, match=r"no split 'test'. Its splits: train, val\.$"):
        open_source(f"{spec}?val=0.5")["test"]
