"""Weights in and out: files of the VGG team, Keras Applications, torchvision, timm, and our own."""

from vgg_keras.errors import WeightsError
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing
from vgg_keras.weights.reading import READERS, Contents, Weights, read
from vgg_keras.weights.transfer import TARGETS, convert, load, save

__all__ = [
    "PREPROCESSINGS",
    "READERS",
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
