"""What messages say about specs of data that are wrong, and about missing splits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import encode
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
        "xyz:x": "",
        "": "",
    }.items():
        with pytest.raises(SourceError) as caught:
            open_source(spec)
        assert str(caught.value).endswith(f" or voc-action:PATH. Received: {spec!r}{meant}")


def test_a_missing_split_can_be_held_out(images):
    spec = f"folder:{images}"
    with pytest.raises(SourceError) as caught:
        open_source(spec)["val"]
    message = str(caught.value)
    assert message.startswith(f"{spec} has no split 'val'. Its splits: train. ")
    assert message.endswith(f" {spec}?val=0.1 holds a tenth of each class out as val.")
    held_out = open_source(f"{spec}?val=0.5")
    assert len(held_out["val"]) == 4
    with pytest.raises(SourceError, match=r"no split 'test'. Its splits: train, val\.$"):
        held_out["test"]
