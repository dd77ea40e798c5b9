"""Twenty training steps equal those of a net, a gradient and an optimizer in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from vgg_keras.models import vgg
from vgg_keras.nets import NETS
from vgg_keras.recipes import Recipe
from vgg_keras.tasks import compile_model

DECAY, MOMENTUM, RATE, STEPS, BATCH = 5e-4, 0.9, 1e-3, 20, 8


class NumpyNet:
    """Net A on its crop in float64: forward, backward, SGD with momentum and weight decay."""

    def __init__(self, weights):
        self.weights = [w.astype(np.float64) for w in weights]
        self.velocities = [np.zeros_like(w) for w in self.weights]
        self.blocks = [len(block) for block in NETS["A"].kernels]

    def step(self, images, labels):
        """Makes one step; returns the loss before it, including weight decay."""
        loss, gradients = self.loss_and_gradients(images.astype(np.float64), labels)
        for i, gradient in enumerate(gradients):
            if self.weights[i].ndim > 1:  # biases have no weight decay
                loss += DECAY / 2 * (self.weights[i] ** 2).sum()
                gradient = gradient + DECAY * self.weights[i]
            self.velocities[i] = MOMENTUM * self.velocities[i] - RATE * gradient
            self.weights[i] += self.velocities[i]
        return loss

    def loss_and_gradients(self, x, labels):
        undo, w = [], iter(zip(self.weights[::2], self.weights[1::2], strict=True))
        for convolutions in self.blocks:
            for _ in range(convolutions):
                x = self.conv(x, *next(w), undo)
            x = self.pool(x, undo)
        shape = x.shape
        x = x.reshape(len(x), -1)
        x = self.dense(x, *next(w), undo, relu=True)
        x = self.dense(x, *next(w), undo, relu=True)
        x = self.dense(x, *next(w), undo, relu=False)
        x = x - x.max(1, keepdims=True)
        posteriors = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        rows = np.arange(len(labels))
        loss = -np.log(posteriors[rows, labels]).mean()
        error = posteriors.copy()
        error[rows, labels] -= 1
        error /= len(labels)
        gradients = []
        for i, back in enumerate(reversed(undo)):
            if i == 3:
                error = error.reshape(shape)
            error, *parts = back(error)
            gradients = parts + gradients
        return loss, gradients

    @staticmethod
    def conv(x, kernel, bias, undo):
        height, width = x.shape[1:3]
        padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        shifts = [(i, j) for i in range(3) for j in range(3)]
        out = bias + sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i, j in shifts)

        def back(error):
            error = error * (out > 0)
            d_kernel, d_padded = np.zeros_like(kernel), np.zeros_like(padded)
            for i, j in shifts:
                part = padded[:, i : i + height, j : j + width]
                d_kernel[i, j] = np.einsum("bhwc,bhwd->cd", part, error)
                d_padded[:, i : i + height, j : j + width] += error @ kernel[i, j].T
            return d_padded[:, 1:-1, 1:-1], d_kernel, error.sum((0, 1, 2))

        undo.append(back)
        return np.maximum(out, 0)

    @staticmethod
    def pool(x, undo):
        b, height, width, c = x.shape
        tiles = x.reshape(b, height // 2, 2, width // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
        flat = tiles.reshape(*tiles.shape[:4], 4)
        winner = flat.argmax(-1)

        def back(error):
            spread = np.zeros_like(flat)
            np.put_along_axis(spread, winner[..., None], error[..., None], -1)
            tiles = spread.reshape(*flat.shape[:4], 2, 2).transpose(0, 1, 4, 2, 5, 3)
            return (tiles.reshape(x.shape),)

        undo.append(back)
        return flat.max(-1)

    @staticmethod
    def dense(x, kernel, bias, undo, relu):
        out = x @ kernel + bias

        def back(error):
            error = error * (out > 0) if relu else error
            return error @ kernel.T, x.T @ error, error.sum(0)

        undo.append(back)
        return np.maximum(out, 0) if relu else out


def test_twenty_steps_equal_an_independent_implementation():
    model = vgg("A", 5, 32, 1 / 16, dropout=0.0, weight_decay=DECAY, classifier_activation=None)
    compile_model(model, Recipe(learning_rate=RATE, momentum=MOMENTUM))
    reference = NumpyNet(model.get_weights())
    rng = np.random.default_rng(0)
    losses, expected = [], []
    for _ in range(STEPS):
        x = rng.normal(0, 50, (BATCH, 32, 32, 3)).astype(np.float32)
        y = rng.integers(0, 5, BATCH)
        expected.append(reference.step(x, y))
        model.reset_metrics()
        losses.append(model.train_on_batch(x, y)[0])
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert max(expected) - min(expected) > 0.1  # the net has learnt
    for ours, theirs in zip(model.get_weights(), reference.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_twenty_steps_equal_pytorch():
    """The steps also equal those of PyTorch's convolution, autograd and SGD."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = vgg("A", 5, 32, 1 / 16, dropout=0.0, weight_decay=DECAY, classifier_activation=None)
    compile_model(model, Recipe(learning_rate=RATE, momentum=MOMENTUM))
    weights = [torch.tensor(w, requires_grad=True) for w in model.get_weights()]
    kernels, biases = weights[::2], weights[1::2]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": DECAY}, {"params": biases, "weight_decay": 0}],
        lr=RATE,
        momentum=MOMENTUM,
    )

    def forward(x):
        functional = torch.nn.functional
        layers = iter(zip(kernels, biases, strict=True))
        for block in NETS["A"].kernels:
            for _ in block:
                kernel, bias = next(layers)
                x = functional.relu(
                    functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1)
                )
            x = functional.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        for i, (kernel, bias) in enumerate(layers):
            x = x @ kernel + bias
            x = functional.relu(x) if i < 2 else x
        return x

    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        x = rng.normal(0, 50, (BATCH, 32, 32, 3)).astype(np.float32)
        y = rng.integers(0, 5, BATCH)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            forward(torch.tensor(x).permute(0, 3, 1, 2)), torch.tensor(y)
        )
        penalty = DECAY / 2 * sum(float((k.detach() ** 2).sum()) for k in kernels)
        loss.backward()
        optimizer.step()
        model.reset_metrics()
        ours = model.train_on_batch(x, y)[0]
        np.testing.assert_allclose(ours, float(loss) + penalty, rtol=1e-4)


def test_dropout_is_on_both_hidden_layers_in_training_alone():
    model = vgg("A", 5, 32, 1 / 16, dropout=0.5, weight_decay=0)
    x = np.random.default_rng(0).normal(0, 50, (4, 32, 32, 3)).astype("float32")
    assert np.array_equal(model(x), model(x))
    assert not np.array_equal(model(x, training=True), model(x, training=True))
    hidden = keras.Model(model.input, [model.get_layer(f"dropout{k}").output for k in (1, 2)])
    for before, after in zip(hidden(x), hidden(x, training=True), strict=True):
        alive = before.numpy() > 0
        assert 0.3 < (after.numpy()[alive] == 0).mean() < 0.7
