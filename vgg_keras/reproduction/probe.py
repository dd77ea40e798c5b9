"""Times a few steps of training and of testing on this machine."""

from __future__ import annotations

import time
from statistics import median

import keras
import numpy as np

from vgg_keras.distribution import find_devices
from vgg_keras.evaluation.posteriors import make_scorer, row_pass
from vgg_keras.evaluation.procedure import Pass
from vgg_keras.evaluation.rows import RowFiller
from vgg_keras.net_files import build_for_training
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pipelines.training import training_stream
from vgg_keras.recipes import Recipe
from vgg_keras.reproduction.cost import (
    TESTING,
    TRAINING,
    DataFacts,
    Timed,
    net_layers,
    pass_work,
    step_work,
)
from vgg_keras.tasks import CLASSIFICATION
from vgg_keras.trained import TrainedNet
from vgg_keras.training import explained_memory

PROBE_SECONDS = 20
_MANY = 1000  # more steps or images than are timed
_FEW_IMAGES = 8  # a batch of which the time is known soon, also on a slow machine


def probe(
    recipe: Recipe, source: Source, devices: int | None = None, seconds: float = PROBE_SECONDS
) -> list[Timed]:
    """Times training and testing of a net with random weights, reading of the images included.

    Args:
        recipe: how the net is trained.
        source: its data. Only images that are trained on or tested are read.
        devices: see `find_devices`.
        seconds: about how long the probe may take.

    Returns:
        For each kind of work two times: of its start, and of its start with some work.
    """
    began = time.monotonic()
    used = find_devices(devices)
    keras.backend.clear_session()
    with used.scope():
        model = build_for_training(recipe, len(source.class_names))
        CLASSIFICATION.compile(model, recipe)
    few = min(max(used.count, _FEW_IMAGES // used.count * used.count), recipe.batch_size)
    timed = _training(model, recipe, source, few, began + seconds / 4)
    per_image = (timed[1].seconds - timed[0].seconds) / few
    if 4 * per_image * recipe.batch_size < seconds / 4:
        timed = _training(model, recipe, source, recipe.batch_size, began + seconds / 2)
    net = TrainedNet.of_model(
        model, mean=ILSVRC.mean, class_names=source.class_names, train_scale=recipe.train_scale
    )
    batch_size = min(64, max(1, int(seconds / 8 / per_image)))
    timed += _testing(net, recipe, source, batch_size, began + seconds)
    keras.backend.clear_session()
    return timed


def _training(
    model: keras.Model, recipe: Recipe, source: Source, batch_size: int, until: float
) -> list[Timed]:
    stream = training_stream(
        source[TRAIN],
        crop_size=recipe.crop_size,
        train_scale=recipe.train_scale,
        batch_size=batch_size,
        statistics=ILSVRC,
    )
    clock = _Clock(until)
    options = {"callbacks": [clock], "shuffle": False, "verbose": 0}
    with explained_memory(recipe):
        model.fit(stream, steps_per_epoch=1, epochs=_MANY, **options)
    return _timed(TRAINING, clock.durations, step_work(recipe, DataFacts.of(source)) * batch_size)


def _testing(
    net: TrainedNet, recipe: Recipe, source: Source, batch_size: int, until: float
) -> list[Timed]:
    images = source[VALIDATION]
    wanted = np.arange(len(images)) < _MANY
    one = Pass("dense", net.validation_scale, flip=True)
    score = make_scorer(net)
    shown = row_pass(net, one, lambda views, _: score(views))
    durations, counts, last = [], [], time.monotonic()
    for indices, views in RowFiller(images, batch_size=batch_size).stream(shown, wanted):
        shown.score(views, indices).numpy()
        durations.append(time.monotonic() - last)
        counts.append(len(indices))
        last = time.monotonic()
        if len(durations) > 1 and last > until:
            break
    work = pass_work(net_layers(recipe, DataFacts.of(source)), recipe.crop_size, one)
    return _timed(TESTING, durations, work * median(counts))


def _timed(kind: str, durations: list[float], work: float) -> list[Timed]:
    """The start, which the first step has in addition, and the start with a step."""
    first, *others = durations
    step = median(others or durations)
    start = max(first - step, 0.0)
    return [Timed(kind, 0.0, start), Timed(kind, work, start + step)]


class _Clock(keras.callbacks.Callback):
    """Measures the duration of each training step, and ends training in time, after two."""

    def __init__(self, until: float):
        super().__init__()
        self.until = until
        self.durations: list[float] = []
        self.last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        now = time.monotonic()
        self.durations.append(now - self.last)
        self.last = now
        self.model.stop_training = len(self.durations) > 1 and now > self.until
