"""The two layers that Keras does not have: a dense layer that slides, and LRN."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import keras
from keras import ops


@keras.saving.register_keras_serializable("vgg_keras")
class SlidingDense(keras.layers.Layer):
    """A fully-connected layer that slides over a feature map (§3.2).

    The kernel has a Dense layer's shape, `(window * window * channels, units)`, flattened
    H, W, C as Keras Applications does, so that weights move freely. On a map of `window` x
    `window` it is one matrix product; on a larger one, the same product at every position.
    Patches are gathered by slicing: on CPU a Conv2D with such a kernel re-lays it out at each
    call, which takes longer than the product.

    Args:
        units: outputs per position.
        window: side of the input window in map pixels.
        activation, kernel_initializer, kernel_regularizer: as for `keras.layers.Dense`.

    Input `(B, H, W, C)`, output `(B, H - window + 1, W - window + 1, units)`.
    """

    def __init__(
        self,
        units: int,
        window: int = 1,
        activation=None,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.window = window
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        inputs = self.window**2 * input_shape[-1]
        self.kernel = self.add_weight(
            shape=(inputs, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: input_shape[-1]})

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, self._positions(height), self._positions(width), self.units)

    def _positions(self, side: int | None) -> int | None:
        if side is None:
            return None
        if side < self.window:
            raise ValueError(
                f"Layer '{self.name}' slides a window of {self.window} x {self.window} and needs a "
                f"map at least that large: the image is smaller than the crop size. "
                f"Received: a side of {side}"
            )
        return side - self.window + 1

    def call(self, inputs):
        w = self.window
        shape = ops.shape(inputs)
        rows, columns = shape[1], shape[2]
        if tuple(inputs.shape[1:3]) == (w, w):
            patches = ops.reshape(inputs, (-1, 1, 1, w * w * inputs.shape[-1]))
        elif w == 1:
            patches = inputs
        else:
            for side in inputs.shape[1:3]:
                self._positions(side)
            patches = ops.concatenate(  # (B, H', W', w * w * C)
                [
                    inputs[:, i : rows - w + 1 + i, j : columns - w + 1 + j]
                    for i in range(w)
                    for j in range(w)
                ],
                axis=-1,
            )
        return self.activation(ops.matmul(patches, self.kernel) + self.bias)

    def get_config(self):
        return super().get_config() | {
            "units": self.units,
            "window": self.window,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


@dataclass(frozen=True)
class LRNConstants:
    """y = x / (k + alpha * sum of x**2 over `size` neighbouring channels) ** beta."""

    k: float
    size: int
    alpha: float
    beta: float


LRN_PRESETS = {
    # Krizhevsky et al. 2012, §3.3, which the paper's §2.1 names.
    "krizhevsky": LRNConstants(k=2.0, size=5, alpha=1e-4, beta=0.75),
    # What Caffe computed when VGG branched from it in December 2013: k fixed at 1, and alpha
    # divided by the size.
    "caffe": LRNConstants(k=1.0, size=5, alpha=1e-4 / 5, beta=0.75),
}


@keras.saving.register_keras_serializable("vgg_keras")
class LocalResponseNormalisation(keras.layers.Layer):
    """Normalisation across neighbouring channels, in any backend.

    Args:
        k, size, alpha, beta: see `LRNConstants`; the defaults are Krizhevsky's.

    Input and output `(B, H, W, C)`.
    """

    def __init__(self, k=2.0, size=5, alpha=1e-4, beta=0.75, **kwargs):
        super().__init__(**kwargs)
        if size % 2 == 0:
            raise ValueError(f"size must be odd. Received: size={size}")
        self.constants = LRNConstants(k, size, alpha, beta)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        c = self.constants
        channels = inputs.shape[-1]
        # Scaled first: in float16 the square of 256 overflows.
        squares = ops.square(inputs * c.alpha**0.5)
        squares = ops.pad(squares, [(0, 0)] * 3 + [(c.size // 2, c.size // 2)])
        energy = sum(squares[..., i : i + channels] for i in range(c.size))
        return inputs * ops.power(c.k + energy, -c.beta)

    def get_config(self):
        return super().get_config() | asdict(self.constants)
