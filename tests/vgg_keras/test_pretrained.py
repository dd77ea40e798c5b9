"""Released nets by name, from a local server with small files of the real layouts."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import inspect
import json
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import TRAIN_TINY, encode, overridden, photo, write_folder
from tests.vgg_keras.weights import foreign
from vgg_keras import FeatureExtractor, TrainedNet, ilsvrc, pretrained, vgg, weights
from vgg_keras.cli import main
from vgg_keras.commands.nets import ChosenNet
from vgg_keras.errors import ArgumentError, WeightsError
from vgg_keras.nets import FC_NAMES
from vgg_keras.pretrained import RELEASES, find_release
from vgg_keras.serving.source import describe_source
from vgg_keras.weights import PREPROCESSINGS
from vgg_keras.weights.arrays import write_npz
from vgg_keras.weights.naming import PARTS
from vgg_keras.weights.stored import WeightsMetadata

CLASSES, CROP, WIDTH = 1000, 32, 1 / 64
SMALL = {"crop_size": CROP, "width": WIDTH}
TORCH = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FULL = [release.name for release in RELEASES if not release.name.endswith("-notop")]


def layers_of(release):
    """Weights of a small net, for images in BGR minus the mean."""
    shapes = foreign.kernel_shapes(release.net, CLASSES, CROP, WIDTH)
    layers = foreign.random_weights(shapes, seed=ord(release.net))
    conv_only = release.name.endswith("-notop")
    return {n: w for n, w in layers.items() if not (conv_only and n in FC_NAMES)}


def write_small(release, path):
    """Writes the small net in the layout of the released file."""
    layers = layers_of(release)
    if path.suffix == ".h5":
        foreign.applications_h5(path, layers)
    else:
        tensors = foreign.torch_tensors(foreign.in_torch(layers, *TORCH), foreign.TIMM_FC)
        foreign.safetensors(path, tensors, {"format": "pt"})


class Server(http.server.ThreadingHTTPServer):
    """Serves files of a folder; notes what was asked for."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.asked, self.cut = folder, [], False


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        body = (self.server.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.server.cut else body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    """The small files, by the names of the released ones."""
    folder = tmp_path_factory.mktemp("released")
    for release in RELEASES:
        write_small(release, folder / release.file_name)
    return folder


@pytest.fixture
def server(small_files, tmp_path, monkeypatch):
    """The server in the place of the real ones, with an empty cache."""
    folder = tmp_path / "served"
    folder.mkdir()
    for file in small_files.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(
            pretrained, "RELEASES", tuple(small(one, small_files, url) for one in RELEASES)
        )
        yield server
        server.shutdown()


def small(release, folder, url):
    """The row of the table for the small file, with its own hash."""
    content = (folder / release.file_name).read_bytes()
    algorithm = hashlib.md5 if len(release.digest or "") == 32 else hashlib.sha256
    return dataclasses.replace(
        release,
        url=f"{url}/{release.file_name}",
        digest=release.digest and algorithm(content).hexdigest(),
        train_scale=(32, 64) if release.name.startswith("keras") else (37, 37),
        crop_size=CROP,
        width=WIDTH,
    )


def assert_released(model, name):
    """The model has the layers of the file, for RGB minus the mean."""
    release = find_release(name)
    expected = foreign.in_rgb(layers_of(release))
    found = [layer for layer in model.layers if layer.weights]
    assert found
    for layer in found:
        for got, wanted in zip(layer.get_weights(), expected[layer.name], strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6, err_msg=layer.name)


class TestTable:
    def test_addresses_and_hashes_are_those_of_keras_applications(self):
        of_keras = [one for one in RELEASES if one.name.startswith("keras:")]
        assert {one.net for one in of_keras} == {"D", "E"}
        for release in of_keras:
            build = {"D": keras.applications.VGG16, "E": keras.applications.VGG19}[release.net]
            text = inspect.getsource(inspect.getmodule(build))
            assert f'"{release.file_name}",' in text
            assert f'file_hash="{release.digest}"' in text
            constants = vars(inspect.getmodule(build)).values()
            assert release.url in [one for one in constants if isinstance(one, str)]

    def test_the_hashes_of_torchvisions_files_are_sha256(self):
        of_torch = [one for one in RELEASES if one.name.startswith("torchvision:")]
        assert [one.net for one in of_torch] == ["A", "B", "D", "E"]
        assert [len(one.digest or "") for one in of_torch] == [64, 0, 64, 64]
        assert all(len(one.url.split("/")[-2]) == 40 for one in of_torch)  # of one commit

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("imagenet:A", "torchvision:A"),
            ("imagenet:B", "torchvision:B"),
            ("imagenet:D", "keras:D"),
            ("imagenet:e", "keras:E"),
            ("imagenet:VGG16", "keras:D"),
            ("imagenet:D-notop", "keras:D-notop"),
            ("keras:vgg19-notop", "keras:E-notop"),
            ("torchvision:d", "torchvision:D"),
        ],
    )
    def test_names(self, name, found):
        assert find_release(name).name == found

    @pytest.mark.parametrize("path", ["vgg16.h5", "C:/imagenet", "a/keras:D", "runs/d", "imagenet"])
    def test_paths_are_not_names(self, path):
        assert find_release(path) is None

    @pytest.mark.parametrize("name", ["imagenet:C", "keras:A", "torchvision:D-notop", "keras:"])
    def test_an_unknown_name_is_refused_with_the_names(self, name):
        with pytest.raises(WeightsError, match=f"imagenet:A.*keras:E-notop.*Received: {name}$"):
            find_release(name)

    def test_the_command_lists_the_table(self, server):
        pretrained.fetch(find_release("keras:E-notop"))
        rows = json.loads(CliRunner().invoke(main, ["weights", "--json"]).stdout)["results"]
        assert [row["name"] for row in rows] == [one.name for one in RELEASES]
        assert [row["name"] for row in rows if row["cached"]] == ["keras:E-notop"]
        table = CliRunner().invoke(main, ["weights"]).stdout
        assert all(one.name in table for one in RELEASES)


class TestDownload:
    @pytest.mark.parametrize("name", FULL)
    def test_a_net_is_downloaded_once(self, server, name):
        for _ in range(2):
            assert_released(vgg(name.split(":")[1], **SMALL, weights=name), name)
            assert server.asked == [find_release(name).file_name]

    def test_imagenet_is_the_default_release(self, server):
        assert_released(vgg("D", **SMALL, weights="imagenet"), "keras:D")
        assert_released(vgg("vgg11", **SMALL, weights="imagenet"), "torchvision:A")
        with pytest.raises(WeightsError, match=r"must be one of.*Received: imagenet:C"):
            vgg("C", **SMALL, weights="imagenet")

    def test_the_cache_needs_no_network(self, server):
        vgg("D", **SMALL, weights="imagenet")
        server.shutdown()
        server.server_close()
        assert_released(vgg("D", **SMALL, weights="imagenet"), "keras:D")

    @pytest.mark.parametrize("name", ["keras:D", "keras:E-notop"])
    def test_what_keras_applications_downloaded_is_found(self, server, name, tmp_path):
        release = find_release(name)
        (tmp_path / "home").mkdir()  # as `import keras` does; without it /tmp/.keras is the cache
        keras.utils.get_file(
            release.file_name,
            release.url,
            cache_dir=str(tmp_path / "home"),
            cache_subdir="models",
            file_hash=release.digest,
        )
        server.asked.clear()
        assert set(weights.read(name).layers) == set(layers_of(release))
        assert not server.asked

    @pytest.mark.parametrize("name", ["keras:D", "torchvision:A", "torchvision:B"])
    def test_a_broken_file_in_the_cache_is_replaced(self, server, name):
        path = pretrained.fetch(find_release(name))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        weights.read(name)
        assert path.read_bytes() == whole
        assert len(server.asked) == 2
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("name", ["keras:D", "torchvision:B"])
    @pytest.mark.parametrize("how", ["another file", "cut", "missing"])
    def test_a_wrong_download_is_refused(self, server, name, how):
        release = find_release(name)
        if how == "another file":
            (server.folder / release.file_name).write_bytes(b"<html>Sign in to the network</html>")
        elif how == "missing":
            (server.folder / release.file_name).unlink()
        server.cut = how == "cut"
        with pytest.raises(WeightsError) as caught:
            weights.read(name)
        message = str(caught.value)
        assert f"Download {release.url} by other means and save it as {release.path}" in message
        assert "\n" not in message
        assert not list(release.path.parent.iterdir())

    def test_without_network_the_file_can_be_put_there_by_hand(self, server, small_files):
        release = find_release("imagenet:D")
        server.shutdown()
        server.server_close()
        done = CliRunner().invoke(main, ["convert", "imagenet:D", "x.npz"])
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert done.exit_code == 1
        assert f"{release.url} by other means and save it as {release.path}" in line
        whole = (small_files / release.file_name).read_bytes()
        release.path.write_bytes(whole[:-1])
        message = r"\.h5 is not the released file\. imagenet:D cannot"
        with pytest.raises(WeightsError, match=message):
            weights.read("imagenet:D")
        release.path.write_bytes(whole)
        assert_released(vgg("D", **SMALL, weights="imagenet"), "keras:D")

    def test_a_home_that_cannot_be_written_is_named(self, server, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
        for name in ("keras:D", "imagenet:VGG16"):  # as it was asked for
            message = rf"{name} cannot be downloaded: .*file.*by other"
            with pytest.raises(WeightsError, match=message):
                weights.read(name)

    def test_another_size_is_refused_before_the_download(self, server):
        for arguments in ({"num_classes": 10}, {"crop_size": 64}, {"width": 1 / 32}):
            with pytest.raises(ArgumentError, match="imagenet:D is net D with num_classes=1000"):
                vgg("D", **(SMALL | arguments), weights="imagenet")
        with pytest.raises(ArgumentError, match=r"torchvision:E is net E .* Received: net D"):
            vgg("D", **SMALL, weights="torchvision:E")
        assert not server.asked


class TestWithoutTop:
    @pytest.mark.parametrize("net", ["A", "D"])
    def test_the_map_of_the_last_pooling_for_any_size(self, server, net):
        model = vgg(net, width=WIDTH, include_top=False, weights="imagenet")
        whole = vgg(net, **SMALL, weights=f"imagenet:{net}")
        assert model.output_shape == (None, None, None, 8)
        if net == "D":
            assert server.asked[0].endswith("notop.h5")
        images = np.random.default_rng(0).normal(0, 50, (2, 70, 96, 3)).astype(np.float32)
        expected = keras.Model(whole.input, whole.get_layer("block5_pool").output)(images)
        np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-5)
        assert model(images).shape == (2, 2, 3, 8)

    def test_conv_layers_serve_any_number_of_classes_and_crops(self, server):
        model = vgg("E", 5, 64, WIDTH, include_top=False, weights="imagenet")
        assert_released(model, "keras:E-notop")

    def test_weights_may_be_a_path(self, small_files, tmp_path):
        path = small_files / "vgg13.tv_in1k.safetensors"
        assert_released(vgg("B", **SMALL, weights=path), "torchvision:B")
        assert_released(vgg("B", width=WIDTH, include_top=False, weights=path), "torchvision:B")
        layers = layers_of(find_release("torchvision:B"))
        part = {name: arrays for name, arrays in layers.items() if "block5" not in name}
        tensors = {
            f"{name}/{p}": a
            for name, both in part.items()
            for p, a in zip(PARTS, both, strict=True)
        }
        write_npz(tmp_path / "part.npz", tensors, WeightsMetadata(PREPROCESSINGS["rgb"], "B"))
        with pytest.raises(WeightsError, match=r"part\.npz does not have all conv.*block5_conv1"):
            vgg("B", width=WIDTH, include_top=False, weights=tmp_path / "part.npz")


class TestNet:
    def test_a_released_net_is_loaded_with_its_classes_and_scale(self, server):
        net = TrainedNet.load("imagenet:D")
        assert_released(net.model, "keras:D")
        assert net.class_names == ilsvrc.wnids()
        assert (net.train_scale, net.name) == ((32, 64), "imagenet:D")
        assert TrainedNet.load("imagenet:D", train_scale=40).train_scale == (40, 40)
        assert TrainedNet.load("torchvision:A").train_scale == (37, 37)
        assert describe_source(net)["source"]["weights"] == "imagenet:D"  # and no path

    def test_conv_layers_are_no_net_but_give_features(self, server):
        with pytest.raises(WeightsError, match="keras:D-notop has no FC layers"):
            TrainedNet.load("keras:D-notop")
        extractor = FeatureExtractor.load("keras:D-notop", "block5_pool")
        assert_released(extractor.model, "keras:D-notop")


class TestCommands:
    def invoke(self, *arguments):
        done = CliRunner().invoke(main, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return done

    def test_predict_prints_nothing_but_json_while_it_downloads(self, server, tmp_path):
        image = tmp_path / "photo.jpg"
        image.write_bytes(encode(photo(np.random.default_rng(0), 50, 70)))
        done = self.invoke("predict", "--weights", "imagenet:D", image, "--json")
        found = json.loads(done.stdout)
        assert (found["weights"], found["test_scales"]) == ("imagenet:D", [48])
        assert found["results"][0]["top"][0]["class"] in ilsvrc.wnids()
        assert "Downloading" in done.stderr

    def test_rows_are_cached_beside_the_file(self, server, tmp_path):
        folder = ChosenNet(Path("torchvision:A"), is_folder=False).cache_dir
        assert folder == tmp_path / "home" / "models" / "vgg11.tv_in1k.evaluation"

    def test_convert_takes_a_name(self, server, tmp_path):
        self.invoke("convert", "torchvision:E", tmp_path / "e.weights.h5")
        model = vgg("E", **SMALL)
        model.load_weights(tmp_path / "e.weights.h5")
        assert_released(model, "torchvision:E")

    @pytest.mark.slow
    def test_training_starts_from_a_name(self, server, tmp_path):
        data = write_folder(tmp_path / "data")
        arguments = overridden([*TRAIN_TINY, "--width", WIDTH, "--epochs", 1, "--net", "D"])
        start = ("--init-from", "keras:D-notop", "--init-layers", "matching")
        out = tmp_path / "run"
        rate = ("--learning-rate", 1e-12)
        self.invoke("train", "--data", data, "--out", out, *arguments, *start, *rate)
        found = weights.read(out).layers["block5_conv3"][0]
        expected = layers_of(find_release("keras:D-notop"))["block5_conv3"][0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
