"""Checkpoints, and training that continues from them."""

from __future__ import annotations

import resource
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.callbacks.small import data, small_model
from vgg_keras.callbacks import (
    Checkpoint,
    Journal,
    PlateauDecay,
    read_journal,
    read_layers,
)
from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.callbacks.errors import CheckpointError
from vgg_keras.pipelines.errors import WriteError


class TestCheckpoint:
    def fit(self, folder, epochs, model=None):
        x, y = data()
        model = model or small_model()
        plateau = PlateauDecay(monitor="accuracy", patience=1, drops=9)
        checkpoint = Checkpoint(folder, {"plateau": plateau}, monitor="accuracy")
        done = checkpoint.restore(model)
        model.fit(
            x,
            y,
            batch_size=8,
            shuffle=False,
            epochs=epochs,
            verbose=0,
            initial_epoch=done.epochs,
            callbacks=[plateau, checkpoint],
        )
        return model, plateau, done

    def test_an_interrupted_run_ends_like_an_uninterrupted_one(self, tmp_path):
        """Weights, momentum, learning rate, dropout masks and the plateau state are restored."""
        whole, plateau_whole, _ = self.fit(tmp_path / "whole", 6)
        self.fit(tmp_path / "parts", 2)
        _, _, done = self.fit(tmp_path / "parts", 5)
        assert done == (2, False)
        parts, plateau_parts, _ = self.fit(tmp_path / "parts", 6, small_model(seed=9))
        assert plateau_parts.get_state() == plateau_whole.get_state()
        assert plateau_whole.drops_done > 0
        for a, b in zip(whole.variables, parts.variables, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(whole.optimizer.variables, parts.optimizer.variables, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_the_best_weights_are_saved(self, tmp_path):
        model = small_model()
        checkpoint = Checkpoint(tmp_path)
        checkpoint.set_model(model)
        model.stop_training = False
        best = []
        for epoch, value in enumerate((0.3, 0.5, 0.5, 0.4)):  # the first of equal epochs is best
            model.set_weights([np.full(w.shape, epoch, "float32") for w in model.get_weights()])
            checkpoint.on_epoch_end(epoch, {"val_accuracy": value})
            best.append(read_layers(tmp_path)["out"][0][0, 0])
        assert best == [0, 1, 1, 1]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["best.weights.h5", "last.weights.h5"]
        other = small_model(seed=5)
        other.load_weights(tmp_path / "best.weights.h5")
        assert {float(w.min()) for w in other.get_weights()} == {1.0}

    def test_files_of_the_same_training_are_identical(self, tmp_path):
        self.fit(tmp_path / "a", 2)
        other = small_model()
        keras.Model(other.inputs, other.outputs)  # Keras counts models without a name
        self.fit(tmp_path / "b", 2)
        for name in ("best.weights.h5", "last.weights.h5"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_an_empty_folder_restores_nothing(self, tmp_path):
        assert Checkpoint(tmp_path).restore(small_model()) == (0, False)
        assert read_progress(tmp_path) == (0, False)

    def test_an_epoch_that_diverged_is_named(self, tmp_path, caplog):
        Checkpoint(tmp_path).on_epoch_end(1, {"val_accuracy": 1, "val_loss": float("nan")})
        assert caplog.messages == [
            "epoch 2 is not saved, because training diverged: val_loss is nan"
        ]

    def test_training_begins_with_a_file_unless_there_is_one(self, tmp_path):
        for weights in (0.5, 0.25):
            model = small_model()
            model.set_weights([np.full(w.shape, weights, "float32") for w in model.get_weights()])
            checkpoint = Checkpoint(tmp_path)
            checkpoint.set_model(model)
            model.stop_training = False
            checkpoint.on_train_begin()
            assert read_progress(tmp_path) == (0, False)
            assert {float(w.min()) for w in self.restored(tmp_path).get_weights()} == {0.5}

    def restored(self, folder):
        model = small_model()
        Checkpoint(folder).restore(model)
        return model

    def test_a_model_with_other_random_layers_is_refused(self, tmp_path):
        self.fit(tmp_path, 1)
        layers = [layer for layer in small_model().layers if layer.name != "drop"]
        other = keras.Sequential([keras.layers.Input((3,)), *layers])
        other.compile(keras.optimizers.SGD(0.1, momentum=0.9, name="sgd"))
        with pytest.raises(CheckpointError, match=r"last\.weights\.h5 cannot be restored"):
            Checkpoint(tmp_path).restore(other)

    def test_little_more_space_is_asked_for_than_a_file_takes(self, tmp_path):
        self.fit(tmp_path, 1, small_model(units=100_000))
        size = (tmp_path / "last.weights.h5").stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300_000, limits[1]))
        try:
            self.fit(tmp_path, 2, small_model(units=100_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert read_progress(tmp_path) == (2, False)

    def test_the_end_of_training_is_saved(self, tmp_path):
        model = small_model()
        checkpoint = Checkpoint(tmp_path)
        checkpoint.set_model(model)
        model.stop_training = True
        checkpoint.on_epoch_end(4, {"val_accuracy": 1})
        assert Checkpoint(tmp_path).restore(small_model()) == (5, True)

    def test_a_broken_checkpoint_is_named(self, tmp_path):
        (tmp_path / "last.weights.h5").write_bytes(b"half a file")
        with pytest.raises(CheckpointError, match=r"last\.weights\.h5 cannot be restored"):
            Checkpoint(tmp_path).restore(small_model())

    def test_a_failed_write_leaves_the_old_files_intact(self, tmp_path, monkeypatch):
        self.fit(tmp_path, 1)
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

        def full_disk(self, path, **_):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(keras.Model, "save_weights", full_disk)
        with pytest.raises(WriteError, match="No space left"):
            self.fit(tmp_path, 2)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before

    def test_seeds_of_nested_layers_are_saved(self, tmp_path):
        """The dropout of a model within a model draws the same masks after a restart."""

        def nested():
            model = keras.Sequential([keras.layers.Input((3,)), small_model(seed=3)])
            model.compile(
                "sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
            )
            return model

        whole, _, _ = self.fit(tmp_path / "whole", 3, nested())
        self.fit(tmp_path / "parts", 1, nested())
        parts, _, _ = self.fit(tmp_path / "parts", 3, nested())
        for a, b in zip(whole.variables, parts.variables, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_a_subclassed_model_is_saved_and_restored(self, tmp_path):
        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.out = keras.layers.Dense(2)

            def call(self, x):
                return self.out(x)

        def own():
            model = Own()
            model.compile(
                "sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
            )
            model(np.zeros((1, 3), "float32"))
            return model

        model, _, _ = self.fit(tmp_path, 2, own())
        restored = own()
        assert Checkpoint(tmp_path).restore(restored) == (2, False)
        np.testing.assert_array_equal(model.get_weights()[0], restored.get_weights()[0])

    def test_checkpoints_work_with_the_callbacks_of_keras(self, tmp_path):
        """`EarlyStopping` ends the training, and the checkpoint records the end."""
        x, y = data()
        model = small_model()
        model.optimizer.learning_rate = 0.0
        others = [
            keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9.0),
            keras.callbacks.ReduceLROnPlateau("loss"),
            keras.callbacks.ModelCheckpoint(tmp_path / "own.keras", monitor="val_accuracy"),
        ]
        model.fit(
            x,
            y,
            validation_split=0.5,
            epochs=9,
            verbose=0,
            callbacks=[*others, Journal(tmp_path / "j.jsonl", 16), Checkpoint(tmp_path)],
        )
        assert read_progress(tmp_path) == (2, True)
        assert len(read_journal(tmp_path / "j.jsonl")) == 2
