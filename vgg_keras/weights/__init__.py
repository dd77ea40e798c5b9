"""Reads and writes weights files.

The files are those of the VGG team, Keras Applications, torchvision, timm, and of this package.

Example:
    >>> from vgg_keras import vgg, weights
    >>> contents = weights.load(vgg("vgg16"), "VGG_ILSVRC_16_layers.caffemodel")
"""

from vgg_keras.errors import WeightsError
from vgg_keras.weights.kinds import KINDS
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing
from vgg_keras.weights.reading import Contents, Weights, read
from vgg_keras.weights.transfer import TARGETS, convert, load, save

__all__ = [
    "KINDS",
    "PREPROCESSINGS",
    "TARGETS",
    "Contents",
    "Preprocessing",
    "Weights",
    "WeightsError",
    "convert",
    "load",
    "read",
    "save",
]
