from __future__ import annotations

import csv
import json
import resource
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import without_digest
from vgg_keras.errors import PredictionsError
from vgg_keras.evaluation.fusion import fuse
from vgg_keras.evaluation.predictions import Predictions

CLASSES = ("ant", "bee", "cat, black", 'dog "rex"', "eel", "fox", "gnu")


def predictions(seed=0, count=9, classes=CLASSES, names=None, labels=None, **metadata):
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(len(classes)), count).astype(np.float32)
    names = names or [f"val/{i}, a.jpg" for i in range(count)]
    labels = np.arange(count) % len(classes) if labels is None else labels
    metadata = {
        "run": "runs/d",
        "net": "D",
        "protocol": "dense",
        "test_scales": [256],
        "data": "x",
    } | metadata
    return Predictions(names, labels, rows, classes, metadata)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
class TestFiles:
    def test_round_trip_is_bit_identical(self, tmp_path, ending):
        one = predictions()
        one.save(tmp_path / f"p.{ending}")
        again = Predictions.load(tmp_path / f"p.{ending}")
        np.testing.assert_array_equal(again.posteriors, one.posteriors)
        np.testing.assert_array_equal(again.labels, one.labels)
        assert (list(again.names), again.class_names) == (one.names, one.class_names)
        assert again.result() == one.result()
        assert {p.name for p in tmp_path.iterdir()} == {f"p.{ending}", f"p.{ending}.json"}

    def test_the_result_is_in_a_json_file_beside_the_predictions(self, tmp_path, ending):
        one = predictions()
        one.save(tmp_path / f"p.{ending}")
        beside = json.loads((tmp_path / f"p.{ending}.json").read_text())
        assert beside["top1_error"] == one.result()["top1_error"]
        assert (beside["images"], beside["predictions"]) == (9, f"p.{ending}")

    def test_a_missing_companion_or_file_is_named(self, tmp_path, ending):
        path = tmp_path / f"p.{ending}"
        with pytest.raises(PredictionsError, match=f"There is no .*p.{ending}"):
            Predictions.load(path)
        predictions().save(path)
        (tmp_path / f"p.{ending}.json").unlink()
        with pytest.raises(PredictionsError, match=rf"There is no .*p\.{ending}\.json"):
            Predictions.load(path)

    @pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1\0\0\0\0PAR1"])
    def test_a_file_of_another_kind_is_refused(self, tmp_path, ending, content):
        path = tmp_path / f"p.{ending}"
        predictions().save(path)
        path.write_bytes(content)
        with pytest.raises(
            PredictionsError, match=rf"p\.{ending} is not the file that .* describes"
        ):
            Predictions.load(path)
        (tmp_path / f"p.{ending}.json").write_text('{"class_names": ["a"]}')
        with pytest.raises(PredictionsError, match=f"p.{ending} does not hold predictions"):
            Predictions.load(path)

    def test_a_pair_of_an_earlier_version_has_no_digest(self, tmp_path, ending):
        one, beside = predictions(), tmp_path / f"p.{ending}.json"
        one.save(tmp_path / f"p.{ending}")
        without_digest(beside)
        again = Predictions.load(tmp_path / f"p.{ending}")
        np.testing.assert_array_equal(again.posteriors, one.posteriors)
        assert again.metadata == one.metadata

    def test_a_file_that_cannot_be_written_is_named(self, tmp_path, ending):
        predictions().save(tmp_path / f"p.{ending}")
        before = (tmp_path / f"p.{ending}").read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
            with pytest.raises(OSError, match=rf"p\.{ending} cannot be written"):
                predictions(count=500).save(tmp_path / f"p.{ending}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert (tmp_path / f"p.{ending}").read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 2
        assert len(Predictions.load(tmp_path / f"p.{ending}")) == 9

    def test_fewer_than_five_classes_are_saved_and_loaded(self, tmp_path, ending):
        one = predictions(classes=("a", "b"))
        one.save(tmp_path / f"p.{ending}")
        np.testing.assert_array_equal(
            Predictions.load(tmp_path / f"p.{ending}").posteriors, one.posteriors
        )


def test_csv_has_the_five_best_classes(tmp_path):
    one = predictions()
    one.save(tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    order = np.argsort(-one.posteriors, 1)
    assert [r["image"] for r in rows] == one.names
    assert [r["label"] for r in rows] == [CLASSES[i] for i in one.labels]
    for k in range(5):
        assert [r[f"class_{k + 1}"] for r in rows] == [CLASSES[i] for i in order[:, k]]
        np.testing.assert_allclose(
            [float(r[f"posterior_{k + 1}"]) for r in rows], -np.sort(-one.posteriors)[:, k]
        )


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(PredictionsError, match=r"\.parquet or \.csv\. Received: .*p\.txt"):
        predictions().save(tmp_path / "p.txt")


class TestFusion:
    def test_fusion_averages_posteriors(self):
        a, b, c = (predictions(seed) for seed in range(3))
        np.testing.assert_allclose(
            fuse([a, b, c]).posteriors,
            (a.posteriors + b.posteriors + c.posteriors) / 3,
            rtol=1e-6,
        )

    @given(seed=st.integers(0, 1000), times=st.integers(2, 7))
    def test_fusion_of_a_net_with_itself_changes_nothing(self, seed, times):
        one = predictions(seed)
        fused = fuse([one] * times)
        np.testing.assert_allclose(fused.posteriors, one.posteriors, rtol=1e-6)
        for key in ("images", "top1_error", "top5_error"):
            assert fused.result()[key] == one.result()[key]

    def test_fusion_matches_images_by_name(self):
        a, b = predictions(0), predictions(1)
        order = np.random.default_rng(0).permutation(9)
        shuffled = Predictions(
            [b.names[i] for i in order], b.labels[order], b.posteriors[order], CLASSES, b.metadata
        )
        np.testing.assert_array_equal(fuse([a, shuffled]).posteriors, fuse([a, b]).posteriors)

    def test_metadata_lists_the_members(self):
        a, b = predictions(0), predictions(1, net="E")
        metadata = fuse([a, b]).result()
        assert [m["net"] for m in metadata["members"]] == ["D", "E"]
        assert (metadata["protocol"], metadata["data"]) == ("dense", "x")
        c = predictions(2, protocol="multi-crop")
        np.testing.assert_allclose(
            fuse([fuse([a, b]), c]).posteriors, fuse([a, b, c]).posteriors, rtol=1e-6
        )
        mixed = fuse([fuse([a, b]), c]).result()
        assert [m["protocol"] for m in mixed["members"]] == ["dense", "dense", "multi-crop"]
        assert mixed["protocol"] == "mixed"

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (
                {"names": [f"val/{i}, a.jpg" for i in range(8)] + ["new"]},
                r"only one of them has val/8",
            ),
            ({"count": 8}, r"has 9 images, runs/d 8; only one of them has val/8, a\.jpg"),
            (
                {"classes": ("a", "b", "c", "d", "e", "f", "g")},
                r"different classes cannot be fused",
            ),
            (
                {"labels": np.zeros(9, np.int64)},
                r"val/1, a\.jpg is bee for runs/d and ant for runs/d",
            ),
        ],
    )
    def test_fusion_of_different_validation_sets_is_refused(self, other, message):
        for pair in ([predictions(), predictions(**other)], [predictions(**other), predictions()]):
            with pytest.raises(PredictionsError, match="cannot be fused"):
                fuse(pair)
        with pytest.raises(PredictionsError, match=message):
            fuse([predictions(), predictions(**other)])

    def test_fusion_of_one_net_is_refused(self):
        with pytest.raises(PredictionsError, match=r"two or more predictions\. Received: 1"):
            fuse([predictions()])
