"""ONNX and LiteRT files, run in the runtimes of these formats and compared with the Keras net."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from tests.saved_models.conftest import CLASSES
from tests.tiny import CROP, MEAN, lively_net
from vgg_keras import ilsvrc
from vgg_keras.cli import main
from vgg_keras.errors import ArgumentError, MissingPackageError
from vgg_keras.evaluation.posteriors import make_predict_fn
from vgg_keras.saved_models.errors import ExportError
from vgg_keras.saved_models.export import MODEL_CONFIG, read_metadata
from vgg_keras.saved_models.images import Limits
from vgg_keras.serving import export
from vgg_keras.serving.localise import Localisers

SHAPES = {"crops": [(1, CROP, CROP, 3), (3, CROP, CROP, 3)], "images": [(2, 50, 70, 3)]}


def run_onnx(file, name, images):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == [name]
    outputs = [output.name for output in session.get_outputs()]
    return dict(zip(outputs, session.run(outputs, {name: images}), strict=True))


def run_litert(file, name, images):
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    return litert.Interpreter(str(file)).get_signature_runner()(**{name: images})


def check_parity(net, version, run, suffix):
    """The outputs of both files are those of the net: flip and mean over posteriors included."""
    rng = np.random.default_rng(0)
    predict_fns = {
        "crops": make_predict_fn(net, flip=False),
        "images": make_predict_fn(net, flip=True, map_average="posteriors"),
    }
    for name, predict_fn in predict_fns.items():
        for shape in SHAPES[name]:
            images = rng.uniform(0, 255, shape).astype(np.float32)
            found = run(version / f"{name}{suffix}", name, images)
            assert set(found) == {"score_map", "probabilities"}
            expected = predict_fn(images)
            for output, key in (("score_map", "score_map"), ("probabilities", "posteriors")):
                values = expected[key].numpy()
                np.testing.assert_allclose(found[output], values, atol=1e-5 * abs(values).max())


def test_onnx_files_compute_what_the_net_computes(net, tmp_path):
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    version = export(net, tmp_path / "vgg", format="onnx", map_average="posteriors")
    assert version == tmp_path / "vgg" / "1"
    files = {"crops.onnx", "images.onnx", "class_names.txt", "export.json"}
    assert {file.name for file in version.iterdir()} == files
    assert [p.name for p in (tmp_path / "vgg").iterdir()] == ["1"]  # no files for a server
    metadata = json.loads((version / "export.json").read_text())
    assert metadata["format"] == "onnx"
    assert metadata["class_names"] == list(CLASSES)
    assert metadata["mean"] == list(MEAN)
    assert metadata["flip"]
    assert metadata["map_average"] == "posteriors"
    names = (version / "class_names.txt").read_text(encoding="utf-8").splitlines()
    assert names == [ilsvrc.label(name) for name in CLASSES]
    with pytest.raises(ExportError, match=r"SavedModel.* Received: a version in the format 'onnx'"):
        read_metadata(version)
    check_parity(net, version, run_onnx, ".onnx")
    # They were no constants during the conversion, which would take all memory at full width.
    import onnx

    tensors = {one.name for one in onnx.load(version / "crops.onnx").graph.initializer}
    assert {"fc1_kernel", "fc2_kernel", "predictions_kernel"} <= tensors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "run", "suffix"), [("onnx", run_onnx, ".onnx"), ("litert", run_litert, ".tflite")]
)
def test_both_formats_compute_what_a_net_with_lrn_computes(format, run, suffix, tmp_path):
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    net = lively_net("A-LRN", class_names=CLASSES, train_scale=None)  # S is not needed
    version = export(net, tmp_path / "vgg", format=format, map_average="posteriors")
    check_parity(net, version, run, suffix)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top", 3),
        ("precision", "bfloat16"),
        ("test_scales", 48),
        ("multi_scale", True),
        ("limits", ...),
        ("localisers", ...),
    ],
)
def test_arguments_of_a_saved_model_are_refused(net, name, value, tmp_path):
    if value is ...:
        value = Limits(pixels=9) if name == "limits" else object.__new__(Localisers)
    with pytest.raises(ArgumentError, match=f"{name} .*Received: format='litert'") as caught:
        export(net, tmp_path / "vgg", format="litert", **{name: value})
    assert caught.value.argument == name
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_refused(net, tmp_path):
    with pytest.raises(ArgumentError, match="saved_model, onnx, litert"):
        export(net, tmp_path / "vgg", format="openvino")


def test_a_folder_that_a_server_watches_is_refused(net, tmp_path):
    (tmp_path / MODEL_CONFIG).touch()
    with pytest.raises(ExportError, match=r"TensorFlow Serving.* Received: format='onnx'"):
        export(net, tmp_path, format="onnx")


def test_onnx_without_the_package_says_what_to_install(net, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install tf2onnx"):
        export(net, tmp_path / "vgg", format="onnx")


def test_the_command_line_names_its_flags(net, tmp_path):
    net.save(tmp_path / "net")
    arguments = ["export", "--run", str(tmp_path / "net"), "--out", str(tmp_path / "vgg")]
    result = CliRunner().invoke(main, [*arguments, "--format", "litert", "--max-aspect", "2"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: --max-aspect must be left out"), result.output
