"""Weight decay in the optimizer, as in Caffe; the reported loss still has the L2 penalty (§3.1).

Keras differentiates the L2 penalties of the kernels with the loss. On TensorFlow that makes several
copies of the kernels in every step, 553 MB each for net D. Caffe adds weight_decay * w to the
gradient of a kernel w, which is the same without the copies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

Tensor = Any  # of the Keras backend


def weight_decay_of(variable: keras.Variable) -> float:
    """Returns the factor of a variable in the gradient of its L2 penalty; 0 if it has none."""
    regulariser = variable.regularizer
    return 2 * regulariser.l2 if isinstance(regulariser, keras.regularizers.L2) else 0.0


@keras.saving.register_keras_serializable("vgg_keras")
class CaffeSGD(keras.optimizers.SGD):
    """SGD with momentum that applies the weight decay when it trains a model that `vgg` made.

    In `fit` and `train_on_batch` of such a model the step is
    `velocity = momentum * velocity - learning_rate * (gradient + weight_decay * w)` and
    `w = w + velocity`, as in Caffe. The weights are those of `keras.optimizers.SGD` with the L2
    penalties in the loss, to rounding, and the reported loss still contains the penalties. On
    TensorFlow a step makes no copies of the weights.

    The weight decay is twice the factor of a variable's `keras.regularizers.L2`. Frozen variables
    do not decay. Clipping applies to the gradient before the weight decay, as in PyTorch.

    Everywhere else it is `keras.optimizers.SGD`: models of other classes and training loops of
    your own take the gradient of the penalties in `model.losses`, as with any optimizer.

    Args: see `keras.optimizers.SGD`.

    Example:
        >>> model = vgg("A")
        >>> model.compile(CaffeSGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    """

    # Number of training steps of a `VGG` that run now: one for each replica of a strategy, which
    # TensorFlow interleaves.
    _decaying_steps = 0

    @property
    def decays(self) -> bool:
        """Whether a step applies the weight decay now; the loss then has no gradient of it."""
        return self._decaying_steps > 0

    @contextlib.contextmanager
    def decaying(self) -> Iterator[None]:
        """Applies the weight decay in the steps of a block."""
        self._decaying_steps += 1
        try:
            yield
        finally:
            self._decaying_steps -= 1

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        index = self._get_variable_index(variable)
        decay = weight_decay_of(self._trainable_variables[index]) if self.decays else 0.0
        if keras.backend.backend() == "tensorflow" and self.momentum and not self.nesterov:
            velocity = self.momentums[index].value
            _step_in_place(variable, velocity, gradient, learning_rate, self.momentum, decay)
        else:
            if decay:
                gradient = ops.add(gradient, ops.multiply(variable, decay))
            super().update_step(gradient, variable, learning_rate)


def _step_in_place(
    variable: Any,
    velocity: Any,
    gradient: Tensor,
    learning_rate: Tensor,
    momentum: float,
    decay: float,
) -> None:
    """The step of `CaffeSGD` for TensorFlow variables, without temporary copies of them.

    The second operation multiplies the velocity by the momentum, so the first divides by it.
    """
    import tensorflow as tf

    rate = tf.cast(learning_rate, variable.dtype)
    if decay:
        tf.raw_ops.ResourceApplyGradientDescent(
            var=velocity.handle, alpha=rate * (decay / momentum), delta=variable
        )
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=variable.handle,
        accum=velocity.handle,
        lr=rate,
        grad=tf.cast(gradient, variable.dtype),
        momentum=tf.constant(momentum, variable.dtype),
    )


@keras.saving.register_keras_serializable("vgg_keras")
class VGG(keras.Model):
    """A functional model that leaves its L2 penalties to `CaffeSGD`, in its own training step.

    `losses` are those of any Keras model: the penalties, with their gradients. In the training step
    of a model that is compiled with a `CaffeSGD` they have no gradient, and the optimizer applies
    the weight decay. The reported loss contains them in both cases.

    Example:
        >>> model = VGG(inputs, outputs)
    """

    def train_step(self, *state_and_data: Any) -> Any:
        """The step of Keras, on every backend: its loss, its gradients and its update."""
        optimizer = self._caffe_sgd()
        with optimizer.decaying() if optimizer else contextlib.nullcontext():
            return super().train_step(*state_and_data)

    def _caffe_sgd(self) -> CaffeSGD | None:
        optimizer = getattr(self, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a loss scale
        return optimizer if isinstance(optimizer, CaffeSGD) else None

    def _get_regularization_losses(self) -> list[Tensor]:
        """The penalties of the trainable variables; `keras.Layer.losses` calls this."""
        optimizer = self._caffe_sgd()
        in_optimizer = optimizer is not None and optimizer.decays
        penalties = []
        for variable in self.trainable_weights:
            if decay := weight_decay_of(variable):
                penalty = decay * _half_squared_norm(variable.value)
                penalties.append(ops.stop_gradient(penalty) if in_optimizer else penalty)
            elif variable.regularizer is not None:
                penalties.append(variable.regularizer(variable.value))
        return penalties


def _half_squared_norm(x: Tensor) -> Tensor:
    """Half the sum of the squares, in one pass over x."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.l2_loss(x)
    return ops.sum(ops.square(x)) / 2
