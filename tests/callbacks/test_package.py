"""The public names of the package are loaded on first use."""

from __future__ import annotations

import subprocess
import sys

from vgg_keras import callbacks


def test_importing_the_package_does_not_import_keras():
    code = (
        "import sys, vgg_keras.callbacks.file_names; from vgg_keras import callbacks; "
        "print(dir(callbacks), {'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = ["Checkpoint", "Journal", "OneTraining", "PlateauDecay", "Progress"]
    names += ["RaiseOnDivergence", "WarmStart", "WarnOfChance"]
    assert done.stdout.strip() == f"{[*names, 'read_journal', 'read_layers']} set()"


def test_every_public_name_can_be_loaded():
    for name in callbacks.__all__:
        assert callable(getattr(callbacks, name))
