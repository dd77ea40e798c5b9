"""The scripts of the pages on weights and serving run as written, with nets of less width."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import encode, photo
from tests.vgg_keras.weights import foreign
from vgg_keras import TrainedNet, pretrained, vgg
from vgg_keras.pipelines.statistics import ILSVRC

DOCS = Path(__file__).parent.parent / "docs"
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
    net = TrainedNet.of_model(vgg("A", 7), mean=ILSVRC.mean, train_scale=256)
    net.save("runs/d")
    boxes = vgg("A", 4, classifier_activation=None)
    TrainedNet.of_model(
        boxes, mean=ILSVRC.mean, train_scale=256, regression="single-class", class_names=range(7)
    ).save("runs/d-boxes")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["weights", "serving"])
def test_the_scripts_of_a_page_run(page, small):
    scripts = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    names = {"images": np.zeros((1, 224, 224, 3), np.float32)}
    for script in scripts:
        if "http://" in script:
            continue  # needs a server, see tests/saved_models/test_servers.py
        if "ai_edge_litert" in script:
            from vgg_keras import export

            export(TrainedNet.load("runs/d"), "litert/vgg16", format="litert")
        for written, smaller in SMALLER.items():
            script = script.replace(written, smaller)
        if "load_model" in script:
            names["weights"].convert("runs/d", "vgg16.keras")
        exec(script, names)
