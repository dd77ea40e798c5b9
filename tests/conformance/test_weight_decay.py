"""Weight decay in the optimizer equals weight decay in the loss, on every backend (§3.1).

The reference is Keras's own: a plain model, whose L2 penalties are differentiated with the loss.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from vgg_keras import vgg
from vgg_keras.recipes import Recipe
from vgg_keras.tasks import compile_model
from vgg_keras.weight_decay import VGG, CaffeSGD, weight_decay_of

DECAY, STEPS, BATCH, CLASSES = 0.1, 3, 4, 3
RECIPE = Recipe(learning_rate=1e-2, momentum=0.9)


def build(policy="float32", decay=DECAY):
    """A net of three small FC layers."""
    l2 = keras.regularizers.L2(decay / 2) if decay else None
    inputs = keras.Input((8,))
    x = inputs
    for seed, (name, units) in enumerate({"fc1": 16, "fc2": 16, "predictions": CLASSES}.items()):
        x = keras.layers.Dense(
            units,
            activation=None if name == "predictions" else "relu",
            kernel_initializer=keras.initializers.GlorotUniform(seed),
            kernel_regularizer=l2,
            dtype="float32" if name == "predictions" else policy,
            name=name,
        )(x)
    model = VGG(inputs, x)
    model.dtype_policy = keras.dtype_policies.get(policy)  # Keras scales the loss by it
    return model


def batches():
    rng = np.random.default_rng(0)
    return [
        (rng.normal(0, 1, (BATCH, 8)).astype("float32"), rng.integers(0, CLASSES, BATCH))
        for _ in range(STEPS)
    ]


def plain(model):
    """The same layers in a plain Keras model."""
    one = keras.Model(model.input, model.output)
    one.dtype_policy = model.dtype_policy
    return one


def compiled(model, optimizer):
    """The model, compiled for steps that are not traced, which takes longer than running them."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=True, jit_compile=False)
    return model


def train(model):
    """The weights after some steps, and their losses."""
    losses = []
    for images, labels in batches():
        model.reset_metrics()
        losses.append(float(model.train_on_batch(images, labels, return_dict=True)["loss"]))
    return model.get_weights(), losses


def after_steps(model, recipe=RECIPE, sgd=None, **options):
    """The weights and the losses of some steps, of the recipe's optimizer or of `sgd`."""
    compile_model(model, recipe)
    model.run_eagerly = True
    if sgd:
        compiled(model, sgd(1e-2, **({"momentum": 0.9} | options)))
    return train(model)


def reference_steps(model, recipe=RECIPE, **options):
    return after_steps(plain(model), recipe, keras.optimizers.SGD, **options)


def assert_same(found, expected, rtol=1e-5):
    for ours, theirs in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-7)
    np.testing.assert_allclose(found[1], expected[1], rtol=rtol)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_the_steps_and_the_losses_are_those_of_penalties_in_the_loss(policy):
    ours = build(policy)
    found, expected = after_steps(ours), reference_steps(build(policy))
    assert isinstance(getattr(ours.optimizer, "inner_optimizer", ours.optimizer), CaffeSGD)
    assert_same(found, expected, 1e-5 if policy == "float32" else 1e-3)
    without = after_steps(build(policy, decay=0))[0]
    assert np.abs(without[0] - found[0][0]).max() > 3e-3 * np.abs(found[0][0]).max()


def test_the_reported_loss_is_the_cross_entropy_and_the_penalty_before_the_step():
    model = build()
    compile_model(model, RECIPE)
    model.run_eagerly = True
    images, labels = batches()[0]
    for call in (model.test_on_batch, model.train_on_batch, model.train_on_batch):
        penalty = sum(DECAY / 2 * (w**2).sum() for w in model.get_weights() if w.ndim > 1)
        model.reset_metrics()
        logs = call(images, labels, return_dict=True)
        assert penalty > 0.01
        assert float(logs["loss"]) == pytest.approx(float(logs["cross_entropy"]) + penalty, 1e-5)


def test_frozen_layers_and_biases_do_not_decay():
    recipe = Recipe(learning_rate=1e-2, trainable="fc2")
    ours = build()
    before = ours.get_weights()
    assert_same(after_steps(ours, recipe), reference_steps(build(), recipe))
    changed = [
        variable.path
        for variable, old in zip(ours.weights, before, strict=True)
        if not np.array_equal(keras.ops.convert_to_numpy(variable), old)
    ]
    assert changed == ["fc2/kernel", "fc2/bias"]
    decays = {variable.path.split("/")[-1]: weight_decay_of(variable) for variable in ours.weights}
    assert decays == {"kernel": DECAY, "bias": 0.0}


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.0},
        {"nesterov": True},
        {"gradient_accumulation_steps": 2},
        {"use_ema": True, "ema_overwrite_frequency": 2},
    ],
)
def test_the_other_options_of_sgd_do_the_same(options):
    assert_same(after_steps(build(), sgd=CaffeSGD, **options), reference_steps(build(), **options))


@pytest.mark.parametrize(
    ("change", "sgd"), [(plain, CaffeSGD), (lambda model: model, keras.optimizers.SGD)]
)
def test_a_plain_model_or_another_optimizer_keeps_the_penalties_in_the_loss(change, sgd):
    assert_same(after_steps(change(build()), sgd=sgd), reference_steps(build()))


def test_another_regulariser_keeps_its_gradient():
    ours, reference = build(), build()
    for model in (ours, reference):
        model.get_layer("fc1").kernel.regularizer = keras.regularizers.L1(0.1)
    assert_same(after_steps(ours), reference_steps(reference))


def test_a_compiled_model_is_saved_and_goes_on_with_the_same_steps(tmp_path):
    model = build()
    after_steps(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again, VGG)
    assert isinstance(again.optimizer, CaffeSGD)
    again.run_eagerly = True
    for one in (model, again):
        one.train_on_batch(*batches()[0])
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_traced_steps_do_the_same():
    found = []
    for change, sgd in ((lambda model: model, CaffeSGD), (plain, keras.optimizers.SGD)):
        model = compiled(change(build()), sgd(1e-2, momentum=0.9))
        model.run_eagerly, model.jit_compile = False, keras.backend.backend() == "jax"
        found.append(train(model))
    assert_same(*found)


def gradients_of_losses(model):
    """The gradients of the penalties, as a training loop of one's own takes them."""
    if keras.backend.backend() == "jax":
        import jax

        def total(values):
            mapping = list(zip(model.trainable_variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return sum(model.losses)

        return jax.grad(total)([variable.value for variable in model.trainable_variables])
    import tensorflow as tf

    with tf.GradientTape() as tape:
        total = sum(model.losses)
    values = [variable.value for variable in model.trainable_variables]
    return tape.gradient(total, values, unconnected_gradients="zero")


def assert_gradients_are_those_of_the_penalties(model):
    for variable, found in zip(model.trainable_variables, gradients_of_losses(model), strict=True):
        expected = weight_decay_of(variable) * keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, rtol=1e-6)


class TestOutsideOfItsOwnTrainingStep:
    """There a net is a Keras model like others, and the optimizer is Keras's SGD."""

    def test_the_losses_have_gradients_before_between_and_after_steps(self):
        model = build()
        assert_gradients_are_those_of_the_penalties(model)
        compiled(model, CaffeSGD(1e-2, momentum=0.9))
        for call in (model.test_on_batch, model.train_on_batch, model.test_on_batch):
            assert_gradients_are_those_of_the_penalties(model)
            call(*batches()[0])
        assert_gradients_are_those_of_the_penalties(model)

    def test_a_loop_of_ones_own_has_no_decay_but_that_of_its_gradients(self):
        model = compiled(build(), CaffeSGD(1e-2, momentum=0.9))
        for call in (model.train_on_batch, model.test_on_batch):
            call(*batches()[0])
        assert len(model.losses) == 3
        for velocity in model.optimizer.momentums:
            velocity.assign(keras.ops.zeros_like(velocity))
        before = model.get_weights()
        model.optimizer.apply([keras.ops.zeros_like(v) for v in model.trainable_variables])
        for ours, expected in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(ours, expected)

    def test_a_step_that_fails_leaves_no_decay_behind(self):
        model = compiled(build(), CaffeSGD(1e-2, momentum=0.9))
        with pytest.raises(Exception, match=r"."):
            model.train_on_batch(np.zeros((BATCH, 7), "float32"), np.zeros(BATCH, int))
        assert_gradients_are_those_of_the_penalties(model)

    @pytest.mark.parametrize("method", ["test_on_batch", "train_on_batch"])
    def test_another_model_with_the_same_optimizer_differentiates_its_penalties(self, method):
        found = []
        for sgd in (CaffeSGD, keras.optimizers.SGD):
            model = compiled(build(), sgd(1e-2, momentum=0.9))
            getattr(model, method)(*batches()[0])
            found.append(train(compiled(plain(model), model.optimizer)))
        assert_same(*found)


def test_steps_after_an_evaluation_decay_once():
    model, reference = (compiled(one, CaffeSGD(1e-2, momentum=0.9)) for one in (build(), build()))
    model.test_on_batch(*batches()[0])
    assert_same(train(model), train(reference), 0)


def test_a_model_that_gets_another_optimizer_goes_on_with_penalties_in_the_loss():
    ours, reference = build(), build()
    for model, first in ((ours, CaffeSGD), (reference, keras.optimizers.SGD)):
        after_steps(model, sgd=first)
    found, expected = (after_steps(one, sgd=keras.optimizers.SGD) for one in (ours, reference))
    assert_same(found, expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_clipping_leaves_the_decay_as_it_is(momentum):
    model = compiled(build(), CaffeSGD(1e-2, momentum=momentum, clipvalue=1e-12))
    before = [weight_decay_of(v) * keras.ops.convert_to_numpy(v) for v in model.weights]
    weights = model.get_weights()
    model.train_on_batch(*batches()[0])
    for ours, old, decay in zip(model.get_weights(), weights, before, strict=True):
        np.testing.assert_allclose(ours, old - 1e-2 * decay, rtol=1e-6, atol=1e-12)


def test_a_net_and_its_clone_are_of_the_class_but_not_a_net_without_fc_layers():
    assert isinstance(keras.models.clone_model(vgg("A", 3, 32, 1 / 64)), VGG)
    assert not isinstance(vgg("A", 3, 32, 1 / 64, include_top=False), VGG)
