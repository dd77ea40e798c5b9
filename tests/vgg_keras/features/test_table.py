"""Files of features: they are read as they were written, and errors name the file."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from pyarrow import parquet

from tests.tiny import without_digest
from vgg_keras.errors import FeaturesError, WriteError
from vgg_keras.features.table import Features, normalised, side_by_side, stacked


def made(n=5, d=7, seed=0, metadata=None):
    rng = np.random.default_rng(seed)
    return Features(
        [f"a/{i} é.jpg" for i in range(n)],
        ["train", "val"] * (n // 2) + ["test"] * (n % 2),
        np.random.default_rng(0).choice([-1, 0, 1], (n, 3)).astype(np.int8),
        normalised(rng.normal(size=(n, d))),
        ("cat", "dog", "tv/monitor"),
        metadata or {"net": "D", "data": "x", "test_scales": [256]},
    )


@pytest.mark.parametrize("kind", ["parquet", "npy"])
class TestFiles:
    def test_files_hold_everything_exactly(self, tmp_path, kind):
        features = made()
        features.save(tmp_path / f"f.{kind}")
        back = Features.load(tmp_path / f"f.{kind}")
        np.testing.assert_array_equal(back.values, features.values)
        np.testing.assert_array_equal(back.targets, features.targets)
        assert back.values.dtype == np.float32
        for name in ("names", "splits", "class_names", "metadata"):
            assert getattr(back, name) == getattr(features, name)

    def test_files_are_intact_if_writing_fails(self, tmp_path, kind, monkeypatch):
        path = tmp_path / f"f.{kind}"
        made().save(path)

        def full(*_, **__):
            raise OSError("disk full")

        monkeypatch.setattr("numpy.save", full)
        monkeypatch.setattr("pyarrow.parquet.write_table", full)
        with pytest.raises(WriteError, match=r"f\.\w+ cannot be written: disk full"):
            made(seed=1).save(path)
        np.testing.assert_array_equal(Features.load(path).values, made().values)

    def test_files_with_other_contents_are_named(self, tmp_path, kind):
        path = tmp_path / f"f.{kind}"
        with pytest.raises(FeaturesError, match="There is no file of features"):
            Features.load(path)
        for content in (b"", b"no features", b"PAR1" * 9):
            path.write_bytes(content)
            (tmp_path / "f.npy.json").write_text(json.dumps({"image": []}))
            with pytest.raises(FeaturesError, match=rf"f\.{kind}(\.json)? holds no features"):
                Features.load(path)


class TestRefused:
    def test_other_endings_are_refused(self, tmp_path):
        with pytest.raises(FeaturesError, match=r"\.parquet or \.npy\. Received: .*f\.csv"):
            made().save(tmp_path / "f.csv")

    def test_pickles_are_refused(self, tmp_path):
        path = tmp_path / "f.npy"
        made().save(path)
        np.save(path, np.array([{"a": 1}] * 5), allow_pickle=True)
        without_digest(tmp_path / "f.npy.json")
        with pytest.raises(FeaturesError, match="allow_pickle=False"):
            Features.load(path)

    def test_values_of_fewer_images_are_refused(self, tmp_path):
        path = tmp_path / "f.npy"
        made().save(path)
        np.save(path, made(3).values)
        without_digest(tmp_path / "f.npy.json")
        with pytest.raises(FeaturesError, match="of the same images"):
            Features.load(path)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite_are_refused(self, tmp_path, value):
        features = made()
        features.values[1, 2] = value
        features.save(tmp_path / "f.parquet")
        with pytest.raises(FeaturesError, match="finite float32"):
            Features.load(tmp_path / "f.parquet")


class TestStacking:
    def test_stacking_matches_images_by_name(self):
        a, b = (
            made(metadata={"net": "D", "data": "x"}),
            made(seed=1, d=4, metadata={"net": "E", "data": "x"}),
        )
        order = [3, 1, 4, 0, 2]
        shuffled = dataclasses.replace(
            b,
            names=[b.names[i] for i in order],
            splits=[b.splits[i] for i in order],
            targets=b.targets[order],
            values=b.values[order],
        )
        both = stacked([a, shuffled])
        np.testing.assert_allclose(both.values, np.hstack([a.values, b.values]) / np.sqrt(2), 1e-6)
        assert both.names == a.names
        assert both.metadata == {"data": "x", "members": [a.metadata, b.metadata]}
        assert [m["net"] for m in stacked([both, a]).members] == ["D", "E", "D"]
        assert stacked([a]) is a

    def test_stacking_of_other_images_or_labels_is_refused(self):
        with pytest.raises(FeaturesError, match=r"5 and 3 images; (train|test) a/2 é\.jpg"):
            stacked([made(), made(3)])
        other = made()
        other.targets[0] *= -1
        other.targets[1] = 1
        with pytest.raises(FeaturesError, match="different labels"):
            stacked([made(), other])
        with pytest.raises(FeaturesError, match="Received: none"):
            stacked([])


def test_rows_of_zeros_stay_zero_and_descriptors_have_equal_weights():
    assert (normalised(np.zeros((2, 3))) == 0).all()
    rows = side_by_side([np.full((1, 2), 1e-3), np.full((1, 2), 1e3)])
    np.testing.assert_allclose(rows, np.full((1, 4), 0.5), rtol=1e-6)


def test_files_have_the_keys_of_earlier_versions(tmp_path):
    """The key "about" holds the metadata in both kinds of file."""
    features = made()
    features.save(tmp_path / "f.npy")
    assert json.loads((tmp_path / "f.npy.json").read_text())["about"] == features.metadata
    features.save(tmp_path / "f.parquet")
    stored = parquet.read_schema(tmp_path / "f.parquet").metadata[b"vgg_keras"]
    assert json.loads(stored)["about"] == features.metadata
