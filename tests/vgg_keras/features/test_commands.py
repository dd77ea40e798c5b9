"""`features`, `transfer`, `similar` and `DeepFeatures`, from image files to printed results."""

from __future__ import annotations

import json
import pickle
import shutil
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

from tests.tiny import MEAN, lively
from vgg_keras import weights
from vgg_keras.commands.features import features, transfer
from vgg_keras.commands.similar import similar
from vgg_keras.errors import ArgumentError, FeaturesError
from vgg_keras.features import (
    DeepFeatures,
    FeatureExtractor,
    Features,
    compute_descriptors,
    extract_features,
    nearest,
    query_descriptors,
)
from vgg_keras.features.similar import classes_of_query
from vgg_keras.metadata import rounded
from vgg_keras.trained import TrainedNet


def invoke(command, *arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], obj=False)


@pytest.fixture(scope="module")
def file(folders, trained, images, tmp_path_factory):
    """The file that `features` writes for both runs, stacked."""
    out = tmp_path_factory.mktemp("out") / "f.parquet"
    done = invoke(
        features,
        "--run",
        folders[0],
        "--run",
        folders[1],
        "--data",
        f"folder:{images}",
        "--test-scales",
        "32,40",
        "--aggregate",
        "max",
        "--out",
        out,
        "--json",
    )
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert (result["images"], result["dimensions"]) == (36, 512)
    assert "images/s" in done.stderr
    return out


class TestFeatures:
    def test_features_are_those_of_the_library(self, file, extractors, source):
        saved = Features.load(file)
        expected = extract_features(extractors, source, test_scales=(32, 40), aggregate="max")
        np.testing.assert_allclose(saved.values, expected.values, atol=1e-6)
        assert saved.names == expected.names
        assert saved.metadata == expected.metadata

    def test_a_killed_command_continues(self, folders, trained, images, tmp_path):
        """With row caches as a kill leaves them, with some complete rows, the file is the same."""
        cache = tmp_path / "rows"
        arguments = (
            "--run",
            folders[0],
            "--data",
            f"folder:{images}",
            "--test-scales",
            "32",
            "--cache-dir",
            cache,
            "--out",
        )
        assert invoke(features, *arguments, tmp_path / "a.npy").exit_code == 0
        for file in cache.glob("*.npy"):
            rows = np.load(file, mmap_mode="r+")
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
    def test_arguments_that_exclude_each_other_are_refused(self, arguments, message):
        done = invoke(features, "--data", "shapes", *arguments)
        assert done.exit_code == 1
        assert message in done.output


class TestTransfer:
    def test_results_are_printed_and_written(self, file, tmp_path):
        arguments = ("--features", file, "--protocol", "caltech101", "--train-per-class", 8)
        out = tmp_path / "r.json"
        done = invoke(transfer, *arguments, "--json", "--out", out)
        assert done.exit_code == 0, done.output
        (result,) = json.loads(done.stdout)["results"]
        saved = json.loads(out.read_text())
        assert set(saved["recognised"]) == {"images", "labels", "splits"}
        assert result == rounded({key: saved[key] for key in saved if key != "recognised"})
        assert result["mean_class_recall"] > 80  # three colours, which any net distinguishes
        assert len(result["of_splits"]) == 3
        assert result["spread"] == pytest.approx(np.std(result["of_splits"], ddof=1), rel=1e-4)
        text = invoke(transfer, *arguments).stdout
        assert f"mean class recall {result['mean_class_recall']:.1f} ± " in text

    def test_several_files_are_stacked(self, file):
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
        (result,) = json.loads(done.stdout)["results"]
        assert result["dimensions"] == 1024
        assert result["C"] == [1.0]
        assert result["split"] == "val"

    def test_scores_of_unlabelled_images_are_submitted(self, file, folders, images, tmp_path):
        photos = tmp_path / "photos"
        photos.mkdir()
        for i, image in enumerate(sorted((images / "val").rglob("*.jpg"))):
            shutil.copy(image, photos / f"t{i:02}.jpg")
        runs = ("--run", folders[0], "--run", folders[1])
        options = ("--test-scales", "32,40", "--aggregate", "max", "--out")
        test = tmp_path / "test.npy"
        done = invoke(features, *runs, photos, *options, test)
        assert done.exit_code == 0, done.output
        found = Features.load(test)
        assert (len(found), found.targets.shape[1]) == (12, 0)
        assert found.metadata["data"] == str(photos)
        saved = Features.load(file).of_split("val")
        rows = np.argsort(saved.names)
        np.testing.assert_allclose(found.values, saved.values[rows], atol=1e-6)
        out = "--submission", tmp_path / "Main"
        command = (transfer, "--features", file, "--protocol", "voc2012", "--c-grid", "1")
        done = invoke(*command, "--test", test, *out, "--json")
        (result,) = json.loads(done.stdout)["results"]
        assert (result["images"], result["train_images"], result["C"]) == (12, 36, [1])
        assert "mean_ap" not in result
        assert (result["submission"], result["test_files"]) == (str(out[1]), [str(test)])
        names = sorted(one.name for one in out[1].iterdir())
        assert names == sorted(f"comp2_cls_test_{name}.txt" for name in saved.class_names)
        lines = (out[1] / names[0]).read_text().splitlines()
        assert [line.split()[0] for line in lines] == [f"t{i:02}" for i in range(12)]
        scores = [float(line.split()[1]) for line in lines]
        assert set(np.argsort(scores)[-4:]) == {0, 1, 2, 3}  # the images of the first class
        done = invoke(*command, "--test", test, *out)
        assert done.stdout == f"{out[1]}: voc2012, scores of 12 images, trained on 36, C = 1\n"
        for given, message in (
            (("--test", test), "--test and --image-set go with --submission."),
            ((*out, "--test", test, "--num-splits", 2), "--num-splits must not be given with"),
            ((*out, "--test", file), "Test images must "),
            (out, "images of the split 'test' are needed. Received: train, val"),
        ):
            assert message in invoke(*command, *given).output

    def test_missing_files_and_splits_are_named(self, file, tmp_path):
        done = invoke(transfer, "--features", tmp_path / "no.npy", "--protocol", "custom")
        assert done.exit_code == 1
        assert "There is no" in done.output
        done = invoke(transfer, "--features", file, "--protocol", "voc2007")
        assert "needs images of the splits train, val, test. Received: train, val" in done.output


class TestSimilar:
    def test_an_image_is_most_similar_to_itself_and_a_sheet_is_drawn(self, file, images, tmp_path):
        images = [images / "train/red/003.jpg", images / "val/blue/001.jpg"]
        sheet = tmp_path / "sheet.jpg"
        done = invoke(similar, *images, "--features", file, "--top", 3, "--sheet", sheet, "--json")
        assert done.exit_code == 0, done.output
        for image, found in zip(images, json.loads(done.stdout)["results"], strict=True):
            first, *_ = found["similar"]
            assert len(found["similar"]) == 3
            assert str(image).endswith(first["image"])
            assert first["similarity"] == pytest.approx(1, abs=1e-5)
            assert first["labels"] == [image.parent.name]
        with Image.open(sheet) as drawn:
            assert drawn.format == "JPEG"
            pixels = np.asarray(drawn.convert("RGB")).astype(int)
        for colour in ((0x1F, 0x5F, 0x99), (0x2B, 0x6E, 0x2F)):  # the query, and its class
            assert (np.abs(pixels - colour).max(-1) < 6).sum() > 500
        text = invoke(similar, images[0], "--features", file, "--top", 1).stdout
        assert "1.000  train/red/003.jpg  red" in text

    def test_a_query_has_the_class_of_the_same_image_or_of_its_folder(self, file, images):
        saved = Features.load(file)
        row = saved.names.index("train/red/003.jpg")
        assert classes_of_query("copy.jpg", saved, row, 1.0) == ["red"]
        assert classes_of_query(images / "val/blue/new.jpg", saved, row, 0.9) == ["blue"]
        assert classes_of_query("photos/new.jpg", saved, row, 0.9) == []

    def test_similarity_is_the_cosine(self, file):
        saved = Features.load(file)
        indices, cosines = nearest(saved.values[:4], saved, 7)
        products = saved.values[:4].astype(float) @ saved.values.T.astype(float)
        np.testing.assert_allclose(cosines, -np.sort(-products, 1)[:, :7], atol=1e-6)
        assert (indices[:, 0] == np.arange(4)).all()

    def test_another_net_is_refused(self, file, folders, trained, images):
        image = images / "train/red/003.jpg"
        moved = ("--moved-to", folders[1], "--moved-to", folders[0])
        done = invoke(similar, image, "--features", file, *moved)
        assert done.exit_code == 1
        assert "is not the net that computed these features" in done.output

    def test_a_saved_net_is_found_for_features_of_a_net_in_memory(self, source, tmp_path):
        net = TrainedNet.of_model(lively("A"), mean=MEAN)
        found = extract_features(net, source, "val", test_scales=32)
        paths = source["val"].paths[:2].tolist()
        with pytest.raises(FeaturesError, match="Save its net and give the folder as moved_to"):
            query_descriptors(found, paths)
        net.save(tmp_path / "saved")
        rows = query_descriptors(found, paths, moved_to=[tmp_path / "saved"])
        np.testing.assert_allclose(rows, found.values[:2], atol=1e-6)

    @pytest.mark.parametrize("key", ["source_mean", "statistics"])
    def test_the_mean_of_a_weights_file_is_read_from_metadata(self, source, tmp_path, key):
        """Files of earlier versions have it under `statistics`."""
        file = tmp_path / "a.npz"
        weights.save(lively("A"), file)
        net = FeatureExtractor.load(file, mean=MEAN, preprocessing="caffe")
        found = extract_features(net, source, "val", test_scales=32)
        found.metadata[key] = found.metadata.pop("source_mean")
        rows = query_descriptors(found, source["val"].paths[:2].tolist())
        np.testing.assert_allclose(rows, found.values[:2], atol=1e-6)

    def test_features_of_boxes_are_refused(self, file, images):
        saved = Features.load(file)
        saved.metadata["members"][0]["region"] = "box"
        with pytest.raises(FeaturesError, match="of boxes too"):
            query_descriptors(saved, [images / "train/red/003.jpg"])


class TestDeepFeatures:
    def test_deep_features_work_in_a_pipeline(self, folders, trained, source):
        train, val = source["train"], source["val"]
        machine = Pipeline(
            [
                ("features", DeepFeatures(folders[0], test_scales=(32,))),
                ("svm", LinearSVC(C=1e4)),
            ]
        )
        machine.fit(train.paths, train.labels)
        copy = pickle.loads(pickle.dumps(machine))
        np.testing.assert_array_equal(copy.predict(val.paths), machine.predict(val.paths))
        assert len(pickle.dumps(machine)) < 50_000  # the net is loaded again

    def test_transform_returns_descriptors(self, extractors, folders, trained, source):
        transformer = DeepFeatures(str(folders[0]), test_scales=(32, 40), aggregate="stack")
        paths = list(source["val"].paths)
        with pytest.raises(NotFittedError):
            transformer.transform(paths)
        ours = transformer.fit(paths).transform(paths)
        expected = compute_descriptors(
            extractors[0], source["val"], test_scales=(32, 40), aggregate="stack"
        )
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        assert clone(transformer).get_params() == transformer.get_params()

    def test_a_weights_file_is_accepted(self, folders, trained, source, tmp_path):
        weights.save(trained[0].model, tmp_path / "a.npz")
        rows = DeepFeatures(tmp_path / "a.npz", layer="block3_pool", test_scales=(32,))
        assert rows.fit_transform(source["val"].paths[:2]).shape == (2, 16)

    def test_a_trained_net_is_accepted(self, trained, folders, source):
        paths = list(source["val"].paths)
        transformer = DeepFeatures(trained[0], test_scales=32)
        expected = DeepFeatures(folders[0], test_scales=32).fit_transform(paths)
        np.testing.assert_allclose(transformer.fit_transform(paths), expected, atol=1e-6)
        assert clone(transformer).net is trained[0]
        with pytest.raises(pickle.PicklingError, match=r"Save the net with net\.save"):
            pickle.dumps(transformer)
        with pytest.raises(ArgumentError, match="preprocessing goes with a weights file"):
            DeepFeatures(trained[0], preprocessing="caffe").fit(paths)

    def test_there_is_no_output_by_default(self, folders, trained, source, capsys):
        paths = list(source["val"].paths)[:2]
        DeepFeatures(folders[0], test_scales=32).fit_transform(paths)
        assert capsys.readouterr().err == ""
        DeepFeatures(folders[0], test_scales=32, verbose=1).fit_transform(paths)
        assert "2/2 images" in capsys.readouterr().err


def test_help_and_transfer_do_not_import_tensorflow():
    code = (
        "import sys, vgg_keras.cli, vgg_keras.features, vgg_keras.features.svm\n"
        "print([m for m in ('tensorflow', 'keras', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
