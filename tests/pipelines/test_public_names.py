from __future__ import annotations

import subprocess
import sys

import pytest

from vgg_keras import pipelines

NAMES = [
    "ILSVRC",
    "TRAIN",
    "VALIDATION",
    "ArgumentError",
    "BadImageError",
    "Boxes",
    "Source",
    "SourceError",
    "Split",
    "Statistics",
    "boxed_split",
    "compute_statistics",
    "decode",
    "find_bad_images",
    "grid_crops",
    "open_source",
    "read_images",
    "rescale",
    "steps_per_epoch",
    "training_stream",
    "validation_stream",
    "whole_images",
    "window",
    "without_bad_images",
]


def test_every_public_name_is_listed_and_can_be_loaded():
    assert sorted(pipelines.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(pipelines))
    for name in NAMES:
        assert getattr(pipelines, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pipelines.no_such_name


def test_importing_the_package_does_not_import_tensorflow():
    code = (
        "import sys, vgg_keras.pipelines as p; dir(p); p.ILSVRC; p.Statistics; p.ArgumentError;"
        "print([m for m in ('tensorflow', 'keras', 'tensorflow_datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
