"""Files that version 0.1.0 wrote before nets were values load and give the same numbers.

`saved_before.tar.xz` holds what commit e8b8b6c wrote for nets of width 1/16 and crop size 32 with
random weights of four bits: a run, a localisation run, a weights file, an export, predictions,
boxes, features and caches, and `expected.json` with the results.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vgg_keras import Predictions, Procedure, TrainedNet, evaluate, fuse
from vgg_keras.evaluation.evaluate import score
from vgg_keras.pipelines.sources import open_source

ARCHIVE = Path(__file__).parent / "saved_before.tar.xz"
CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def expected(unpacked, tmp_path, monkeypatch):
    """Makes a copy of the files the current folder; returns the expected results."""
    shutil.copytree(unpacked, tmp_path / "files")
    monkeypatch.chdir(tmp_path / "files")
    return json.loads(Path("expected.json").read_text())


def listing(folder):
    return sorted(path.name for path in Path(folder).glob("[!.]*"))


SEED = {"seed": 0}  # of the run; earlier versions did not write it


def assert_same(predictions, file, **since):
    old = Predictions.load(file)
    np.testing.assert_allclose(predictions.posteriors, old.posteriors, rtol=1e-5, atol=1e-7)
    assert (list(predictions.names), predictions.metadata) == (
        list(old.names),
        old.metadata | since,
    )


@pytest.mark.parametrize("protocol", ["centre", "dense", "multi-crop+dense"])
def test_a_run_gives_the_same_predictions_and_errors(expected, protocol):
    net, data = TrainedNet.load("run"), open_source("folder:data")
    found = evaluate(net, data, protocol=protocol, verbose=0)
    assert_same(found, f"{protocol}.parquet", **SEED)
    assert found.result() == expected[protocol] | SEED


def test_a_weights_file_gives_the_same_predictions(expected):
    net = TrainedNet.load("net.weights.h5", class_names=CLASSES, train_scale=(32, 48))
    found = evaluate(net, open_source("folder:data"), verbose=0)
    old = Predictions.load("weights.parquet")
    np.testing.assert_allclose(found.posteriors, old.posteriors, rtol=1e-5, atol=1e-7)


def test_fused_predictions_are_the_same(expected):
    found = fuse([Predictions.load("centre.parquet"), Predictions.load("several.csv")])
    assert_same(found, "fused.parquet")


def test_posteriors_are_the_same_as_the_cached_ones(expected):
    """Caches of earlier versions are left alone: they did not notice images that were changed."""
    from vgg_keras.pipelines.sources.own import as_split

    before = listing("kept")
    net = TrainedNet.load("run")
    passes = Procedure("dense", multi_scale=True).passes(net)
    _, rows, _ = score(net, as_split(expected["paths"]), passes, cache_dir="kept", verbose=0)
    np.testing.assert_allclose(rows, expected["posteriors"], rtol=1e-5, atol=1e-7)
    assert set(listing("kept")) > set(before)


def test_localisation_nets_give_the_same_boxes(expected):
    from vgg_keras import centre_of_true_class, localise

    boxes, net, data = TrainedNet.load("boxes"), TrainedNet.load("run"), open_source("folder:data")
    (cached,) = Path("boxes/localisation").glob("answers-*.npy")  # of the earlier version
    found = localise(boxes, data, classifiers=net, cache_dir="boxes/localisation", verbose=0)
    np.testing.assert_allclose(found.boxes, np.load(cached), atol=1e-5)
    result = found.result()
    assert {key: result[key] for key in expected["localise"]} == expected["localise"]
    result = centre_of_true_class(boxes, data, verbose=0).result()
    assert {key: result[key] for key in expected["centre-gt"]} == expected["centre-gt"]


def test_features_are_used_and_the_same_as_new_ones(expected):
    from vgg_keras import FeatureExtractor, Features
    from vgg_keras.features import compute_descriptors
    from vgg_keras.pipelines.sources.own import as_split

    features, again = Features.load("features.parquet"), Features.load("features.npy")
    np.testing.assert_array_equal(features.values, again.values)
    rows = compute_descriptors(
        FeatureExtractor.load("run"),
        as_split(expected["paths"]),
        test_scales=(32, 48),
        verbose=0,
    )
    index = {
        f"data/val/{name}".replace("val/val", "val"): i for i, name in enumerate(features.names)
    }
    of_val = [index[path] for path in expected["paths"]]
    np.testing.assert_allclose(rows, features.values[of_val], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_an_export_is_verified_against_its_nets(expected):
    from PIL import Image

    from vgg_keras import Localisers, verify

    net, localisers = TrainedNet.load("run"), Localisers([TrainedNet.load("boxes")])
    Image.open(expected["paths"][0]).resize((60, 50)).save("photo.png")
    checks, _ = verify("exports/tiny/1", net, ["photo.png"], localisers, repeats=1)
    assert {check.signature for check in checks} >= {"serving_default", "features", "localise"}
    assert all(check.passed for check in checks)
