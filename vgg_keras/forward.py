"""Nets as functions of TensorFlow's tensors, on all devices, under each backend of Keras.

TensorFlow reads the images and combines the rows of all views. Only what a net itself computes
depends on the backend, and this module is the one place of the tests that knows it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vgg_keras.errors import ArgumentError

Forward = Callable[[tf.Tensor], Any]


def check_backend() -> str:
    """Returns the backend of Keras, which must be one that trains and tests nets.

    Raises:
        ArgumentError: the backend is neither TensorFlow nor JAX.
    """
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise ArgumentError(
            "Keras's backend must be TensorFlow or JAX: set the environment variable "
            f'KERAS_BACKEND, or "backend" in keras.json. Received: {backend}',
            "backend",
        )
    return backend


def check_tensorflow(what: str) -> None:
    """Raises ArgumentError if the backend of Keras is not TensorFlow, which `what` needs."""
    if keras.backend.backend() != "tensorflow":
        raise ArgumentError(
            f"{what} needs KERAS_BACKEND=tensorflow, which reads the runs of all backends. "
            f"Received: {keras.backend.backend()}",
            "backend",
        )


def forward(model: keras.Model) -> Forward:
    """A function that computes a model, inside and outside a `tf.function`.

    Args:
        model: model from images `(B, H, W, 3)` to tensors whose first dimension is B.

    Returns:
        A function from float32 `(B, H, W, 3)` to what the model gives for them in inference, as
        tensors of TensorFlow. JAX computes on the devices that hold the variables. It compiles the
        model for each image size; TensorFlow's function is traced once.

    Raises:
        ArgumentError: the backend of Keras is neither TensorFlow nor JAX.

    Example:
        maps = forward(fully_convolutional(net.model))
        score_map = maps(images - net.mean)["score_map"]
    """
    if check_backend() == "jax":
        return _OnJax(model)
    return functools.partial(model, training=False)


class _OnJax:
    """A model that JAX computes, as a function of TensorFlow's tensors."""

    def __init__(self, model: keras.Model):
        import jax

        self.model = model
        self.dtypes = [
            "float64" if one.dtype == "float64" else "float32"
            for one in tf.nest.flatten(model.output)
        ]
        self.rows: dict[tuple[int, int], int] = {}  # of the largest batch, by image size
        self.compute = jax.jit(self._outputs)

    def __call__(self, images: tf.Tensor) -> Any:
        found = tf.numpy_function(self._compute, [images], self.dtypes, stateful=False)
        for one, output in zip(found, tf.nest.flatten(self.model.output), strict=True):
            one.set_shape(output.shape)
        return tf.nest.pack_sequence_as(self.model.output, found)

    def _compute(self, images: np.ndarray) -> list[np.ndarray]:
        import jax

        here = self._placement()
        wanted, size = len(images), images.shape[1:3]
        devices = num_devices(self.model)
        # Each number of rows would be compiled again, so a smaller batch is filled up.
        rows = self.rows[size] = max(self.rows.get(size, 0), -(-wanted // devices) * devices)
        if rows > wanted:
            images = np.pad(images, [(0, rows - wanted), (0, 0), (0, 0), (0, 0)])
        weights = [
            [variable.value for variable in variables]
            for variables in (self.model.trainable_variables, self.model.non_trainable_variables)
        ]
        found = self.compute(*weights, jax.device_put(images, here))
        return [np.asarray(one)[:wanted] for one in found]

    def _outputs(self, trainable: list, non_trainable: list, images: Any) -> list:
        outputs, _ = self.model.stateless_call(trainable, non_trainable, images, training=False)
        flat = tf.nest.flatten(outputs)
        return [one.astype(dtype) for one, dtype in zip(flat, self.dtypes, strict=True)]

    def _placement(self) -> Any:
        """Where a batch is put: its rows are split among the devices that hold the variables."""
        from jax.sharding import NamedSharding, PartitionSpec

        of_variables = self.model.variables[0].value.sharding
        if not isinstance(of_variables, NamedSharding):
            return of_variables
        return NamedSharding(of_variables.mesh, PartitionSpec(of_variables.mesh.axis_names))


def on_all_devices(
    model: keras.Model, function: Callable[..., tf.Tensor], *batch: tf.Tensor
) -> tf.Tensor:
    """Computes `function(*batch)` with the rows of the batch split among the devices of a model.

    It is used inside a `tf.function`. A model that was created in the scope of `find_devices` has
    its variables on all devices. Another model has one device, which computes all rows. Under JAX
    `forward` splits the rows.

    Args:
        model: model that the function calls.
        function: function from tensors `(B, ...)` to `(B, ...)` that computes each row
            independently. B can be 0.
        batch: tensors `(B, ...)`.

    Returns:
        The result for all rows, in order.
    """
    if keras.backend.backend() == "jax" or num_devices(model) == 1:
        return function(*batch)
    strategy = model.distribute_strategy
    devices = strategy.num_replicas_in_sync

    def compute_on_one_device(*batch: tf.Tensor) -> tf.Tensor:
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = tf.shape(batch[0])[0]
        with tf.device("CPU:0"):  # the batch is there, so each device gets only its own rows
            first, last = rows * index // devices, rows * (index + 1) // devices
            own = [tensor[first:last] for tensor in batch]
        return function(*own)

    found = strategy.run(compute_on_one_device, batch)
    return tf.concat(strategy.experimental_local_results(found), 0)


def num_devices(model: keras.Model) -> int:
    """Returns the number of devices that share a batch of a model, see `on_all_devices`.

    Raises:
        ArgumentError: the backend of Keras is neither TensorFlow nor JAX.
    """
    if check_backend() == "jax":
        return len(model.variables[0].value.sharding.device_set)
    return model.distribute_strategy.num_replicas_in_sync


def scope_of(model: keras.Model) -> AbstractContextManager:
    """The context in which further variables are created on the devices of a model."""
    if keras.backend.backend() == "jax":
        return nullcontext()  # that of `find_devices`, if it is still open
    return model.distribute_strategy.scope()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of TensorFlow or JAX says that something did not fit into memory."""
    # JAX has no class of its own for this error, but its message names the status.
    return isinstance(error, tf.errors.ResourceExhaustedError) or "RESOURCE_EXHAUSTED" in str(error)
