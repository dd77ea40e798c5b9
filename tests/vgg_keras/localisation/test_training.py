"""Localisation nets: the loss, the training targets, the tuned layers, and a trained net."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import CLASSES
from tests.tiny import CROP
from tests.vgg_keras.localisation.conftest import journal_of
from vgg_keras import training_data
from vgg_keras.localisation.dense import make_box_fn, window_frames
from vgg_keras.localisation.losses import EuclideanBoxLoss, box_accuracy
from vgg_keras.localisation.task import LOCALISATION, train_localisation
from vgg_keras.net_files import build_for_training
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.boxes import iou
from vgg_keras.pipelines.evaluation import validation_stream
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pipelines.training import training_stream
from vgg_keras.recipes import LocalisationRecipe, Recipe
from vgg_keras.report.curves import learning_curves


class TestLoss:
    targets = np.float32([[0.5, 0.5, 1, 1, 2], [0.2, 0.3, 0.4, 0.5, 0]])

    def test_the_loss_is_half_the_squared_distance(self):
        found = np.float32([[0.6, 0.5, 1, 0.8], [0.2, 0.3, 0.4, 0.5]])
        loss = EuclideanBoxLoss(reduction="none")(self.targets, found)
        np.testing.assert_allclose(loss, [(0.01 + 0.04) / 2, 0], atol=1e-7)

    def test_only_the_box_of_the_true_class_is_penalised(self):
        every = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32)
        every[0, 8:12], every[1, 0:4] = self.targets[0, :4], self.targets[1, :4]
        variable = tf.Variable(every)
        with tf.GradientTape() as tape:
            loss = EuclideanBoxLoss()(self.targets, variable + 0.5)
        touched = np.abs(tape.gradient(loss, variable).numpy()) > 0
        expected = np.zeros((2, 12), bool)
        expected[0, 8:12] = expected[1, 0:4] = True
        np.testing.assert_array_equal(touched, expected)

    def test_accuracy_is_the_ilsvrc_criterion(self):
        rng = np.random.default_rng(1)
        true = rng.uniform(0, 1, (200, 4)).astype(np.float32)
        found = (true + rng.normal(0, 0.15, true.shape)).astype(np.float32)
        targets = np.concatenate([true, np.zeros((200, 1), np.float32)], 1)

        def corners(b):
            half = np.maximum(b[:, 2:], 0) / 2
            return np.concatenate([b[:, :2] - half, b[:, :2] + half], 1)

        expected = iou(corners(true), corners(found)).numpy() > 0.5
        assert 0.1 < expected.mean() < 0.9
        np.testing.assert_array_equal(box_accuracy(targets, found).numpy(), expected)

    def test_an_overlap_of_exactly_half_is_an_error(self):
        """The box of the true class covers half of the object; that of the other class, all."""
        targets = np.float32([[0.5, 0.5, 1, 1, 1]])
        half, whole = [0.25, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]
        assert box_accuracy(targets, np.float32([[*whole, *half]])).numpy().tolist() == [0]
        assert box_accuracy(targets, np.float32([[*half, *whole]])).numpy().tolist() == [1]

    def test_the_loss_is_registered_with_keras(self):
        assert keras.saving.get_registered_name(EuclideanBoxLoss) == "vgg_keras>EuclideanBoxLoss"


class TestRecipe:
    def test_the_recipe_sets_the_outputs_of_the_last_layer(self):
        assert LocalisationRecipe().outputs(1000) == 4000
        assert LocalisationRecipe(regression="single-class").outputs(1000) == 4
        assert Recipe().outputs(1000) == 1000

    def test_a_localisation_recipe_is_read_back_as_one(self):
        recipe = LocalisationRecipe(trainable="fc")
        assert Recipe.from_json(recipe.to_json()) == recipe
        assert type(Recipe.from_json(Recipe().to_json())) is Recipe
        assert LocalisationRecipe().learning_rate == 1e-3

    def test_unknown_names_are_refused(self):
        for options in ({"regression": "both"}, {"trainable": "conv"}):
            with pytest.raises(ValueError, match=r"must be .*Received: "):
                LocalisationRecipe(**options)


class TestStream:
    def test_the_stream_has_the_crops_of_classification_with_targets_and_weights(self, data):
        source = open_source(data)
        split, boxes, _ = boxed_split(source, source["train"])
        options = {
            "crop_size": CROP,
            "train_scale": (60, 90),
            "batch_size": 16,
            "statistics": ILSVRC,
        }
        plain = training_stream(split, **options)
        crops, labels = next(iter(plain))
        images, targets, weights = next(iter(training_stream(split, **options, boxes=boxes)))
        np.testing.assert_array_equal(images, crops)
        np.testing.assert_array_equal(targets[:, 4], labels)
        centre = targets[:, :2].numpy()
        np.testing.assert_array_equal(weights, ((centre >= 0) & (centre <= 1)).all(1))
        assert 0 < weights.numpy().mean() < 1

    def test_targets_frame_the_object(self, data):
        """If the crop contains the whole box, the colour of the class is inside the box alone."""
        source = open_source(data)
        split, boxes, _ = boxed_split(source, source["train"])
        stream = training_stream(
            split,
            crop_size=64,
            train_scale=64,
            batch_size=48,
            statistics=ILSVRC,
            colour_shift=0,
            boxes=boxes,
        )
        images, targets, _ = next(iter(stream))
        checked = 0
        for image, target in zip(images.numpy() + ILSVRC.mean, targets.numpy(), strict=True):
            x, y, w, h = 64 * target[:4]
            low, high = np.array([y - h / 2, x - w / 2]), np.array([y + h / 2, x + w / 2])
            if (low < 1).any() or (high > 63).any():
                continue
            lit = image[..., 2 - int(target[4])] > 165
            rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
            found = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
            np.testing.assert_allclose(found, [*low, *high], atol=1.5)
            checked += 1
        assert checked > 5

    def test_validation_targets_have_the_first_box(self, data):
        source = open_source(data)
        split, boxes, _ = boxed_split(source, source["val"])
        stream = validation_stream(
            split,
            crop_size=CROP,
            test_scale=40,
            batch_size=8,
            mean=ILSVRC.mean,
            boxes=boxes,
            fill_last=True,
        )
        batches = list(stream)
        targets = np.concatenate([t for _, t, _ in batches])
        weights = np.concatenate([w for _, _, w in batches])
        assert targets.shape == (16, 5)
        assert weights.tolist() == [1] * 15 + [0]
        np.testing.assert_array_equal(targets[:15, 4], split.all_labels())


class Begun(keras.callbacks.Callback):
    """Stops before the first step, with the model as training begins."""

    def on_epoch_begin(self, epoch, logs=None):
        raise KeyboardInterrupt


class TestTraining:
    def test_training_starts_from_all_layers_of_the_classifier_except_the_last(
        self, recipe, classifier, tmp_path
    ):
        begun = Begun()
        with pytest.raises(KeyboardInterrupt):
            train_localisation(
                dataclasses.replace(recipe, init_from=classifier.name),
                tmp_path / "run",
                callbacks=[begun],
            )
        assert begun.model.output_shape[-1] == 4 * len(CLASSES)
        for layer in classifier.model.layers:
            if layer.weights and layer.name != "predictions":
                its = begun.model.get_layer(layer.name).get_weights()
                for mine, other in zip(layer.get_weights(), its, strict=True):
                    assert mine.dtype != np.float32 or np.array_equal(mine, other)

    def test_statistics_are_computed_once_for_the_images_of_a_source(self, data, monkeypatch):
        """A classifier and its localisation nets share them, if no image lacks a box."""
        calls = []
        monkeypatch.setattr(
            training_data, "compute_statistics", lambda split: calls.append(split) or ILSVRC
        )
        for _ in range(2):
            source = open_source(data)
            recipe = LocalisationRecipe(net="A", data=data)
            boxed, _ = LOCALISATION.targets(source, source["train"], recipe)
            for split in (source["train"], boxed):
                assert training_data._computed_statistics(split) is ILSVRC
        assert len(calls) == 2  # another source may have other images

    @pytest.mark.parametrize("tuned", ["fc", "all"])
    @pytest.mark.parametrize("regression", ["single-class", "per-class"])
    def test_only_the_layers_of_the_recipe_are_tuned(self, recipe, tuned, regression):
        recipe = dataclasses.replace(recipe, trainable=tuned, regression=regression)
        model = build_for_training(recipe, len(CLASSES))
        LOCALISATION.compile(model, recipe)
        trained = {layer.name for layer in model.layers if layer.trainable_weights}
        fc = {"fc1", "fc2", "predictions"}
        assert trained == fc if tuned == "fc" else trained > fc
        assert model.output_shape[-1] == (4 if regression == "single-class" else 12)

    def test_the_journal_has_the_error_and_the_loss_decreases(self, net, recipe):
        entries = journal_of(net)
        assert [entry["epoch"] for entry in entries] == [1, 2]
        assert all(0 <= entry["val_localisation_error"] <= 100 for entry in entries)
        assert entries[1]["loss"] < entries[0]["loss"]

    def test_learning_curves_are_drawn(self, net):
        loss, error = learning_curves({"boxes": Path(net.name) / "journal.jsonl"}).axes
        assert error.get_ylabel() == "localisation error (%)"
        entries = journal_of(net)
        drawn = [line.get_ydata().tolist() for line in error.lines]
        assert [e["val_localisation_error"] for e in entries] in drawn
        assert [e["loss"] for e in entries] in [l.get_ydata().tolist() for l in loss.lines]


class TestDense:
    def test_a_constant_box_is_predicted_from_every_position(self, net):
        """The last kernel is 0 and the last bias the box, so all windows have the same output."""
        last = net.model.get_layer("predictions")
        before = last.get_weights()
        constant = np.tile(np.float32([0.3, 0.6, 0.5, 0.25]), len(CLASSES))
        last.set_weights([np.zeros_like(before[0]), constant])
        try:
            found = make_box_fn(net)(np.zeros((1, 100, 140, 3), np.float32)).numpy()
        finally:
            last.set_weights(before)
        assert found.shape == (1, 3, 4, 3, 4)
        from vgg_keras.pipelines.boxes import from_window

        frames = window_frames((3, 4), (100, 140), CROP)
        boxes = from_window(found, frames[:, :, None]).numpy()[0] * [140, 100, 140, 100]
        for i in range(3):
            for j in range(4):
                x, y = 32 * j + 0.3 * CROP, 32 * i + 0.6 * CROP
                expected = [x - 0.25 * CROP, y - 0.125 * CROP, x + 0.25 * CROP, y + 0.125 * CROP]
                np.testing.assert_allclose(boxes[i, j], [expected] * 3, atol=1e-4)
