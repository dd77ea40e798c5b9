"""Trains a recipe's net: `model.fit` with the callbacks, into a run folder (§3.1)."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from vgg_keras import runs
from vgg_keras.callbacks import Checkpoint, Journal, PlateauDecay, Progress, WarmStart
from vgg_keras.callbacks.file_names import LAST_WEIGHTS
from vgg_keras.distribution import Cluster, check_divisible, find_devices, is_cpu_only
from vgg_keras.nets import WARM_START_LAYERS, get_net
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.evaluation import validation_stream
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.pipelines.screening import find_bad_images, naming_bad_images
from vgg_keras.pipelines.sources import TRAIN, VALIDATION, Source, Split, open_source
from vgg_keras.pipelines.statistics import ILSVRC, Statistics, compute_statistics
from vgg_keras.pipelines.training import steps_per_epoch, training_stream
from vgg_keras.provenance import warn_of_other_versions
from vgg_keras.recipes import Recipe
from vgg_keras.weights import read

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    out: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    devices: int | None = None,
    cluster: Cluster | None = None,
    tensorboard: bool = False,
    task: Task | None = None,
) -> Path:
    """Trains, or goes on with, the run in folder `out`.

    Killed at any moment and called again, it goes on from the last epoch that ended; on CPU the
    weights at the end are the same to the bit as those of a run never killed.

    Args:
        recipe: what to train.
        out: run folder.
        data_dir: where TFDS keeps its data.
        devices, cluster: see `find_devices`. Processes of a cluster share the folder; one of them
            writes to it.
        tensorboard: whether to write event files under `out`/tensorboard.
        task: what the net is to learn; by default the class of a picture.

    Returns:
        The run folder.

    Raises:
        RunError: the folder cannot be used for this recipe.
        SourceError, BadImageError: the data cannot be used.
        ValueError: the recipe does not fit the data or the devices.
    """
    out, task = Path(out), task or CLASSIFICATION
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ValueError("Event files need TensorBoard: pip install tensorboard")
    used = find_devices(devices, cluster)  # first: TFDS may start TensorFlow, which fixes them
    check_divisible(recipe.batch_size, used.count)
    with used.writer_first("prepare the data"):
        source = open_source(recipe.data, data_dir)
    splits = [source[TRAIN], source[VALIDATION]]
    steps_per_epoch(splits[0], recipe.batch_size)  # refuses a batch that is too large
    if keras.backend.backend() == "tensorflow" and is_cpu_only():
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(recipe.seed)
    with used.scope():
        model = runs.build_model(recipe, len(source.class_names))
        task.compile(model, recipe)
    warm_start = _warm_start(recipe, model, out, task)
    if not recipe.init_from:
        _warn_of_scratch(recipe)
    with contextlib.ExitStack() as kept:
        with used.writer_first("claim the run folder"):
            given = _given_statistics(recipe, out)
            # All that can be refused cheaply has been; from here on the folder is written to.
            if used.is_writer:
                kept.enter_context(runs.lock_run(out))
            runs.prepare_run_folder(out, recipe)
            runs.record_classes(out, source.class_names)
            splits = _usable(splits, source.class_names, recipe, out)
            (training, train_targets), (validation, validation_targets) = (
                task.targets(source, split, recipe) for split in splits
            )
            statistics = given or _computed_statistics(training)
            if used.is_writer:
                statistics.save(out / runs.STATISTICS)
        steps = steps_per_epoch(training, recipe.batch_size)

        plateau = PlateauDecay(
            task.monitor,
            patience=recipe.plateau_patience,
            factor=recipe.plateau_factor,
            drops=recipe.plateau_drops,
        )
        checkpoint = Checkpoint(out, {"plateau": plateau}, task.monitor)
        progress = Progress(steps, steps * recipe.batch_size)
        journal = Journal(out / runs.JOURNAL, steps * recipe.batch_size, exclude=("val_loss",))
        boards = [keras.callbacks.TensorBoard(out / "tensorboard")] if tensorboard else []
        if used.is_writer:
            callbacks = [*warm_start, journal, progress, plateau, *boards, checkpoint]
        else:  # the same course, without a trace
            callbacks = [*warm_start, plateau]
        with used.scope():
            done = checkpoint.restore(model)
        if done.finished or done.epochs >= recipe.epochs:
            log.info("%s is trained already: %d epochs", out, done.epochs)
            return out
        if done.epochs:
            log.info("%s: going on after epoch %d", out, done.epochs)
            warn_of_other_versions(out)
        with naming_bad_images(training, validation), used.scope():
            try:
                model.fit(
                    training_stream(
                        training,
                        crop_size=recipe.crop_size,
                        train_scale=recipe.train_scale,
                        batch_size=recipe.batch_size,
                        statistics=statistics,
                        seed=recipe.seed,
                        first_epoch=done.epochs,
                        flip=recipe.flip,
                        colour_shift=recipe.colour_shift,
                        part=used.part,
                        **train_targets,
                    ),
                    steps_per_epoch=steps,
                    initial_epoch=done.epochs,
                    epochs=recipe.epochs,
                    validation_data=validation_stream(
                        validation,
                        crop_size=recipe.crop_size,
                        test_scale=recipe.validation_scale,
                        batch_size=recipe.batch_size,
                        mean=statistics.mean,
                        part=used.part,
                        **validation_targets,
                    ),
                    callbacks=callbacks,
                    shuffle=False,  # the stream is shuffled
                    verbose=0,
                )
            finally:
                progress.close()
    return out


@dataclass(frozen=True)
class Task:
    """What a net learns.

    Attributes:
        compile: compiles a model for a recipe.
        targets: from a source, one of its splits and a recipe: the pictures that can be used,
            and arguments of both streams that say what is to be learnt of them.
        start_layers: from a recipe and a model: layers to take from `init_from`; None for all.
        monitor: entry of the logs that decides on the rate and on the best weights.
    """

    compile: Callable[[keras.Model, Any], None]
    targets: Callable[[Source, Split, Any], tuple[Split, dict[str, Any]]]
    start_layers: Callable[[Any, keras.Model], Sequence[str] | None]
    monitor: str


def compile_model(model: keras.Model, recipe: Recipe) -> None:
    """Compiles a model of scores (logits) for the recipe: SGD with momentum (§3.1)."""
    metrics = [
        keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        keras.metrics.SparseTopKCategoricalAccuracy(
            min(5, model.output_shape[-1]), name="top5_accuracy"
        ),
        keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
    ]
    compile_with(
        model, recipe, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics
    )


def compile_with(
    model: keras.Model,
    recipe: Recipe,
    loss: keras.losses.Loss,
    metrics: Sequence[keras.metrics.Metric],
) -> None:
    """Compiles a model for a loss and metrics: SGD with momentum (§3.1).

    The metrics are weighted, so that filling in the last validation batch counts for nothing.
    """
    model.compile(
        optimizer=keras.optimizers.SGD(recipe.learning_rate, momentum=recipe.momentum),
        loss=loss,
        weighted_metrics=list(metrics),
        jit_compile="auto" if _is_for_xla() else False,
    )


def _is_for_xla() -> bool:
    """JAX is nothing without it; TensorFlow's is slower than oneDNN on CPU, and hangs with
    several replicas."""
    return keras.backend.backend() == "jax" or len(tf.config.list_physical_devices("GPU")) == 1


def _classification_layers(recipe: Recipe, model: keras.Model) -> Sequence[str] | None:
    return WARM_START_LAYERS if recipe.init_layers == "warm-start" else None


CLASSIFICATION = Task(
    compile_model,
    lambda source, split, recipe: (split, {}),
    _classification_layers,
    "val_accuracy",
)


def _warm_start(recipe: Recipe, model: keras.Model, out: Path, task: Task) -> list[WarmStart]:
    """The callback, if there is to be one, found to fit."""
    if not recipe.init_from or (out / LAST_WEIGHTS).exists():
        return []
    source = recipe.init_from
    layers = task.start_layers(recipe, model)
    matching = recipe.init_layers == "matching"
    warm_start = WarmStart(
        source if Path(source).is_dir() else read(source, partial=matching).layers,
        layers,
        matching=matching,
        name=source,
    )
    warm_start.check(model)
    return [warm_start]


def _warn_of_scratch(recipe: Recipe) -> None:
    """Where the paper does not begin with random weights (§3.1)."""
    if recipe.init_layers != "warm-start":
        log.warning(
            "without --init-from there is nothing to take init_layers=%s from: the net starts from "
            "scratch",
            recipe.init_layers,
        )
    if len(get_net(recipe.net).conv_names) > 8 and recipe.initialisation == "gaussian":
        log.warning(
            "net %s is not expected to learn from the paper's Gaussian (§3.1): start it from net A "
            "with --init-from, or take --initialisation glorot",
            recipe.net,
        )


def _usable(
    splits: list[Split], class_names: Sequence[str], recipe: Recipe, out: Path
) -> list[Split]:
    """The splits, less unreadable pictures where the recipe says so."""
    if recipe.on_bad_image == "stop":
        return splits
    file = out / runs.BAD_IMAGES
    if not file.exists():
        log.info("reading every picture once to find those that cannot be read")
        bad = {split.name: find_bad_images(split) for split in splits}
        atomic_write(file, json.dumps(bad, indent=2) + "\n")
    bad = json.loads(file.read_text())
    for split in splits:
        log.info("%s: %d of %d pictures skipped", split.name, len(bad[split.name]), len(split))
        for name in bad[split.name]:
            log.warning("skipped, cannot be read: %s", name)
    usable = [split.without(bad[split.name]) for split in splits]
    for split in usable:
        if bad[split.name]:
            _check_classes(split, class_names)
    return usable


def _check_classes(split: Split, class_names: Sequence[str]) -> None:
    """Raises SourceError where a class has lost all of its pictures."""
    empty = set(range(len(class_names))) - set(split.all_labels().tolist())
    if empty:
        names = ", ".join(class_names[i] for i in sorted(empty))
        raise SourceError(
            f"No picture in the {split.name!r} split that can be read is of these classes: {names}."
        )


def _given_statistics(recipe: Recipe, out: Path) -> Statistics | None:
    """Those the run was begun with, ILSVRC's or a file's; None where they must be computed."""
    same_recipe = (out / runs.STATISTICS).exists() and runs.is_run_of(out, recipe)
    if same_recipe:
        return Statistics.load(out / runs.STATISTICS)
    if recipe.statistics == "ilsvrc":
        return ILSVRC
    if recipe.statistics == "training-set":
        return None
    if not Path(recipe.statistics).is_file():
        raise ValueError(
            "statistics must be ilsvrc, training-set or the name of a JSON file that "
            f"`vgg-keras statistics --out` wrote. Received: {recipe.statistics!r}"
        )
    return Statistics.load(recipe.statistics)


def _computed_statistics(training: Split) -> Statistics:
    log.info("computing mean and colour components of %d training pictures", len(training))
    return compute_statistics(training)
