"""`features`, `transfer`, `similar` and `DeepFeatures`, from pictures to what people see."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from vgg_keras import weights
from vgg_keras.commands.features import features, similar, transfer
from vgg_keras.errors import FeaturesError
from vgg_keras.features import DeepFeatures
from vgg_keras.features.descriptors import describe, extract
from vgg_keras.features.nets import FeatureExtractor
from vgg_keras.features.similar import describe_like, nearest
from vgg_keras.features.table import Features


def invoke(command, *arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], obj=False)


@pytest.fixture(scope="module")
def file(runs, pictures, tmp_path_factory):
    """What `features` writes of both runs, stacked."""
    out = tmp_path_factory.mktemp("out") / "f.parquet"
    done = invoke(
        features,
        "--run",
        runs[0].path,
        "--run",
        runs[1].path,
        "--data",
        f"folder:{pictures}",
        "--test-scales",
        "32,40",
        "--aggregate",
        "max",
        "--out",
        out,
        "--json",
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["images"], result["dimensions"]) == (36, 512)
    assert "images/s" in done.stderr
    return out


class TestFeatures:
    def test_are_those_of_the_library(self, file, runs, source):
        kept = Features.load(file)
        nets = [FeatureExtractor.of_run(run.path) for run in runs]  # as the command loads them
        expected = extract(nets, source, test_scales=(32, 40), aggregate="max")
        np.testing.assert_allclose(kept.values, expected.values, atol=1e-6)
        assert kept.names == expected.names
        assert kept.metadata == expected.metadata

    def test_go_on_after_a_kill(self, file, runs, pictures, tmp_path):
        """Tables as a kill leaves them, some rows done: the file is the same."""
        kept = tmp_path / "kept"
        arguments = (
            "--run",
            runs[0].path,
            "--data",
            f"folder:{pictures}",
            "--test-scales",
            "32",
            "--cache-dir",
            kept,
            "--out",
        )
        assert invoke(features, *arguments, tmp_path / "a.npy").exit_code == 0
        for table in kept.glob("*.npy"):
            rows = np.load(table, mmap_mode="r+")
            rows[5:, 100:] = np.nan
            rows.flush()
        assert invoke(features, *arguments, tmp_path / "b.npy").exit_code == 0
        a, b = (Features.load(tmp_path / name) for name in ("a.npy", "b.npy"))
        np.testing.assert_allclose(a.values, b.values, atol=1e-6)
        assert a.names == b.names

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--out", "f.csv", "--run", "r"], "end in .parquet or .npy"),
            (["--out", "f.npy"], "Give either --run or --weights"),
            (["--out", "f.npy", "--run", "r", "--net", "D"], "goes with --weights"),
            (["--out", "f.npy", "--weights", "w", "--net", "D", "--net", "E"], "once for each"),
        ],
    )
    def test_refuse_what_cannot_be(self, arguments, message):
        done = invoke(features, "--data", "shapes", *arguments)
        assert done.exit_code == 1
        assert message in done.output


class TestTransfer:
    def test_prints_what_it_found(self, file, tmp_path):
        arguments = ("--features", file, "--protocol", "caltech101", "--train-per-class", 8)
        out = tmp_path / "r.json"
        done = invoke(transfer, *arguments, "--json", "--out", out)
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)
        assert result == json.loads(out.read_text())
        assert result["mean_class_recall"] > 80  # three colours, which any net tells apart
        assert len(result["of_splits"]) == 3
        assert result["spread"] == pytest.approx(np.std(result["of_splits"], ddof=1))
        text = invoke(transfer, *arguments).stdout
        assert f"mean class recall {result['mean_class_recall']:.1f} ± " in text

    def test_stacks_several_files(self, file):
        done = invoke(
            transfer,
            "--features",
            file,
            "--features",
            file,
            "--protocol",
            "custom",
            "--c-grid",
            "1",
            "--json",
        )
        result = json.loads(done.stdout)
        assert result["dimensions"] == 1024
        assert result["C"] == [1.0]
        assert result["split"] == "val"

    def test_names_what_is_wrong(self, file, tmp_path):
        done = invoke(transfer, "--features", tmp_path / "no.npy", "--protocol", "custom")
        assert done.exit_code == 1
        assert "There is no" in done.output
        done = invoke(transfer, "--features", file, "--protocol", "voc2007")
        assert "needs pictures of the splits train, val, test. Received: train, val" in done.output


class TestSimilar:
    def test_finds_a_picture_itself_first_and_draws_a_sheet(self, file, pictures, tmp_path):
        images = [pictures / "train/red/003.jpg", pictures / "val/blue/001.jpg"]
        sheet = tmp_path / "sheet.png"
        done = invoke(similar, *images, "--features", file, "--top", 3, "--sheet", sheet, "--json")
        assert done.exit_code == 0, done.output
        for image, found in zip(images, json.loads(done.stdout), strict=True):
            first, *_ = found["similar"]
            assert len(found["similar"]) == 3
            assert str(image).endswith(first["image"])
            assert first["similarity"] == pytest.approx(1, abs=1e-5)
            assert first["labels"] == [image.parent.name]
        with Image.open(sheet) as drawn:
            assert drawn.size == (800, 460)
            assert np.asarray(drawn.convert("RGB")).std() > 20
        text = invoke(similar, images[0], "--features", file, "--top", 1).stdout
        assert "1.000  train/red/003.jpg  red" in text

    def test_is_by_cosine(self, file):
        kept = Features.load(file)
        places, cosines = nearest(kept.values[:4], kept, 7)
        products = kept.values[:4].astype(float) @ kept.values.T.astype(float)
        np.testing.assert_allclose(cosines, -np.sort(-products, 1)[:, :7], atol=1e-6)
        assert (places[:, 0] == np.arange(4)).all()

    def test_another_net_in_its_place_is_refused(self, file, runs, pictures):
        image = pictures / "train/red/003.jpg"
        moved = ("--moved-to", runs[1].path, "--moved-to", runs[0].path)
        done = invoke(similar, image, "--features", file, *moved)
        assert done.exit_code == 1
        assert "is not the net that made these features" in done.output

    def test_features_of_boxes_are_refused(self, file, pictures):
        kept = Features.load(file)
        kept.metadata["members"][0]["region"] = "box"
        with pytest.raises(FeaturesError, match="of boxes too"):
            describe_like(kept, [pictures / "train/red/003.jpg"])


class TestDeepFeatures:
    def test_fits_in_a_pipeline(self, runs, source):
        train, val = source["train"], source["val"]
        machine = Pipeline(
            [
                ("features", DeepFeatures(run=runs[0].path, test_scales=(32,))),
                ("svm", LinearSVC(C=1e4)),
            ]
        )
        machine.fit(train.paths, train.labels)
        copy = pickle.loads(pickle.dumps(machine))
        np.testing.assert_array_equal(copy.predict(val.paths), machine.predict(val.paths))
        assert len(pickle.dumps(machine)) < 50_000  # the net is loaded again

    def test_is_the_descriptor(self, nets, runs, source):
        transformer = DeepFeatures(run=str(runs[0].path), test_scales=(32, 40), aggregate="stack")
        paths = list(source["val"].paths)
        with pytest.raises(NotFittedError):
            transformer.transform(paths)
        ours = transformer.fit(paths).transform(paths)
        expected = describe(nets[0], source["val"], test_scales=(32, 40), aggregate="stack")
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        assert clone(transformer).get_params() == transformer.get_params()

    def test_of_weights(self, runs, source, tmp_path):
        weights.save(runs[0].model, tmp_path / "a.npz")
        rows = DeepFeatures(weights=tmp_path / "a.npz", layer="block3_pool", test_scales=(32,))
        assert rows.fit_transform(source["val"].paths[:2]).shape == (2, 16)

    def test_takes_either_a_run_or_weights(self):
        with pytest.raises(ValueError, match="Give either run or weights"):
            DeepFeatures().fit([])


def test_help_and_transfer_import_no_tensorflow():
    code = (
        "import sys, vgg_keras.cli, vgg_keras.features.transfer\n"
        "print([m for m in ('tensorflow', 'keras', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
