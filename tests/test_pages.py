"""The scripts of the page on weights run as they are written, with nets of less width."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import encode, photo
from tests.vgg_keras.weights import foreign
from vgg_keras import pretrained, vgg

PAGE = Path(__file__).parent.parent / "docs/weights.md"
SIZE = (1000, 224, 1 / 64)
# A model of Keras Applications has no option for its width.
SMALLER = {"keras.applications.VGG16(weights=None)": 'vgg("D")'}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with the files that the scripts name, nets of small width, and a released one."""
    layers = foreign.random_weights(foreign.kernel_shapes("D", *SIZE))
    monkeypatch.setattr(vgg, "__defaults__", SIZE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    release = pretrained.find_release("imagenet:D")
    file = tmp_path / "models" / release.file_name
    file.parent.mkdir()
    foreign.applications_h5(file, layers)
    digest = hashlib.md5(file.read_bytes()).hexdigest()
    released = dataclasses.replace(release, digest=digest, width=SIZE[2])
    notop = dataclasses.replace(
        pretrained.find_release("keras:D-notop"), file_name="notop.h5", width=SIZE[2]
    )
    convs = {name: pair for name, pair in layers.items() if "conv" in name}
    foreign.applications_h5(file.parent / notop.file_name, convs)
    digest = hashlib.md5((file.parent / notop.file_name).read_bytes()).hexdigest()
    notop = dataclasses.replace(notop, digest=digest)
    monkeypatch.setattr(pretrained, "RELEASES", (released, notop))
    foreign.caffemodel(tmp_path / "VGG_ILSVRC_16_layers.caffemodel", layers)
    Path("photo.jpg").write_bytes(encode(photo(np.random.default_rng(0), 240, 230)))


@pytest.mark.slow
def test_the_scripts_run(small):
    scripts = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {"images": np.zeros((1, 224, 224, 3), np.float32)}
    for script in scripts:
        for written, smaller in SMALLER.items():
            script = script.replace(written, smaller)
        if "load_model" in script:
            names["weights"].convert("vgg16.safetensors", "vgg16.keras")
        exec(script, names)
