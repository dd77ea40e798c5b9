"""Trains the net of a recipe: `model.fit` with the callbacks, into a run folder (§3.1)."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from vgg_keras import runs
from vgg_keras.callbacks import (
    Checkpoint,
    Journal,
    OneTraining,
    PlateauDecay,
    Progress,
    RaiseOnDivergence,
    WarnOfChance,
)
from vgg_keras.callbacks.checkpoint import Progressed, read_progress
from vgg_keras.distribution import Cluster, Devices, check_divisible, find_devices, is_cpu_only
from vgg_keras.errors import ArgumentError, MissingPackageError, OutOfMemoryError
from vgg_keras.extension import PLATEAU, extend, make_plateau
from vgg_keras.forecast import Forecast, memory_of
from vgg_keras.forward import is_out_of_memory
from vgg_keras.net_files import build_for_training, read_recipe
from vgg_keras.pipelines.evaluation import validation_stream
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.pipelines.screening import naming_bad_images
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source
from vgg_keras.pipelines.training import steps_per_epoch, training_stream
from vgg_keras.provenance import warn_of_other_versions
from vgg_keras.recipe_differences import explain_epochs
from vgg_keras.recipes import Recipe, Stage
from vgg_keras.run_files import JOURNAL, RECIPE
from vgg_keras.starting import make_warm_start
from vgg_keras.tasks import CLASSIFICATION, Task
from vgg_keras.training_data import TrainingData, given_statistics, prepare_data

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    out: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    devices: int | None = None,
    cluster: Cluster | None = None,
    tensorboard: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    task: Task | None = None,
    source: Source | None = None,
) -> Path:
    """Trains a net in the run folder `out`, or continues a run that was interrupted.

    After an interruption at any moment, the same call continues after the last finished epoch, on
    CPU to the same bits. `epochs` and the plateau's settings may change if no weight depends on it.

    Args:
        recipe, out, data_dir: what to train, the run folder, and where TFDS stores its data.
        devices, cluster: see `find_devices`. One process of a cluster writes the folder.
        tensorboard: whether to write event files under `out`/tensorboard.
        callbacks: further Keras callbacks, used in every process. Checkpoints omit their state.
        verbose: 0 for no progress; 1 or "auto" for a bar, and one line for each epoch.
        task: what the net learns; by default the class of an image.
        source: the data of the recipe, if they are open already; several runs read labels once.

    Returns:
        The run folder, which `TrainedNet.load` takes.

    Raises:
        RunError: the folder cannot be used for this recipe. It is checked first.
        SourceError, BadImageError: the data cannot be used.
        DivergenceError: the loss of an epoch is not finite. The epochs before it are saved.
        ArgumentError: the recipe does not fit the data or the devices.
        OutOfMemoryError, MissingPackageError: a batch does not fit; there is no TensorBoard.

    Example:
        run = train(Recipe(net="A", data="folder:ilsvrc"), "runs/a")
        net = TrainedNet.load(run)
    """
    out, task = runs.check_run_folder(Path(out), recipe), task or CLASSIFICATION
    used = find_devices(devices, cluster)  # first: TFDS may start TensorFlow, which fixes them
    further = [*(_tensorboard(out) if tensorboard and used.is_writer else []), *callbacks]
    check_divisible(recipe.batch_size, used.count)
    with used.writer_first("prepare the data"):
        source = _opened(recipe, data_dir, source)
    splits = [source[TRAIN], source[VALIDATION]]
    steps_per_epoch(splits[0], recipe.batch_size)  # refuses a batch that is too large
    model = _new_model(recipe, len(source.class_names), used)
    warm_start = make_warm_start(recipe, model, out, task)
    with contextlib.ExitStack() as locks:
        with used.writer_first("claim the run folder"):
            given_statistics(recipe, out)
            if used.is_writer:  # what can be refused cheaply has been: the folder is written now
                locks.enter_context(runs.lock_run(out))
                _announce(recipe, source, used)
            data = prepare_data(source, splits, recipe, out, task, used.is_writer)
        _Session(recipe, out, task, used, data, model).run(warm_start, further, verbose)
    return out


def _opened(recipe: Recipe, data_dir: str | os.PathLike | None, source: Source | None) -> Source:
    """The data of a recipe, opened unless they are given."""
    if source is None:
        return open_source(recipe.data, data_dir)
    if source.spec != recipe.data:
        raise ArgumentError(
            f"source must be the data of the recipe, {recipe.data}. Received: {source.spec}",
            "source",
        )
    return source


def _announce(recipe: Recipe, source: Source, used: Devices) -> None:
    """Says what the training will do, and what this machine most likely cannot do."""
    sizes = len(source.class_names), len(source[TRAIN])
    forecast = Forecast(recipe, *sizes, used.count, used.shard.count, used.kind)
    log.info("%s", forecast.line())
    for warning in forecast.warnings(memory_of(used.kind)):
        log.warning("%s", warning)


def _tensorboard(out: Path) -> list[keras.callbacks.Callback]:
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingPackageError("Event files need TensorBoard: pip install tensorboard")
    return [keras.callbacks.TensorBoard(out / "tensorboard")]


def _new_model(recipe: Recipe, num_classes: int, devices: Devices) -> keras.Model:
    if keras.backend.backend() == "tensorflow" and is_cpu_only():
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(recipe.seed)
    with devices.scope():
        return build_for_training(recipe, num_classes)


@dataclass(frozen=True)
class _Session:
    """The training of a run, from its last finished epoch on: one `model.fit` for each stage."""

    recipe: Recipe
    out: Path
    task: Task
    devices: Devices
    data: TrainingData
    model: keras.Model

    @property
    def steps(self) -> int:
        return steps_per_epoch(self.data.training, self.recipe.batch_size)

    def run(
        self,
        warm_start: Sequence[keras.callbacks.Callback],
        further: Sequence[keras.callbacks.Callback],
        verbose: int | str,
    ) -> None:
        recipe, out = self.recipe, self.out
        plateau = make_plateau(recipe, self.task.monitor)
        checkpoint = Checkpoint(out, {PLATEAU: plateau}, self.task.monitor)
        done = self._restore(checkpoint, plateau)
        if done.finished or done.epochs >= recipe.epochs:
            log.info("%s is trained already: %d epochs", out, done.epochs)
            return
        if done.epochs:
            log.info("%s: continuing after epoch %d", out, done.epochs)
            warn_of_other_versions(out)
        images = self.steps * recipe.batch_size
        progress = Progress(self.steps, images)
        diverged = RaiseOnDivergence(_advice(recipe, out))
        callbacks = [*warm_start, plateau, *further, diverged]
        screened = naming_bad_images(self.data.training, self.data.validation)
        watched = runs.watched(out)
        with explained_memory(recipe), screened, watched as check_folder, self.devices.scope():
            if self.devices.is_writer:  # the others follow the same course without writing
                watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: check_folder())
                journal = Journal(out / JOURNAL, images, exclude=("val_loss",))
                shown = [progress, WarnOfChance()] if verbose else [WarnOfChance()]
                writing = [watch, journal, *shown, plateau, *further, diverged, checkpoint]
                callbacks = [*warm_start, *writing]
            try:
                self._fit(done.epochs, callbacks)
            finally:
                progress.close()

    def _restore(self, checkpoint: Checkpoint, plateau: PlateauDecay) -> Progressed:
        """Restores the last epoch; if the recipe has other settings now, with these."""
        recipe, out = self.recipe, self.out
        former = read_recipe(out / RECIPE)
        # The last epoch was saved with the optimizer of its stage.
        saved = read_progress(out).epochs
        self._compile(next(s for s in recipe.stages if saved <= s.end or s is recipe.stages[-1]))
        with self.devices.scope():
            done = checkpoint.restore(self.model)
        if former == recipe:
            return done
        if state := extend(out, former, recipe, done.epochs):
            done = Progressed(done.epochs, state.finished)
            plateau.wait, plateau.drops_done = state.wait, state.drops_done
            if state.learning_rate is not None:
                with self.devices.scope():
                    self.model.optimizer.learning_rate = state.learning_rate
        if not done.finished:
            changes = "; ".join(former.differences(recipe))
            log.info("%s: goes on with %s%s", out, changes, explain_epochs(former, recipe))
        self.devices.meet("continue the run")  # all have read what is now written
        if self.devices.is_writer:
            # In this order: after a kill in between, the same recipe gives the same state again.
            if state:
                checkpoint.save(self.model, *done)
            atomic_write(out / RECIPE, recipe.to_json())
        return done

    def _fit(self, first_epoch: int, callbacks: list[keras.callbacks.Callback]) -> None:
        epochs, validation = self.recipe.epochs, self._validation_stream()
        of_all = OneTraining(callbacks, model=self.model, epochs=epochs, steps=self.steps)
        for stage in self.recipe.stages:
            if first_epoch >= stage.end or self.model.stop_training:
                continue
            if first_epoch == stage.first_epoch > 0:
                self._compile(stage)
            if len(self.recipe.stages) > 1:
                log.info(
                    "epochs %d to %d: trainable=%s, learning rate %.2g",
                    first_epoch + 1,
                    stage.end,
                    stage.recipe.trainable,
                    stage.recipe.learning_rate,
                )
            self.model.fit(
                self._training_stream(first_epoch),
                steps_per_epoch=self.steps,
                initial_epoch=first_epoch,
                epochs=stage.end,
                # Without an end, so that Keras makes one iterator and not two for every epoch.
                validation_data=validation.repeat(),
                validation_steps=int(validation.cardinality()),
                callbacks=of_all,
                shuffle=False,  # the stream is shuffled
                verbose=0,
            )
            first_epoch = stage.end

    def _compile(self, stage: Stage) -> None:
        """Compiles the model for a stage, with a new optimizer."""
        with self.devices.scope():
            self.task.compile(self.model, stage.recipe)

    def _training_stream(self, first_epoch: int) -> tf.data.Dataset:
        recipe = self.recipe
        return training_stream(
            self.data.training,
            crop_size=recipe.crop_size,
            train_scale=recipe.train_scale,
            batch_size=recipe.batch_size,
            statistics=self.data.statistics,
            seed=recipe.seed,
            first_epoch=first_epoch,
            flip=recipe.flip,
            colour_shift=recipe.colour_shift,
            shard=self.devices.shard,
            **self.data.training_targets,
        )

    def _validation_stream(self) -> tf.data.Dataset:
        recipe = self.recipe
        return validation_stream(
            self.data.validation,
            crop_size=recipe.crop_size,
            test_scale=recipe.validation_scale,
            batch_size=recipe.batch_size,
            mean=self.data.statistics.mean,
            fill_last=True,  # batches of one size divide among devices
            shard=self.devices.shard,
            **self.data.validation_targets,
        )


@contextlib.contextmanager
def explained_memory(recipe: Recipe) -> Iterator[None]:
    """Turns the errors of TensorFlow and JAX about memory into one that says what to do.

    Raises:
        OutOfMemoryError: the training of the recipe does not fit into memory.
    """
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"Training net {recipe.net} with batches of {recipe.batch_size} did not fit into "
            f"memory. Give a smaller batch_size, or more devices."
        ) from error


def _advice(recipe: Recipe, out: Path) -> str:
    """How to go on after training diverged."""
    return (
        f"{out} keeps the last epoch before that. Train into another folder with a learning_rate "
        f'below {recipe.learning_rate:g}, and with init_from="{out}" init_layers="all" if an epoch '
        f"of it was good. With pretrained layers, fc_epochs=1 trains the FC layers first. Your own "
        f"call of `model.fit` can also clip gradients (`clipnorm` of the optimizer)."
    )
