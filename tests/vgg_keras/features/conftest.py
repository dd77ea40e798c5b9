"""Images of several sizes in class folders, and tiny nets that compute their features."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import write_folder
from tests.tiny import loading_once, tiny_run
from vgg_keras.features.extractor import FeatureExtractor
from vgg_keras.pipelines.sources import open_source


@pytest.fixture(scope="session", autouse=True)
def _load_each_net_once():
    with loading_once(FeatureExtractor):
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of 24 training and 12 validation images."""
    root = tmp_path_factory.mktemp("features") / "data"
    write_folder(root)
    return root


@pytest.fixture(scope="session")
def source(images):
    return open_source(f"folder:{images}")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of runs of nets A and B with random weights."""
    root = tmp_path_factory.mktemp("runs")
    return [root / net for net in "AB"]


@pytest.fixture(scope="session")
def trained(folders):
    """Both nets."""
    return [tiny_run(folder, ("x", "y"), folder.name) for folder in folders]


@pytest.fixture(scope="session")
def extractors(trained):
    """Both nets up to `fc2`, traced once for all tests."""
    return [FeatureExtractor.of_net(net) for net in trained]


def rows_of_length_1(rows):
    """Rows divided by their norms, computed by NumPy in double precision."""
    rows = np.asarray(rows, np.float64)
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))
