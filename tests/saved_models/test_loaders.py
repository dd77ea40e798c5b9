"""An export in the C++ loader: from a C program, and through the C API from Python."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.cpp_loader import CppModel, LoaderError
from tests.conftest import encode
from tests.saved_models.conftest import CLASSES
from vgg_keras import ilsvrc
from vgg_keras.evaluation.predict import predict
from vgg_keras.saved_models.tensors import image_inputs

SOURCE = "tests/saved_models/serve.c"


@pytest.fixture(scope="module")
def expected(net, photos):
    """Classes and posteriors of the photos by the Keras net, with the options of the export."""
    return predict(net, photos, test_scales=(40, 48)).top(3)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcc"), reason="needs a C compiler")
def test_a_c_program_agrees_with_keras(exported, served, photos, expected, tmp_path, request):
    program = tmp_path / "serve"
    libraries = tf.sysconfig.get_lib()
    subprocess.run(
        [
            "gcc",
            "-Wall",
            "-Werror",
            request.config.rootpath / SOURCE,
            "-o",
            program,
            f"-I{tf.sysconfig.get_include()}",
            f"-L{libraries}",
            f"-Wl,-rpath,{libraries}",
            "-l:libtensorflow_cc.so.2",
            "-l:libtensorflow_framework.so.2",
        ],
        check=True,
    )
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photos[0].read_bytes()[:500])
    signature = served.signatures["serving_default"]
    names = [signature.inputs["image_bytes"].name]
    names += [
        signature.outputs[k].name for k in ("classes", "class_names", "probabilities", "error")
    ]
    command = [program, exported, *names, *photos[:3], broken, *photos[3:]]
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    assert "libtensorflow_cc" in linked
    assert "python" not in linked.replace(str(libraries), "")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    error, *nothing = lines.pop(3)
    assert "cannot be read" in error
    assert nothing == ["-1  0"] * 3
    for (error, *found), classes, posteriors in zip(lines, *expected, strict=True):
        assert error == ""
        assert [int(part.split()[0]) for part in found] == list(classes)
        labels = [part.split(maxsplit=1)[1].rsplit(maxsplit=1)[0] for part in found]
        assert labels == [ilsvrc.label(CLASSES[k]) for k in classes]
        values = [float(part.rsplit(maxsplit=1)[1]) for part in found]
        np.testing.assert_allclose(values, posteriors, atol=1e-5)


def test_a_batch_gives_the_same_as_single_images(served, images, expected):
    together = served.run("serving_default", image_inputs(images))
    np.testing.assert_array_equal(together["classes"], expected[0])
    np.testing.assert_allclose(together["probabilities"], expected[1], atol=1e-5)
    for i, image in enumerate(images):
        alone = served.run("serving_default", image_inputs([image]))
        np.testing.assert_allclose(
            alone["probabilities"][0], together["probabilities"][i], atol=1e-6
        )


def test_an_empty_batch_gives_an_empty_answer(served):
    found = served.run("serving_default", image_inputs([]))
    assert {name: array.shape for name, array in found.items()} == {
        "classes": (0, 3),
        "class_names": (0, 3),
        "probabilities": (0, 3),
        "error": (0,),
    }


def test_concurrent_requests_do_not_affect_each_other(served, images):
    expected = served.run("serving_default", image_inputs(images))["probabilities"]

    def ask(i):
        k = i % len(images)
        inputs = image_inputs([b"", *images[k:]])
        return served.run("serving_default", inputs)["probabilities"][1:] - expected[k:]

    with ThreadPoolExecutor(8) as threads:
        assert max(np.abs(difference).max() for difference in threads.map(ask, range(40))) < 1e-6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow(served):
    """200 requests with 29 MB of files in all."""
    rng = np.random.default_rng(0)
    large = encode(rng.integers(0, 256, (200, 300, 3)).astype(np.uint8), quality=95)

    def requests(count):
        for _ in range(count):
            served.run("serving_default", image_inputs([large, large[:5000], large, b"text"]))
        return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024

    before = requests(50)
    assert 200 * 2 * len(large) > 2.8e7
    assert requests(200) - before < 1.4e7


def test_errors_have_the_message_of_tensorflow(served, exported, tmp_path):
    with pytest.raises(LoaderError, match=r"no signature 'guess'\. Signatures: .*crops"):
        served.run("guess", {})
    with pytest.raises(LoaderError, match=r"takes image_bytes\. Received: images"):
        served.run("serving_default", {"images": np.zeros((1, 32, 32, 3), np.float32)})
    with pytest.raises(LoaderError, match=r"images must be \(B, H, W, 3\)"):
        served.run("images", {"images": np.zeros((1, 40, 40, 4), np.float32)})
    with pytest.raises(LoaderError, match="Could not find SavedModel"):
        CppModel(tmp_path)
    copy = shutil.copytree(exported, tmp_path / "cut")
    data = copy / "variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(LoaderError, match=r"(?i)variables|checkpoint|corrupt|out of range|restore"):
        CppModel(copy)
