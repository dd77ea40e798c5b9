"""Keras Tuner over a sweep's points."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from vgg_keras import runs
from vgg_keras.pipelines.evaluation import validation_stream
from vgg_keras.pipelines.sources import TRAIN, VALIDATION, open_source
from vgg_keras.pipelines.statistics import ILSVRC, Statistics
from vgg_keras.pipelines.training import steps_per_epoch, training_stream
from vgg_keras.sweeps.space import Point, Sweep
from vgg_keras.sweeps.trials import TUNER, Rung, run_point, score
from vgg_keras.tasks import compile_model


class VggHyperModel(keras_tuner.HyperModel):
    """The nets of a sweep, for any tuner of Keras Tuner.

    `build` gives a compiled model, `fit` trains it on the stream that belongs to its scale:

        tuner = keras_tuner.RandomSearch(VggHyperModel(sweep), objective=..., max_trials=8)
        tuner.search()

    This trains in the tuner's own process and from scratch. `run_sweep` adds run folders, warm
    start, memory that stays flat, and trials that can be killed.

    Args:
        sweep: what to look at.
        data_dir: where TFDS keeps its data.
        statistics: of the training set, for the streams.
    """

    def __init__(
        self,
        sweep: Sweep,
        data_dir: str | os.PathLike | None = None,
        statistics: Statistics = ILSVRC,
    ):
        super().__init__()
        self.sweep = sweep
        self.data_dir = data_dir
        self.statistics = statistics

    def point(self, hp: keras_tuner.HyperParameters) -> Point:
        """Registers the choices, and reads what was chosen."""
        choices = self.sweep.choices()
        return self.sweep.point_of(
            {name: hp.Choice(name, values) for name, values in choices.items()}
        )

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The point's net, of scores (logits), compiled for its recipe."""
        recipe = self.point(hp).recipe(self.sweep.recipe)
        source = open_source(recipe.data, self.data_dir)
        model = runs.build_model(recipe, len(source.class_names))
        compile_model(model, recipe)
        return model

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, **options: Any):
        """`model.fit` on the training and validation streams of the point's scale."""
        recipe = self.point(hp).recipe(self.sweep.recipe)
        source = open_source(recipe.data, self.data_dir)
        sizes: dict[str, Any] = {"crop_size": recipe.crop_size, "batch_size": recipe.batch_size}
        training = training_stream(
            source[TRAIN],
            train_scale=recipe.train_scale,
            statistics=self.statistics,
            seed=recipe.seed,
            flip=recipe.flip,
            colour_shift=recipe.colour_shift,
            **sizes,
        )
        validation = validation_stream(
            source[VALIDATION],
            test_scale=recipe.validation_scale,
            mean=self.statistics.mean,
            **sizes,
        )
        given = {"epochs": recipe.epochs, "verbose": 0} | options
        return model.fit(
            training,
            validation_data=validation,
            steps_per_epoch=steps_per_epoch(source[TRAIN], recipe.batch_size),
            shuffle=False,
            **given,
        )


class GridOracle(keras_tuner.Oracle):
    """Every point of a sweep, once, in order.

    Keras Tuner's own grid search forgets where it was when it is killed (1.4.8).
    """

    def __init__(self, sweep: Sweep, **options: Any):
        super().__init__(**options)
        self.points = list(sweep.points())

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next point's values; see `keras_tuner.Oracle`."""
        done = len(self.start_order)
        if done == len(self.points):
            return {"status": "STOPPED"}
        return {"status": "RUNNING", "values": self.points[done].values}


def _most(sweep: Sweep) -> int:
    return sweep.max_trials or len(list(sweep.points()))


_ORACLES: Mapping[str, Callable[..., keras_tuner.Oracle]] = {
    "grid": GridOracle,
    "random": lambda sweep, **options: keras_tuner.oracles.RandomSearchOracle(
        max_trials=_most(sweep), **options
    ),
    "bayesian": lambda sweep, **options: keras_tuner.oracles.BayesianOptimizationOracle(
        max_trials=_most(sweep), **options
    ),
    "hyperband": lambda sweep, **options: keras_tuner.oracles.HyperbandOracle(
        max_epochs=sweep.recipe.epochs, **options
    ),
}


class SweepTuner(keras_tuner.Tuner):
    """Runs trials into run folders; made by `run_sweep`."""

    def __init__(self, sweep: Sweep, folder: Path, options: Mapping[str, Any]):
        self.sweep = sweep
        self.folder = folder
        self.train_options = dict(options)
        self.points = VggHyperModel(sweep)
        space = keras_tuner.HyperParameters()
        self.points.point(space)
        oracle = _ORACLES[sweep.tuner](
            sweep,
            objective=keras_tuner.Objective("error", "min"),
            seed=sweep.recipe.seed + 1,  # 0 would mean none
            hyperparameters=space,
        )
        super().__init__(oracle=oracle, directory=str(folder), project_name=TUNER)

    def run_trial(self, trial, *_, **__) -> dict[str, float]:
        """Trains the trial's net, or finds it trained; returns its errors."""
        values = trial.hyperparameters.values
        point = self.points.point(trial.hyperparameters)
        rung = None
        if "tuner/epochs" in values:
            epochs = values["tuner/epochs"] - values["tuner/initial_epoch"]
            rung = Rung(trial.trial_id, epochs, values.get("tuner/trial_id"))
        try:
            path = run_point(self.sweep, self.folder, point, rung, **self.train_options)
        except ValueError as error:
            # Keras Tuner would note a failure and go on: what is wrong with one is with the next.
            raise keras_tuner.errors.FatalValueError(str(error)) from error
        return score(path, self.sweep.objective)


def run_sweep(sweep: Sweep, folder: str | os.PathLike, **options: Any) -> Path:
    """Searches, or goes on with a search that was interrupted.

    With Keras Tuner's variables KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and
    KERASTUNER_ORACLE_PORT several processes share a search: a chief, which hands out trials, and
    workers, which see the folder by the same path.

    Args:
        sweep: what to look at.
        folder: for `sweep.json`, Keras Tuner's own state in `tuner`, and `runs`, one a trial.
        options: `data_dir` and `devices`, see `vgg_keras.train`.

    Returns:
        The folder.

    Raises:
        SweepError: the folder cannot be used, or a trial failed.
    """
    folder = Path(folder)
    sweep.save(folder)
    with contextlib.redirect_stdout(sys.stderr):  # Keras Tuner prints; stdout is for results
        SweepTuner(sweep, folder, options).search()
    return folder
