"""Builds the nets of Table 1 as functional Keras models."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import keras

from vgg_keras.errors import ArgumentError, WeightsError
from vgg_keras.layers import LocalResponseNormalisation, SlidingDense
from vgg_keras.nets import (
    INITIALISATIONS,
    LRN_PRESETS,
    POOL_ROUNDINGS,
    Layer,
    Net,
    get_net,
    weight_layers,
)
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.pretrained import Release, find_release, without_top
from vgg_keras.weight_decay import VGG
from vgg_keras.weights.transfer import load

ACTIVATIONS = (None, "softmax")  # of the class scores

# Stated in every layer, so that a user's keras.json does not change the net.
_DATA_FORMAT = "channels_last"


def vgg(
    net: str,
    num_classes: int = 1000,
    crop_size: int = 224,
    width: float = 1.0,
    *,
    include_top: bool = True,
    weights: str | os.PathLike | None = None,
    initialisation: str = "glorot",
    weight_decay: float = 5e-4,
    dropout: float = 0.5,
    lrn: str = "krizhevsky",
    pool_rounding: str = "down",
    classifier_activation: str | None = "softmax",
    seed: int = 0,
    initialise: bool = True,
) -> keras.Model:
    """Builds a net of the paper for crops and whole images (§2, §3.2).

    Args:
        net: "A", "A-LRN", "B", "C", "D", "E", "B-shallow", or an alias such as "vgg16".
        num_classes: number of outputs.
        crop_size: side of a training crop in pixels, a multiple of 32.
        width: factor on the channels of all hidden layers.
        include_top: False leaves out the FC layers. Then the output is the map of the last pooling,
            `(B, H / 32, W / 32, 512)` at full width, and H and W are at least 32.
        weights: "imagenet", a released net such as "torchvision:D", or a file. None: random.
        initialisation: "glorot", "gaussian" (standard deviation 0.01) or "gaussian-0.1". The
            Gaussians are scaled to the gain of a layer at full size.
        weight_decay: as in Caffe, weight_decay * w is added to the gradient of kernels w (§3.1).
        dropout: dropout rate of both hidden FC layers.
        lrn: constants of net A-LRN, "krizhevsky" or "caffe".
        pool_rounding: how pooling rounds an odd side: "down" or, as in Caffe, "up".
        classifier_activation: "softmax" for posteriors, or None for class scores (logits).
        seed: seed of the initialisation and of dropout.
        initialise: False leaves the kernels 0, for weights that are assigned later.

    Returns:
        A functional model from float32 `(B, H, W, 3)` to float32 `(B, num_classes)`. Inputs are
        RGB in 0..255 minus the mean; H and W are at least crop_size. On larger inputs, the class
        scores are averaged over all positions.

    Raises:
        ArgumentError: the value of an argument is not allowed, or Keras's floatx is not float32.
        WeightsError: the weights cannot be downloaded or read, or do not fit.

    Example:
        >>> vgg("vgg16", num_classes=10, crop_size=64, width=0.25).output_shape
        (None, 10)
    """
    table, score_dtype = get_net(net), _score_dtype()
    layers = weight_layers(table, num_classes, crop_size, width)
    kernels = _kernel_arguments(layers, weight_layers(table), initialisation, weight_decay, seed)
    drawn = kernels if initialise and weights is None else _blank(kernels)
    inputs = keras.Input((None, None, 3), name="image")
    x = _convolutions(inputs, table, layers, drawn, lrn, pool_rounding)
    if include_top:
        x = _classifier(x, layers, drawn, dropout, seed, classifier_activation, score_dtype)
    model = _model_class(include_top)(inputs, x, name=table.name)
    return _with_weights(_with_initialisers(model, kernels), weights, include_top)


def _model_class(include_top: bool) -> type[keras.Model]:
    """Without the FC layers a plain Keras model, which loads where vgg_keras is not installed."""
    return VGG if include_top else keras.Model


def fully_convolutional(model: keras.Model) -> keras.Model:
    """Returns a model that also gives the class score map (§3.2).

    The returned model has the layers and variables of `model`.

    Args:
        model: a model that `vgg` built.

    Returns:
        A model from `(B, H, W, 3)` to `{"score_map": (B, h, w, classes), "scores": (B, classes)}`.
        With pool_rounding="down", h = floor(H / 32) - crop_size / 32 + 1. The scores are the
        average of the map, before the soft-max.

    Example:
        >>> maps = fully_convolutional(vgg("A"))
        >>> maps(images)["score_map"].shape  # images: (1, 256, 320, 3)
        (1, 2, 4, 1000)
    """
    return keras.Model(
        model.input,
        {
            "score_map": model.get_layer("predictions").output,
            "scores": model.get_layer("scores").output,
        },
        name=model.name,
    )


def _score_dtype() -> str:
    """Dtype of the scores, their average and the soft-max: float32 under mixed precision too.

    Raises:
        ArgumentError: Keras's floatx is not float32.
    """
    if keras.config.floatx() != "float32":
        raise ArgumentError(
            'floatx must be "float32": set it in keras.json or with keras.config.set_floatx. '
            "keras.config.set_dtype_policy selects another precision. "
            f"Received: floatx={keras.config.floatx()!r}",
            "floatx",
        )
    return "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"


def _convolutions(
    x: keras.KerasTensor,
    table: Net,
    layers: Sequence[Layer],
    kernels: Mapping[str, dict[str, Any]],
    lrn: str,
    pool_rounding: str,
) -> keras.KerasTensor:
    """The five blocks, from the image to the last pooling."""
    check_choice("lrn", lrn, LRN_PRESETS)
    check_choice("pool_rounding", pool_rounding, POOL_ROUNDINGS)
    pool_padding = POOL_ROUNDINGS[pool_rounding]
    for i in range(1, len(table.kernels) + 1):
        for layer in (l for l in layers if l.name.startswith(f"block{i}_")):
            x = keras.layers.Conv2D(
                layer.outputs,
                layer.kernel,
                padding="same",
                data_format=_DATA_FORMAT,
                activation="relu",
                name=layer.name,
                **kernels[layer.name],
            )(x)
            if table.lrn and layer.name == "block1_conv1":
                constants = asdict(LRN_PRESETS[lrn])
                x = LocalResponseNormalisation(**constants, name="block1_lrn")(x)
        x = keras.layers.MaxPooling2D(
            2, 2, padding=pool_padding, data_format=_DATA_FORMAT, name=f"block{i}_pool"
        )(x)
    return x


def _classifier(
    x: keras.KerasTensor,
    layers: Sequence[Layer],
    kernels: Mapping[str, dict[str, Any]],
    dropout: float,
    seed: int,
    activation: str | None,
    score_dtype: str,
) -> keras.KerasTensor:
    """The three FC layers, the average of the class score map, and the soft-max."""
    check_choice("classifier_activation", activation, ACTIVATIONS)
    *hidden, last = layers[-3:]
    for k, layer in enumerate(hidden, 1):
        x = SlidingDense(
            layer.outputs, layer.kernel, activation="relu", name=layer.name, **kernels[layer.name]
        )(x)
        x = keras.layers.Dropout(
            dropout, seed=_layer_seed(seed, f"dropout{k}"), name=f"dropout{k}"
        )(x)
    x = SlidingDense(last.outputs, dtype=score_dtype, name=last.name, **kernels[last.name])(x)
    x = keras.layers.GlobalAveragePooling2D(
        data_format=_DATA_FORMAT, dtype=score_dtype, name="scores"
    )(x)
    if activation:
        x = keras.layers.Activation(activation, dtype=score_dtype, name="posteriors")(x)
    return x


def _with_weights(
    model: keras.Model, weights: str | os.PathLike | None, include_top: bool
) -> keras.Model:
    """The model, with weights that are not random if there are any.

    Raises:
        ArgumentError: the model does not have the size of the released net.
        WeightsError: the weights cannot be downloaded or read, or do not fit.
    """
    if weights is None:
        return model
    source = f"imagenet:{model.name}" if weights == "imagenet" else os.fspath(weights)
    source = source if include_top else without_top(source)
    release = find_release(source)
    if release:
        _check_size(model, release, source, include_top)
    try:
        contents = load(model, source, partial=not include_top)
    except WeightsError as error:  # its advice names arguments of `weights.load`
        raise WeightsError(
            f"{error} Arguments for such a file are those of vgg_keras.weights.load(model, "
            f"{source!r})."
        ) from error
    lacking = {layer.name for layer in model.layers if layer.weights} - set(contents.taken)
    if lacking:
        reasons = [f"{name}: {contents.left.get(name, 'missing')}" for name in sorted(lacking)]
        raise WeightsError(f"{source} does not have all conv. layers. {'; '.join(reasons)}")
    return model


def _check_size(model: keras.Model, release: Release, name: str, include_top: bool) -> None:
    """Refuses a model of another size before the weights are downloaded."""
    size = release.num_classes, release.crop_size, release.width
    layers = weight_layers(get_net(release.net), *size)[: None if include_top else -3]
    parameters = sum(layer.parameters for layer in layers)
    if include_top and not release.has_top:
        raise ArgumentError(
            f"weights must have the FC layers of the model, or include_top must be False. "
            f"Received: {name}, the conv. layers of net {release.net}",
            "weights",
        )
    if (model.name, model.count_params()) != (release.net, parameters):
        raise ArgumentError(
            f"weights must fit the model. {name} is net {release.net} with "
            f"num_classes={release.num_classes}, crop_size={release.crop_size} and "
            f"width={release.width:g}; with include_top=False its conv. layers serve other classes "
            f"and crops. Received: net {model.name} with {model.count_params():,} parameters in "
            f"place of {parameters:,}",
            "weights",
        )


def _kernel_arguments(
    layers: Sequence[Layer],
    full_size: Sequence[Layer],
    initialisation: str,
    weight_decay: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Initialiser and regulariser of every kernel, by layer name."""
    check_choice("initialisation", initialisation, INITIALISATIONS)
    sd = INITIALISATIONS[initialisation]

    def initialiser(layer: Layer, full: Layer) -> keras.initializers.Initializer:
        layer_seed = _layer_seed(seed, layer.name)
        if sd is None:
            return keras.initializers.GlorotUniform(seed=layer_seed)
        gain = math.sqrt(_fan_in(full) / _fan_in(layer))
        return keras.initializers.RandomNormal(stddev=sd * gain, seed=layer_seed)

    return {
        layer.name: {
            "kernel_initializer": initialiser(layer, full),
            "kernel_regularizer": keras.regularizers.L2(weight_decay / 2) if weight_decay else None,
        }
        for layer, full in zip(layers, full_size, strict=True)
    }


def _blank(kernels: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same arguments for kernels of 0."""
    zeros = {"kernel_initializer": keras.initializers.Zeros()}
    return {name: arguments | zeros for name, arguments in kernels.items()}


def _with_initialisers(model: keras.Model, kernels: Mapping[str, dict[str, Any]]) -> keras.Model:
    """The model, with the same configuration whether its kernels were drawn or not."""
    for layer in model.layers:
        if layer.name in kernels:
            layer.kernel_initializer = kernels[layer.name]["kernel_initializer"]
    return model


def _fan_in(layer: Layer) -> int:
    return layer.kernel**2 * layer.inputs


def _layer_seed(seed: int, name: str) -> int:
    """Seed of one layer. Nets with the same seed have equal weights in layers of the same name."""
    return zlib.crc32(f"{seed}/{name}".encode()) % 2**31
