"""The VGG paper (Simonyan & Zisserman, 2015) as TensorFlow/Keras software.

    from vgg_keras import TrainedNet, evaluate, vgg

`dir(vgg_keras)` lists the public names, which `__init__.pyi` defines. They are loaded on first use,
so that `import vgg_keras` imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import os

import lazy_loader

_FOLDER = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_FOLDER, "pipelines")):
    # In a checkout the folders of the other subpackages are beside this one. Python takes this one
    # for the package if it is started there, also if another copy is installed.
    __path__.append(os.path.dirname(_FOLDER))

from vgg_keras.registration import register_layers  # noqa: E402 - needs the path
from vgg_keras.version import __version__ as __version__  # noqa: E402

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_layers()
