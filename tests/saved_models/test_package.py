"""The public names of the package are loaded on first use."""

from __future__ import annotations

import importlib
import subprocess
import sys

from vgg_keras import saved_models


def test_importing_the_package_and_the_rest_client_does_not_import_tensorflow():
    code = (
        "import sys; from vgg_keras import saved_models; saved_models.connect('http://h/v1/models/x')"
        "; print({'tensorflow', 'keras', 'grpc'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_can_be_loaded():
    assert dir(saved_models) == sorted(saved_models.__all__)
    for name in saved_models.__all__:
        assert getattr(saved_models, name) is not None


def test_a_function_is_not_hidden_by_the_module_of_its_name():
    module = importlib.import_module("vgg_keras.saved_models.replay")
    assert saved_models.replay is module.replay
