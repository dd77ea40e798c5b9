"""Data sets, image operations, and training and evaluation streams, as `tf.data` datasets.

This package knows no particular net. Everything takes plain numbers (scale, crop size, mean), and
any Keras classifier takes the streams.

The public names are listed in `__init__.pyi`. Each is imported on first use, so that importing this
package does not import TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
