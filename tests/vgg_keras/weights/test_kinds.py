"""A file is recognised by its contents. One that holds no weights is called what it is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import shutil
import tarfile
import zipfile

import pytest

from tests.vgg_keras.weights.test_formats import FOREIGN, assert_equal_layers, given_weights
from vgg_keras import TrainedNet, vgg, weights
from vgg_keras.errors import RunError
from vgg_keras.weights.kinds import KINDS


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("vgg16.pth"))
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 553433881\n" % (b"a" * 64)
NO_WEIGHTS = {
    "a web page": b"<!DOCTYPE html><html>Quota exceeded</html>",
    "a web page (Received by a proxy)": b"\xef\xbb\xbf\r\n <HTML><body>Sign in</body></HTML>",
    "an XML document": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a JSON document": b'{"weight_map": {"features.0.weight": "model-00001.safetensors"}}',
    "a Git LFS pointer": LFS,
    "TorchScript": zipped("net/data.pkl", "net/constants.pkl", "net/code/net.py", "net/data/0"),
    "an empty file": b"",
    "a pickle": pickle.dumps({"features.0.weight": [1.0]}, protocol=4),
    "a zip archive": zipped("vgg16.pth", "README"),
    "a gzip file": gzip.compress(b"weights"),
    "a bzip2 file": bz2.compress(b"weights"),
    "an xz file": lzma.compress(b"weights"),
    "a tar archive": tarred(),
}


@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".h5", ".npz", ".caffemodel", ".safetensors"])
@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_a_file_without_weights_is_called_what_it_is(name, ending, tmp_path):
    path = tmp_path / f"w{ending}"
    path.write_bytes(NO_WEIGHTS[name])
    with pytest.raises(weights.WeightsError, match=rf"w\{ending} is {name.split(' (')[0]}"):
        weights.read(path)


def test_a_saved_model_is_called_what_it_is(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    with pytest.raises(weights.WeightsError, match=r"export is a SavedModel\. .*weights file"):
        weights.read(folder)
    with pytest.raises(RunError, match=r"no saved net: .*It is a SavedModel"):
        TrainedNet.load(folder)
    (folder / "saved_model.pb").unlink()
    with pytest.raises(weights.WeightsError, match="is a folder that is not a run or saved net"):
        weights.read(folder)


def test_a_checkpoint_of_several_files_is_told_by_its_index(tmp_path):
    (tmp_path / "model.ckpt.index").write_bytes(bytes.fromhex("57fb808b247547db"))
    for name in ("model.ckpt", "model.ckpt.index"):
        with pytest.raises(weights.WeightsError, match=rf"{name}: its index is cut off or damaged"):
            weights.read(tmp_path / name)
    for ending in ("data-00000-of-00001", "meta"):
        (tmp_path / f"model.ckpt.{ending}").write_bytes(bytes(100))
        with pytest.raises(weights.WeightsError, match=r"TensorFlow checkpoint\. Give its name wi"):
            weights.read(tmp_path / f"model.ckpt.{ending}")


def test_the_current_folder_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(weights.WeightsError, match="is a folder that is not a run or saved net"):
        weights.read(".")


@pytest.mark.parametrize("name", [*FOREIGN, "ours.keras", "ours.weights.h5"])
def test_the_contents_tell_the_kind_whatever_the_name(name, tmp_path):
    """Files are handed on under other names. Caffe and ONNX models need their ending."""
    w = given_weights("A")
    if name in FOREIGN:
        FOREIGN[name](tmp_path / name, w)
    else:
        model = vgg("A", 7, 64, 1 / 16)
        model.save(tmp_path / name) if ".keras" in name else model.save_weights(tmp_path / name)
    expected, contents = weights.read(tmp_path / name)
    ending = name.rpartition(".")[2]
    other = tmp_path / f"weights.{ending.upper() if ending in ('caffemodel', 'onnx') else 'bin'}"
    shutil.copy(tmp_path / name, other)
    layers, found = weights.read(other, preprocessing=contents.preprocessing)
    assert_equal_layers(layers, expected)
    assert found.family == contents.family


def test_every_kind_is_read_or_has_advice():
    assert all((kind.open is None) == bool(kind.advice) for kind in KINDS)


def test_unknown_contents_are_told_with_the_endings_that_are_read(tmp_path):
    (tmp_path / "w.txt").write_bytes(b"weights of net D")
    with pytest.raises(weights.WeightsError, match=r"read from \.keras, .*Received: '\.txt'"):
        weights.read(tmp_path / "w.txt")
