"""The two layers that Keras does not have: a sliding dense layer and LRN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from vgg_keras.errors import ArgumentError
from vgg_keras.nets import LRNConstants

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("vgg_keras")
class SlidingDense(keras.layers.Layer):
    """A fully-connected layer that slides over a feature map (§3.2).

    The kernel has the shape of a Dense layer's kernel, `(window * window * channels, units)`. Its
    rows are in the order H, W, C, as in Keras Applications, so that weights can be exchanged. On a
    map of `window` x `window` the layer computes one matrix product. On a larger map it computes
    the same product at every position.

    The layer gathers patches by slicing. A Conv2D with such a kernel would rearrange the kernel on
    every call on the CPU, which takes longer than the product.

    Args:
        units: number of outputs per position.
        window: side of the input window, in positions of the map.
        activation, kernel_initializer, kernel_regularizer: see `keras.layers.Dense`.

    Input shape:
        `(B, H, W, C)`
    Output shape:
        `(B, H - window + 1, W - window + 1, units)`

    Example:
        >>> SlidingDense(10, window=2)(keras.ops.ones((1, 4, 5, 3))).shape
        (1, 3, 4, 10)
    """

    def __init__(
        self,
        units: int,
        window: int = 1,
        activation: str | Callable | None = None,
        kernel_initializer: str | keras.initializers.Initializer = "glorot_uniform",
        kernel_regularizer: str | keras.regularizers.Regularizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.window = window
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        inputs = self.window**2 * input_shape[-1]
        self.kernel = self.add_weight(
            shape=(inputs, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: input_shape[-1]})

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        return (batch, self._positions(height), self._positions(width), self.units)

    def _positions(self, side: int | None) -> int | None:
        """Number of window positions along a side of the map; None if the side is not known.

        When a model is exported with JAX, an unknown side is a symbol.
        """
        if not isinstance(side, int):
            return None
        if side < self.window:
            raise ArgumentError(
                f"The input of layer '{self.name}' must be at least as large as its window of "
                f"{self.window} x {self.window}: the image is smaller than the crop size. "
                f"Received: a map with a side of {side}"
            )
        return side - self.window + 1

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        w = self.window
        shape = ops.shape(inputs)
        rows, columns = shape[1], shape[2]
        if tuple(inputs.shape[1:3]) == (w, w):
            patches = ops.reshape(inputs, (-1, 1, 1, w * w * inputs.shape[-1]))
        elif w == 1:
            patches = inputs
        elif not all(side is None or isinstance(side, int) for side in inputs.shape[1:3]):
            return self._convolve(inputs)
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

    def _convolve(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """The same product for sides that are symbols, by which JAX cannot slice.

        JAX has such sides when a model is exported. The export has no gradient here, as JAX cannot
        derive a convolution by symbols either.
        """
        kernel = ops.reshape(self.kernel, (self.window, self.window, inputs.shape[-1], self.units))
        products = ops.conv(
            ops.stop_gradient(inputs),
            ops.stop_gradient(kernel),
            padding="valid",
            data_format="channels_last",
        )
        return self.activation(products + self.bias)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "units": self.units,
            "window": self.window,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


@keras.saving.register_keras_serializable("vgg_keras")
class LocalResponseNormalisation(keras.layers.Layer):
    """Local response normalisation across neighbouring channels, for any Keras backend.

    Args:
        k, size, alpha, beta: see `LRNConstants`. The defaults are those of Krizhevsky et al.

    Input and output have shape `(B, H, W, C)`.

    Example:
        >>> LocalResponseNormalisation()(keras.ops.ones((1, 4, 4, 8))).shape
        (1, 4, 4, 8)
    """

    def __init__(
        self,
        k: float = 2.0,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if size % 2 == 0:
            raise ArgumentError(f"size must be odd. Received: size={size}", "size")
        self.constants = LRNConstants(k, size, alpha, beta)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        c = self.constants
        channels = inputs.shape[-1]
        # Scale before squaring: the square of 256 overflows in float16.
        squares = ops.square(inputs * c.alpha**0.5)
        squares = ops.pad(squares, [(0, 0)] * 3 + [(c.size // 2, c.size // 2)])
        energy = sum(squares[..., i : i + channels] for i in range(c.size))
        return inputs * ops.power(c.k + energy, -c.beta)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | asdict(self.constants)
