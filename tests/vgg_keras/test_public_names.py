"""The public names of `vgg_keras`: listed by `dir`, and loaded on first use."""

from __future__ import annotations

import subprocess
import sys

import vgg_keras


def test_every_public_name_loads():
    names = dir(vgg_keras)
    assert {"TrainedNet", "evaluate", "export", "predict", "train", "vgg"} <= set(names)
    assert sorted(names) == sorted(vgg_keras.__all__)
    for name in names:
        assert getattr(vgg_keras, name) is not None


def test_importing_the_package_imports_neither_tensorflow_nor_keras():
    code = (
        "import sys, vgg_keras, vgg_keras.pipelines, vgg_keras.callbacks, vgg_keras.saved_models;"
        "print(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
