"""The VGG paper (Simonyan & Zisserman, 2015) as TensorFlow/Keras software.

    from vgg_keras import TrainedNet, evaluate, vgg

`dir(vgg_keras)` lists the public names, which `__init__.pyi` defines. They are loaded on first use,
so that `import vgg_keras` imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import lazy_loader

from vgg_keras.registration import register_layers
from vgg_keras.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_layers()
