"""Forms of the files of other projects, beyond those that all nets are read from."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.vgg_keras.weights import foreign
from vgg_keras import weights
from vgg_keras.errors import MissingPackageError
from vgg_keras.weights.preprocessing import PREPROCESSINGS

SIZE = (7, 64, 1 / 16)  # classes, crop size, width


@pytest.fixture(scope="module")
def given():
    return foreign.random_weights(foreign.kernel_shapes("A", *SIZE))


def assert_equal(path, given, **options):
    layers, contents = weights.read(path, **options)
    for name, pair in foreign.in_rgb(given).items():
        for got, wanted in zip(layers[name], pair, strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=name)
    return contents


FORMS = {
    "list": list,
    "tuple": tuple,
    "numbers": lambda pair: dict(enumerate(pair)),  # as Vgg19.save_npy
    "names": lambda pair: dict(zip(("weights", "biases"), pair, strict=True)),
    "column order": lambda pair: [np.asfortranarray(array) for array in pair],
    "big endian": lambda pair: [array.astype(">f4") for array in pair],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_pickled_dictionary_has_several_forms(form, given, tmp_path):
    path = tmp_path / "vgg.npy"
    layers = {foreign.caffe_name(name): FORMS[form](pair) for name, pair in given.items()}
    np.save(path, layers, allow_pickle=True)
    contents = assert_equal(path, given)
    assert contents.preprocessing == PREPROCESSINGS["caffe"]
    assert contents.is_assumed


def test_a_pickled_dictionary_can_have_full_names(given, tmp_path):
    path = tmp_path / "vgg.npy"
    parts = ("kernel", "bias")
    arrays = {f"{n}/{p}": a for n, w in given.items() for p, a in zip(parts, w, strict=True)}
    np.save(path, arrays, allow_pickle=True)
    assert assert_equal(path, given).family == "Keras"


def test_quantised_weights_are_no_floats(given, tmp_path):
    whole = {name: t.astype(np.int8) for name, t in foreign.caffe2_tensors(given).items()}
    foreign.onnx_model(tmp_path / "int8.onnx", whole)
    with pytest.raises(weights.WeightsError, match=r"\(conv1_1_w_0\) must be float, and has"):
        weights.read(tmp_path / "int8.onnx")


def test_numpy_reads_what_stands_for_a_file_of_python_2(given, tmp_path):
    """The files that `foreign` pickles by hand are those of `np.save` in Python 2."""
    foreign.machrisaa_npy(tmp_path / "vgg.npy", given)
    layers = np.load(tmp_path / "vgg.npy", allow_pickle=True, encoding="latin1").item()
    np.testing.assert_array_equal(layers["fc7"][0], given["fc2"][0])


def test_caffes_names_in_a_file_of_keras_do_not_tell_its_input(given, tmp_path):
    named = {foreign.caffe_name(name): pair for name, pair in given.items()}
    foreign.applications_h5(tmp_path / "mine.h5", named)
    with pytest.raises(weights.WeightsError, match=r"mine\.h5 does not tell the preprocessing"):
        weights.read(tmp_path / "mine.h5")
    assert_equal(tmp_path / "mine.h5", given, preprocessing="caffe")


def test_a_model_that_changes_its_input_is_asked_for(given, tmp_path):
    from onnx import helper

    scale = helper.make_node("Mul", ["image", "shape"], ["data"])
    path = tmp_path / "scaled.onnx"
    foreign.onnx_model(path, foreign.caffe2_tensors(given), before=[scale])
    with pytest.raises(weights.WeightsError, match=r"scaled\.onnx does not tell the preprocessing"):
        weights.read(path)
    assert_equal(path, given, preprocessing="caffe")


def test_onnx_matrices_are_read_in_both_layouts(given, tmp_path):
    """FC layers of one size would be read in the wrong one without an error."""
    path = tmp_path / "turned.onnx"
    foreign.onnx_model(path, foreign.caffe2_tensors(given), transposed=False)
    assert_equal(path, given)


def test_onnx_data_can_lie_in_another_file(given, tmp_path):
    foreign.onnx_model(tmp_path / "m.onnx", foreign.caffe2_tensors(given), external="m.data")
    assert (tmp_path / "m.onnx").stat().st_size < 10_000 < (tmp_path / "m.data").stat().st_size
    assert_equal(tmp_path / "m.onnx", given)


def test_gluon_numbers_its_nets(given, tmp_path):
    tensors = foreign.gluon_tensors(given)
    tensors = {name.replace("vgg0_", "vgg12_"): tensor for name, tensor in tensors.items()}
    foreign.onnx_model(tmp_path / "m.onnx", tensors)
    contents = assert_equal(tmp_path / "m.onnx", given, preprocessing="caffe")
    assert (contents.family, contents.left) == ("Gluon", {})


def test_half_precision_of_onnx_is_read(tmp_path, given):
    half = {name: t.astype(np.float16) for name, t in foreign.caffe2_tensors(given).items()}
    foreign.onnx_model(tmp_path / "half.onnx", half)
    layers, _ = weights.read(tmp_path / "half.onnx")
    np.testing.assert_array_equal(layers["fc2"][0], given["fc2"][0].astype(np.float16))


def test_without_onnx_the_message_says_what_to_install(given, tmp_path, monkeypatch):
    foreign.onnx_model(tmp_path / "m.onnx", foreign.caffe2_tensors(given))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"m\.onnx needs the package onnx: pip install"):
        weights.read(tmp_path / "m.onnx")


def test_a_mean_of_matconvnet_is_a_vector_or_an_image(given, tmp_path):
    mean = (100.0, 110.0, 120.0)
    for kind in ("image", "colour", "column"):
        path = tmp_path / f"{kind}.mat"
        foreign.matconvnet(path, given, old=kind == "image", mean=mean, column=kind == "column")
        assert weights.read(path).contents.preprocessing.mean == pytest.approx(mean)


def test_other_layers_of_a_caffe_model_are_named(given, tmp_path):
    path = tmp_path / "bn.caffemodel"
    foreign.caffemodel(path, given, version=2)
    blobs = b"".join(foreign._field(7, foreign._blob(np.ones(4, "f4"), 2)) for _ in range(3))
    layer = foreign._field(1, b"conv1_1/bn") + foreign._field(2, b"BatchNorm") + blobs
    with open(path, "ab") as file:
        file.write(foreign._field(100, layer))
    with pytest.raises(weights.WeightsError, match="conv1_1/bn/0 is surplus; conv1_1/bn/1"):
        weights.read(path)
    contents = assert_equal(path, given, partial=True)
    assert list(contents.left) == ["conv1_1/bn/0", "conv1_1/bn/1", "conv1_1/bn/2"]


def test_parameters_of_a_dag_have_default_names(given, tmp_path):
    path = tmp_path / "dag.mat"
    foreign.dagnn(path, foreign.in_rgb(given), listed=False)
    assert_equal(path, given)
