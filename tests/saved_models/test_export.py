"""The files of an export, and its signatures compared with the Keras net."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from benchmarks.cpp_loader import CppModel, LoaderError
from tests.conftest import encode, photo
from tests.saved_models.conftest import CLASSES
from tests.saved_models.replaying import replay_by
from tests.tiny import CROP, MEAN, lively
from vgg_keras import TrainedNet, ilsvrc
from vgg_keras.cli import main
from vgg_keras.errors import RunError
from vgg_keras.evaluation.posteriors import make_scorer
from vgg_keras.models import fully_convolutional
from vgg_keras.pipelines.errors import ArgumentError, WriteError
from vgg_keras.pipelines.evaluation import grid_origins
from vgg_keras.pipelines.images import decode, rescale
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.saved_models import export as saving
from vgg_keras.saved_models.errors import ExportError
from vgg_keras.saved_models.export import (
    Endpoint,
    class_name_table,
    read_metadata,
    write_version,
)
from vgg_keras.saved_models.images import Limits
from vgg_keras.saved_models.records import examples
from vgg_keras.saved_models.tensors import image_inputs
from vgg_keras.serving import export, load_source, verify

# `vgg_keras.serving.verify` is the function; this is its module.
VERIFY = sys.modules["vgg_keras.serving.verify"]


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def doubling():
    """The endpoint of a small model, for tests of writing."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs))
    example = {"x": np.ones((1, 2), np.float32)}
    spec = tf.TensorSpec((None, 2), tf.float32, "x")
    return {"serving_default": Endpoint(lambda x: {"y": model(x)}, [spec], example)}


class TestFolder:
    def test_an_export_has_the_files_that_a_server_reads(self, exported):
        files = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
        assert files == {
            "saved_model.pb",
            "fingerprint.pb",
            "assets/class_names.txt",
            "assets.extra/tf_serving_warmup_requests",
            "assets.extra/export.json",
            "variables/variables.index",
            "variables/variables.data-00000-of-00001",
        }
        assert sorted(p.name for p in exported.parent.iterdir()) == [
            "1",
            "batching.config",
            "model.config",
        ]
        assert 'name: "tiny"' in (exported.parent / "model.config").read_text()
        modes = {p.stat().st_mode & 0o777 for p in (exported, *exported.rglob("*")) if p.is_dir()}
        assert modes == {0o777 & ~umask()}

    def test_class_names_are_an_asset(self, exported):
        lines = (exported / "assets/class_names.txt").read_text().splitlines()
        assert lines == [ilsvrc.label(name) for name in CLASSES]

    def test_variables_are_stored_once(self, exported, net):
        size = (exported / "variables/variables.data-00000-of-00001").stat().st_size
        assert 0 <= size - 4 * net.model.count_params() < 6000

    def test_metadata_have_the_source_and_the_options(self, exported, net):
        metadata = read_metadata(exported)
        assert metadata["source"] == dict(net.origin)
        assert (metadata["net"], metadata["test_scales"], metadata["mean"]) == (
            "A",
            [40, 48],
            list(MEAN),
        )
        assert metadata["class_names"] == list(CLASSES)

    def test_signatures_are_named(self, served):
        found = {
            name: ({*s.inputs}, {*s.outputs}, s.method_name.rpartition("/")[2])
            for name, s in served.signatures.items()
            if not name.startswith("__")
        }
        pixels = {"score_map", "probabilities"}
        assert found == {
            "serving_default": (
                {"image_bytes"},
                {"classes", "class_names", "probabilities", "error"},
                "predict",
            ),
            "images": ({"images"}, pixels, "predict"),
            "crops": ({"crops"}, pixels, "predict"),
            "features": ({"image_bytes"}, {"features", "error"}, "predict"),
            "classify": ({"inputs"}, {"classes", "scores"}, "classify"),
        }

    def test_signatures_are_valid_to_tensorflow_serving(self, served):
        names = ("serving_default", "images", "crops", "features", "classify")
        valid = tf.compat.v1.saved_model.is_valid_signature
        assert all(valid(served.signatures[name]) for name in names)


class TestSignatures:
    def test_images_of_any_size_are_the_dense_protocol(self, net, served):
        scores, maps = make_scorer(net), fully_convolutional(net.model)
        rng = np.random.default_rng(2)
        for size in ((224, 224), (224, 600), (333, 500), (768, 1024), (32, 32), (100, 33)):
            image = rng.uniform(0, 255, (1, *size, 3)).astype(np.float32)
            found = served.run("images", {"images": image})
            np.testing.assert_allclose(found["probabilities"], scores(image[:, None]), atol=1e-5)
            expected = maps(image - np.float32(MEAN))["score_map"].numpy()
            # Relative to the greatest score; rounding in convolutions depends on the processor.
            allowed = 1e-5 * np.abs(expected).max()
            np.testing.assert_allclose(found["score_map"], expected, rtol=0, atol=allowed)

    def test_arrays_of_other_shapes_are_refused(self, served):
        for name, shape in (
            ("images", (1, 31, 80, 3)),
            ("images", (1, 80, 31, 3)),
            ("images", (0, 80, 80, 3)),
            ("crops", (1, 40, 32, 3)),
            ("crops", (0, 32, 32, 3)),
        ):
            with pytest.raises(LoaderError, match=rf"{name} must be .*\]?{shape[0]} {shape[1]}"):
                served.run(name, {name: np.zeros(shape, np.float32)})

    def test_crops_are_classified_by_the_net_alone(self, net, served, images):
        crops = []
        for encoded in images:
            image = rescale(decode(encoded), 48).numpy()
            (row,), (column,) = grid_origins(image.shape[:2], CROP, 1).numpy()
            crops.append(image[row : row + CROP, column : column + CROP])
        found = served.run("crops", {"crops": np.stack(crops)})
        expected = tf.nn.softmax(net.logits(np.stack(crops) - np.float32(MEAN)))
        np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)

    def test_features_are_those_of_appendix_b(self, net, served, images):
        penultimate = keras.Model(net.model.input, net.model.get_layer("fc2").output)
        found = served.run("features", image_inputs(images))["features"]
        assert found.shape == (len(images), 256)
        for encoded, descriptor in zip(images, found, strict=True):
            views = []
            for scale in (40, 48):
                image = rescale(decode(encoded), scale)[None].numpy() - np.float32(MEAN)
                views += [image, image[:, :, ::-1]]
            expected = np.mean([penultimate(view).numpy().mean((0, 1, 2)) for view in views], 0)
            assert expected.any()
            expected /= np.linalg.norm(expected)
            np.testing.assert_allclose(descriptor, expected, atol=1e-5)

    def test_classify_agrees_with_serving_default(self, served, images):
        found = served.run("classify", examples(images))
        expected = served.run("serving_default", image_inputs(images))
        assert found["classes"].tolist() == expected["class_names"].tolist()
        np.testing.assert_allclose(found["scores"], expected["probabilities"], atol=1e-6)

    @pytest.mark.slow
    def test_bfloat16_halves_the_size(self, net, served, exported, images, tmp_path):
        path = export(net, tmp_path / "half", top=3, test_scales=(40, 48), precision="bfloat16")
        sizes = [
            (p / "variables/variables.data-00000-of-00001").stat().st_size for p in (path, exported)
        ]
        assert sizes[0] < 0.52 * sizes[1]
        half = CppModel(path)
        inputs = {"images": rescale(decode(images[0]), 48)[None].numpy()}
        found = half.run("images", inputs)["probabilities"]
        whole = served.run("images", inputs)["probabilities"]
        assert 0 < np.abs(found - whole).max() < 0.02
        half.close()


class TestVersions:
    def test_numbers_ascend_and_none_is_overwritten(self, tmp_path):
        endpoints = doubling()
        folder = tmp_path / "net"
        (folder / "notes").mkdir(parents=True)
        assert write_version(folder, endpoints).name == "1"
        assert write_version(folder, endpoints, version=7).name == "7"
        assert write_version(folder, endpoints).name == "8"
        before = (folder / "7/saved_model.pb").stat().st_mtime_ns
        with pytest.raises(ExportError, match=r"7 exists already.*Give another version"):
            write_version(folder, endpoints, version=7)
        for version in (0, 2**63):
            with pytest.raises(
                ArgumentError, match=rf"from 1 to 2\*\*63 - 1\. Received: {version}"
            ):
                write_version(folder, endpoints, version=version)
        for name in ("..", 'qu"ote', "a:b", "ünï"):
            with pytest.raises(
                ExportError, match=r"the name of the model on the server.*Received: "
            ):
                write_version(tmp_path / name if name != ".." else "/", endpoints)
        assert (folder / "7/saved_model.pb").stat().st_mtime_ns == before
        assert {p.name for p in folder.iterdir()} == {
            "1",
            "7",
            "8",
            "notes",
            "model.config",
            "batching.config",
        }

    def test_a_version_written_at_the_same_time_is_not_overwritten(self, tmp_path, monkeypatch):
        endpoints = doubling()
        write = saving._write_model

        def meanwhile(*arguments):
            write(*arguments)
            (tmp_path / "net/1").mkdir(exist_ok=True)
            (tmp_path / "net/1/other").touch()

        monkeypatch.setattr(saving, "_write_model", meanwhile)
        assert write_version(tmp_path / "net", endpoints).name == "2"
        with pytest.raises(ExportError, match="exists already"):
            write_version(tmp_path / "net", endpoints, version=1)
        assert [p.name for p in (tmp_path / "net/1").iterdir()] == ["other"]

    def test_server_files_of_the_user_are_not_overwritten(self, tmp_path):
        (tmp_path / "model.config").write_text("mine")
        write_version(tmp_path, doubling())
        assert (tmp_path / "model.config").read_text() == "mine"

    def test_a_full_disk_leaves_nothing_behind(self, tmp_path):
        endpoints = doubling()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            with pytest.raises(WriteError, match=r"cannot be written to .*net"):
                write_version(tmp_path / "net", endpoints)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert {p.name for p in (tmp_path / "net").iterdir()} == {"model.config", "batching.config"}

    @pytest.mark.slow
    def test_a_server_never_sees_half_a_version(self, tmp_path):
        """One process watches the folder; another writes versions and is killed while it writes."""
        watch = """
import pathlib, sys, time
folder, seen = pathlib.Path(sys.argv[1]), set()
while not (folder / "stop").exists():
    for version in folder.iterdir():
        if version.name.isdecimal() and version.name not in seen:
            seen.add(version.name)
            for part in ("saved_model.pb", "variables/variables.index", "assets.extra/export.json"):
                assert (version / part).stat().st_size, (version, part)
print(sorted(seen))
"""
        writer = """
import sys
from tests.saved_models.test_export import doubling
from vgg_keras.saved_models.export import write_version
endpoints = doubling()
while True:
    write_version(sys.argv[1], endpoints)
"""
        folder = tmp_path / "net"
        folder.mkdir()
        run = [sys.executable, "-c"]
        watcher = subprocess.Popen([*run, watch, folder], stdout=subprocess.PIPE, text=True)
        writing = subprocess.Popen([*run, writer, folder], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (folder / "3").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        while not list(folder.glob(".export-*/version/variables")) and time.monotonic() < deadline:
            time.sleep(0.001)
        writing.kill()
        writing.wait()
        (folder / "stop").touch()
        seen = watcher.communicate(timeout=60)[0]
        assert watcher.returncode == 0
        assert "'3'" in seen
        left = list(folder.glob(".export-*"))
        assert left, "the writer must be killed while it writes"
        done = write_version(folder, doubling())
        assert int(done.name) >= 4
        assert CppModel(done).signatures["serving_default"]


class TestRefused:
    def test_bad_arguments_are_refused_before_anything_is_written(self, net, tmp_path, monkeypatch):
        for options, message in (
            ({"precision": "float16"}, "precision must be one of"),
            ({"top": 0}, "top must be 1 or more"),
            ({"test_scales": (16,)}, "at least the crop size, 32"),
            ({"map_average": "median"}, "map_average must be one of"),
            ({"version": -1}, "version must be from 1"),
        ):
            with pytest.raises(ValueError, match=message):
                export(net, tmp_path / "net", **options)
        for name in ("a\nb", "a\n", "a\r", ""):
            with pytest.raises(ExportError, match=r"one line, not empty\. Received: "):
                class_name_table(tmp_path, ["good", name])
        for limits in ({"pixels": 0}, {"pixels": 10**20}, {"aspect": 0.5}, {"aspect": np.inf}):
            with pytest.raises(ValueError, match=r"must be from 1 to .*Received: "):
                Limits(**limits)
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(ValueError, match=r"KERAS_BACKEND=tensorflow.*Received: jax"):
            export(net, tmp_path / "net")
        assert not (tmp_path / "net").exists()

    def test_a_folder_that_is_not_an_export_is_refused(self, exported, tmp_path):
        with pytest.raises(ExportError, match=r"not an export of vgg-keras"):
            read_metadata(tmp_path)
        (tmp_path / "assets.extra").mkdir()
        for text in ("", "{", "[]", "{}"):
            (tmp_path / "assets.extra/export.json").write_text(text)
            with pytest.raises(ExportError, match=r"not an export|export\.json cannot be read"):
                read_metadata(tmp_path)
        with pytest.raises(ExportError, match=r"Give a version folder, such as .*tiny/1\."):
            read_metadata(exported.parent)


class TestCommands:
    @pytest.mark.slow
    def test_an_export_of_the_command_line_verifies(self, net, photos, tmp_path):
        out = tmp_path / "exports/net"
        arguments = ["export", "--run", net.name, "--out", str(out)]
        done = CliRunner().invoke(main, [*arguments, "--json", "--no-flip", "--max-pixels", "9000"])
        assert done.exit_code == 0, done.output
        path = json.loads(done.stdout)["results"][0]["path"]
        assert path == str(out / "1")
        done = CliRunner().invoke(main, [*arguments, "--version", "1"])
        assert done.exit_code == 1
        assert "exists already" in done.output
        done = CliRunner().invoke(
            main, ["verify", path, *map(str, photos[:2]), "--repeats", "1", "--json"]
        )
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert [check["signature"] for check in found["results"]] == [
            "serving_default",
            "classify",
            "features",
            "images",
            "images",
            "crops",
        ]
        assert found["load_seconds"] > 0
        assert all(check["difference"] <= 1e-5 for check in found["results"])

    @pytest.mark.slow
    def test_verify_detects_differences(self, net, exported, served, tmp_path, monkeypatch):
        """A changed bias, changed class names, bad photos, and another net."""
        changed = TrainedNet.load(net.name)
        bias = changed.model.get_layer("fc1").bias
        bias.assign(bias + 0.01)
        monkeypatch.setattr(VERIFY, "replay", replay_by(served))
        checks, _ = verify(exported, changed, repeats=1)
        assert not any(check.passed for check in checks)
        copy = shutil.copytree(exported, tmp_path / "copy")
        names = copy / "assets/class_names.txt"
        lines = names.read_text().splitlines()
        names.write_text("".join(f"{name}\n" for name in ["unknown", *reversed(lines[1:])]))
        renamed = CppModel(copy)
        monkeypatch.setattr(VERIFY, "replay", replay_by(renamed))
        checks, _ = verify(copy, net, repeats=1)
        renamed.close()
        failed = {check.signature for check in checks if not check.passed}
        assert failed == {"serving_default", "classify"}
        file = tmp_path / "photo.gif"
        file.write_bytes(encode(photo(np.random.default_rng(0), 50, 60), "GIF"))
        with pytest.raises(ArgumentError, match=r"photo.gif cannot be read as a JPEG or PNG"):
            verify(exported, net, [file], repeats=1)
        file.write_bytes(encode(photo(np.random.default_rng(0), 50, 60))[:-300])
        with pytest.raises(ArgumentError, match=r"photo.gif is broken"):
            verify(exported, net, [file], repeats=1)
        with pytest.raises(RunError, match=r"another net than .*: class_names differ"):
            verify(exported, dataclasses.replace(changed, class_names=tuple("abcdefg")))

    def test_a_weights_file_is_exported(self, net, tmp_path):
        weights = tmp_path / "net.weights.h5"
        net.model.save_weights(weights)
        out = tmp_path / "net"
        done = CliRunner().invoke(
            main, ["export", "--weights", str(weights), "--train-scale", "40", "--out", str(out)]
        )
        assert done.exit_code == 0, done.output
        metadata = read_metadata(out / "1")
        assert metadata["source"] == {
            "weights": str(weights),
            "input": "RGB in 0..255 minus (123.68, 116.779, 103.939), assumed for models of "
            "vgg_keras",
        }
        assert metadata["train_scale"] == [40, 40]
        assert metadata["test_scales"] == [40]
        again = load_source(metadata)
        assert again.train_scale == (40, 40)
        for mine, its in zip(net.model.get_weights(), again.model.get_weights(), strict=True):
            if mine.dtype == np.float32:  # skips the seeds of dropout
                np.testing.assert_array_equal(mine, its)


def _described(folder, *extra):
    """Rewrites the metadata of an export, as another version of the package could have written."""
    file = folder / "assets.extra/export.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(extra)))
    return folder


@pytest.fixture(scope="module")
def fitted():
    """A net from a model in memory, with a soft-max, and one with the same weights without."""
    options = {"mean": MEAN, "class_names": CLASSES, "train_scale": (32, 48)}
    model = lively("A", classifier_activation="softmax")
    logits = lively("A")
    logits.set_weights(model.get_weights())
    return TrainedNet.of_model(model, **options), TrainedNet.of_model(logits, **options)


@pytest.fixture(scope="module")
def path(fitted, tmp_path_factory):
    return export(fitted[0], tmp_path_factory.mktemp("exports") / "fitted", top=3)


class TestSources:
    """Nets of every origin, and how `verify` finds them again."""

    @pytest.mark.slow
    def test_with_and_without_soft_max_the_outputs_are_the_same(
        self, fitted, path, images, photos, tmp_path, monkeypatch, capfd
    ):
        assert "posteriors" in {layer.name for layer in fitted[0].model.layers}
        assert "posteriors" not in {layer.name for layer in fitted[1].model.layers}
        models = [CppModel(path), CppModel(export(fitted[1], tmp_path / "logits", top=3))]
        pixels = rescale(decode(images[0]), 48)[None].numpy()
        for signature, inputs in (
            ("serving_default", image_inputs(images)),
            ("images", {"images": pixels}),
            ("crops", {"crops": pixels[:, :CROP, :CROP]}),
        ):
            found, expected = (model.run(signature, inputs) for model in models)
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array)
        monkeypatch.setattr(VERIFY, "replay", replay_by(models[0]))
        capfd.readouterr()
        checks, _ = verify(path, fitted[1], photos[:1], repeats=1, verbose=0)
        assert all(check.passed for check in checks)
        assert "images/s" not in capfd.readouterr().err
        for model in models:
            model.close()

    def test_a_model_in_memory_must_be_given(self, fitted, path):
        assert read_metadata(path)["source"] == {"model": "A"}
        with pytest.raises(
            ExportError, match=r"net must be given \(`net=`\).*model in memory, 'A'"
        ):
            verify(path)

    def test_verify_finds_the_run(self, net, exported, served, photos, monkeypatch):
        monkeypatch.setattr(VERIFY, "replay", replay_by(served))
        checks, _ = verify(exported, photos=photos[:1], repeats=1)
        assert len(checks) == 5
        assert all(check.passed for check in checks)

    def test_verify_finds_the_weights_file_of_an_older_export(self, fitted, path, tmp_path):
        """The source names a statistics file and a training scale."""
        weights, statistics = tmp_path / "net.weights.h5", tmp_path / "statistics.json"
        fitted[0].model.save_weights(weights)
        dataclasses.replace(ILSVRC, mean=MEAN).save(statistics)
        source = {"weights": str(weights), "statistics": str(statistics), "train_scale": [32, 48]}
        copy = shutil.copytree(path, tmp_path / "copy")
        again = load_source(read_metadata(_described(copy, ("source", source))))
        assert (again.mean, again.train_scale, again.class_names) == (MEAN, (32, 48), CLASSES)
        for mine, its in zip(again.logits.weights, fitted[1].model.weights, strict=True):
            np.testing.assert_array_equal(mine, its)

    def test_verify_finds_a_weights_file_with_its_arguments(self, fitted, tmp_path):
        weights = tmp_path / "net.weights.h5"
        fitted[0].model.save_weights(weights)
        net = TrainedNet.load(weights, net="A", mean=MEAN, class_names=CLASSES, train_scale=40)
        metadata = read_metadata(export(net, tmp_path / "net"))
        assert metadata["source"] == {
            "weights": str(weights),
            "net": "A",
            "source_mean": list(MEAN),
            "input": "RGB in 0..255 minus (120, 110, 100)",
        }
        again = load_source(metadata)
        assert again.metadata() == net.metadata()
        assert (again.mean, again.class_names) == (net.mean, net.class_names)


@pytest.mark.slow
def test_functions_are_not_hidden_by_modules_of_their_names():
    """The names are those of the functions, in whatever order the modules are imported."""
    code = (
        "import sys, vgg_keras.serving; assert 'tensorflow' not in sys.modules;"
        "import vgg_keras.serving.export, vgg_keras.serving.verify;"
        "from vgg_keras.serving import export, verify, Localisers; import vgg_keras;"
        "assert callable(export) and callable(verify);"
        "assert vgg_keras.export is export and vgg_keras.verify is verify"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
