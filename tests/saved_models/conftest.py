"""One export of a tiny net, for all tests in this folder."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cpp_loader import CppModel
from tests.conftest import encode, photo
from tests.tiny import tiny_run
from vgg_keras.serving import export

CLASSES = ("n01440764", "n02012849", "n03126707", "blue", "green", "red", "déjà vu")
SIZES = [(50, 70), (70, 50), (41, 41), (50, 70), (120, 64)]


@pytest.fixture(scope="session")
def net(tmp_path_factory):
    """Net A from a run folder. The other nets are served in tests/conformance."""
    return tiny_run(tmp_path_factory.mktemp("runs") / "a", CLASSES, "A")


@pytest.fixture(scope="session")
def exported(net, tmp_path_factory):
    """The version folder of that net, which uses the dense protocol at two scales."""
    folder = tmp_path_factory.mktemp("exports") / "tiny"
    return export(net, folder, top=3, test_scales=(40, 48))


@pytest.fixture(scope="session")
def served(exported):
    """The export in the C++ loader."""
    model = CppModel(exported)
    yield model
    model.close()


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """JPEG files of several sizes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    files = [folder / f"{i}.jpg" for i in range(len(SIZES))]
    for file, (height, width) in zip(files, SIZES, strict=True):
        file.write_bytes(encode(photo(rng, height, width), quality=90))
    return files


@pytest.fixture(scope="session")
def images(photos):
    """The bytes of the photos."""
    return [file.read_bytes() for file in photos]
