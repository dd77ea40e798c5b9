"""Pictures of several sizes in class folders, and what tiny nets make of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import write_folder
from tests.tiny import tiny_run
from vgg_keras.features.nets import FeatureExtractor
from vgg_keras.pipelines.sources import open_source


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 24 pictures to train and 12 to validate on."""
    root = tmp_path_factory.mktemp("features") / "data"
    write_folder(root)
    return root


@pytest.fixture(scope="session")
def source(pictures):
    return open_source(f"folder:{pictures}")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Runs of nets A and B, drawn and not trained."""
    folder = tmp_path_factory.mktemp("runs")
    return [tiny_run(folder / net, ("x", "y"), net) for net in "AB"]


@pytest.fixture(scope="session")
def nets(runs):
    """Both up to `fc2`: traced once for all tests."""
    return [FeatureExtractor.of_run(run) for run in runs]


def rows_of_length_1(rows):
    """Plain numpy's word for it, double precision."""
    rows = np.asarray(rows, np.float64)
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))
