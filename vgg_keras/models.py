"""Builds the nets of Table 1 as functional Keras models."""

from __future__ import annotations

import math
import zlib
from dataclasses import asdict

import keras

from vgg_keras.layers import LRN_PRESETS, LocalResponseNormalisation, SlidingDense
from vgg_keras.nets import Layer, get_net, weight_layers

# name -> standard deviation at full width; None for Glorot.
INITIALISATIONS: dict[str, float | None] = {
    "gaussian": 0.01,  # the reading that all code of this lineage follows
    "gaussian-0.1": 0.1,  # the paper's literal words: a variance of 1e-2, §3.1
    "glorot": None,  # Glorot & Bengio 2010, which §3.1 found to need no pre-training
}

# Padding that rounds so: "same" adds, on an odd side, one row that no maximum can come from.
POOL_ROUNDINGS = {"down": "valid", "up": "same"}


def vgg(
    net: str,
    num_classes: int = 1000,
    crop_size: int = 224,
    width: float = 1.0,
    *,
    initialisation: str = "glorot",
    weight_decay: float = 5e-4,
    dropout: float = 0.5,
    lrn: str = "krizhevsky",
    pool_rounding: str = "down",
    classifier_activation: str | None = "softmax",
    seed: int = 0,
) -> keras.Model:
    """A net of the paper, for crops and for whole images alike (§2, §3.2).

    On a `crop_size` input the last weight layer, `predictions`, gives one score vector; on a
    larger one the class score map, which is averaged over space. The layers and variables are
    the same: `fully_convolutional` gives the map itself.

    Args:
        net: "A", "A-LRN", "B", "C", "D", "E" or "B-shallow".
        num_classes: outputs.
        crop_size: side in pixels of a training crop, a multiple of 32; the window of `fc1`
            is crop_size / 32.
        width: scales the channels of all hidden layers.
        initialisation: "glorot", "gaussian" (standard deviation 0.01) or "gaussian-0.1".
            The Gaussians are scaled by the fan-in, so that at any width and crop size each
            layer has the gain that it has at full size.
        weight_decay: lambda of Caffe and of §3.1, which adds lambda * w to the gradient of
            every kernel: an L2 penalty of lambda / 2. Biases are free.
        dropout: rate on both hidden FC layers.
        lrn: constants of net A-LRN, "krizhevsky" or "caffe".
        pool_rounding: "down", or "up" as Caffe's pooling rounds an odd side. It makes no
            difference on crops, nor on any sides that 32 divides.
        classifier_activation: "softmax", or None for scores (logits).
        seed: of the initialisation and of dropout.

    Returns:
        A functional model from float32 `(B, H, W, 3)`, RGB in 0..255 minus the mean, H and W
        free and at least crop_size, to float32 `(B, num_classes)`.

    Raises:
        ValueError: an unknown name, or a crop size, width or number of classes that cannot be.
    """
    table = get_net(net)
    layers = {l.name: l for l in weight_layers(table, num_classes, crop_size, width)}
    full_size = {l.name: l for l in weight_layers(table)}
    if lrn not in LRN_PRESETS:
        raise ValueError(f"lrn must be one of {', '.join(LRN_PRESETS)}. Received: {lrn!r}")
    if pool_rounding not in POOL_ROUNDINGS:
        raise ValueError(
            f"pool_rounding must be one of {', '.join(POOL_ROUNDINGS)}. Received: {pool_rounding!r}"
        )
    kernels = _kernel_arguments(layers, full_size, initialisation, weight_decay, seed)

    inputs = x = keras.Input((None, None, 3), name="image")
    for i, block in enumerate(table.kernels, 1):
        for j in range(1, len(block) + 1):
            layer = layers[f"block{i}_conv{j}"]
            x = keras.layers.Conv2D(
                layer.outputs,
                layer.kernel,
                padding="same",
                activation="relu",
                name=layer.name,
                **kernels[layer.name],
            )(x)
            if table.lrn and (i, j) == (1, 1):
                constants = asdict(LRN_PRESETS[lrn])
                x = LocalResponseNormalisation(**constants, name="block1_lrn")(x)
        x = keras.layers.MaxPooling2D(
            2, 2, padding=POOL_ROUNDINGS[pool_rounding], name=f"block{i}_pool"
        )(x)
    for k, name in enumerate(("fc1", "fc2"), 1):
        layer = layers[name]
        x = SlidingDense(
            layer.outputs, layer.kernel, activation="relu", name=name, **kernels[name]
        )(x)
        x = keras.layers.Dropout(
            dropout, seed=_layer_seed(seed, f"dropout{k}"), name=f"dropout{k}"
        )(x)
    # Scores, their average and the soft-max stay in float32 under mixed precision.
    wide = "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"
    x = SlidingDense(num_classes, dtype=wide, name="predictions", **kernels["predictions"])(x)
    x = keras.layers.GlobalAveragePooling2D(dtype=wide, name="scores")(x)
    if classifier_activation is not None:
        x = keras.layers.Activation(classifier_activation, dtype=wide, name="posteriors")(x)
    return keras.Model(inputs, x, name=net)


def fully_convolutional(model: keras.Model) -> keras.Model:
    """The same layers and variables with the class score map shown (§3.2).

    Returns:
        A model from `(B, H, W, 3)` to `{"score_map": (B, h, w, classes), "scores": (B, classes)}`,
        where h = floor(H / 32) - crop_size / 32 + 1, with pool_rounding="down"; scores are the
        map's average, before the soft-max.
    """
    return keras.Model(
        model.input,
        {
            "score_map": model.get_layer("predictions").output,
            "scores": model.get_layer("scores").output,
        },
        name=model.name,
    )


def _kernel_arguments(
    layers: dict[str, Layer],
    full_size: dict[str, Layer],
    initialisation: str,
    weight_decay: float,
    seed: int,
) -> dict[str, dict]:
    """Initialiser and regulariser of every kernel, by layer name."""
    if initialisation not in INITIALISATIONS:
        raise ValueError(
            f"initialisation must be one of {', '.join(INITIALISATIONS)}. "
            f"Received: {initialisation!r}"
        )
    sd = INITIALISATIONS[initialisation]

    def initialiser(name: str) -> keras.initializers.Initializer:
        layer_seed = _layer_seed(seed, name)
        if sd is None:
            return keras.initializers.GlorotUniform(seed=layer_seed)
        gain = math.sqrt(_fan_in(full_size[name]) / _fan_in(layers[name]))
        return keras.initializers.RandomNormal(stddev=sd * gain, seed=layer_seed)

    return {
        name: {
            "kernel_initializer": initialiser(name),
            "kernel_regularizer": keras.regularizers.L2(weight_decay / 2) if weight_decay else None,
        }
        for name in layers
    }


def _fan_in(layer: Layer) -> int:
    return layer.kernel**2 * layer.inputs


def _layer_seed(seed: int, name: str) -> int:
    """A seed of each layer's own, so that nets of one seed share what they share by name."""
    return zlib.crc32(f"{seed}/{name}".encode()) % 2**31
