"""Keras Tuner over the points of a sweep."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from vgg_keras.callbacks import RaiseOnDivergence
from vgg_keras.callbacks.errors import DivergenceError
from vgg_keras.errors import ArgumentError, SweepError, UserError
from vgg_keras.net_files import build_for_training
from vgg_keras.pipelines.contents import naming_file
from vgg_keras.pipelines.evaluation import validation_stream
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source
from vgg_keras.pipelines.statistics import ILSVRC, Statistics
from vgg_keras.pipelines.training import steps_per_epoch, training_stream
from vgg_keras.recipes import Recipe
from vgg_keras.sweeps.space import TUNER_FOLDER, Point, Sweep
from vgg_keras.sweeps.trials import Rung, run_point, score
from vgg_keras.tasks import compile_model
from vgg_keras.trained import TrainedNet

log = logging.getLogger(__name__)


class VggHyperModel(keras_tuner.HyperModel):
    """The nets of a sweep, for any tuner of Keras Tuner.

    `build` gives a compiled model, `fit` trains it on the stream of its training scale, and
    `trained_net` makes a net of it that `evaluate` and `export` take. Nets are trained in the
    process of the tuner and from scratch. `run_sweep` adds run folders, the warm start of §3.1,
    constant memory, and trials that continue after a kill.

    Args:
        sweep: nets, scales and widths to search, and the recipe of all of them.
        data: opened data set; by default `sweep.recipe.data` is opened.
        data_dir: where TFDS stores its data.
        statistics: mean and colour components of the training set, for both streams.

    Example:
        hypermodel = VggHyperModel(sweep)
        tuner = keras_tuner.RandomSearch(hypermodel, objective="val_accuracy", max_trials=8)
        tuner.search()
        best = tuner.get_best_hyperparameters()[0]
        net = hypermodel.trained_net(best, tuner.get_best_models()[0])
    """

    def __init__(
        self,
        sweep: Sweep,
        data: Source | None = None,
        *,
        data_dir: str | os.PathLike | None = None,
        statistics: Statistics = ILSVRC,
    ):
        super().__init__()
        self.sweep = sweep
        self.data = data
        self.data_dir = data_dir
        self.statistics = statistics

    @functools.cached_property
    def source(self) -> Source:
        """The data set, opened on first use."""
        if self.data is not None:
            return self.data
        return open_source(self.sweep.recipe.data, self.data_dir)

    def recipe(self, hp: keras_tuner.HyperParameters) -> Recipe:
        """The recipe with the values that the tuner chose."""
        return choose_point(self.sweep, hp).recipe(self.sweep.recipe)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The net with the chosen values, compiled; its outputs are logits."""
        recipe = self.recipe(hp)
        model = build_for_training(recipe, len(self.source.class_names))
        compile_model(model, recipe)
        return model

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, **options: Any
    ) -> keras.callbacks.History:
        """Calls `model.fit` with the training and validation streams of the chosen scale.

        Args:
            hp: values that the tuner chose.
            model: from `build`.
            options: further arguments of `model.fit`.

        Raises:
            DivergenceError: the loss of an epoch is not finite. A tuner counts the trial as failed.
        """
        recipe = self.recipe(hp)
        sizes: dict[str, Any] = {"crop_size": recipe.crop_size, "batch_size": recipe.batch_size}
        training = training_stream(
            self.source[TRAIN],
            train_scale=recipe.train_scale,
            statistics=self.statistics,
            seed=recipe.seed,
            flip=recipe.flip,
            colour_shift=recipe.colour_shift,
            **sizes,
        )
        validation = validation_stream(
            self.source[VALIDATION],
            test_scale=recipe.validation_scale,
            mean=self.statistics.mean,
            **sizes,
        )
        given = {"epochs": recipe.epochs, "verbose": 0} | options
        given["callbacks"] = [*given.get("callbacks", ()), RaiseOnDivergence()]
        return model.fit(
            training,
            validation_data=validation,
            steps_per_epoch=steps_per_epoch(self.source[TRAIN], recipe.batch_size),
            shuffle=False,  # the stream is shuffled
            **given,
        )

    def trained_net(self, hp: keras_tuner.HyperParameters, model: keras.Model) -> TrainedNet:
        """The trained model of a trial as a net, which shares the variables of the model.

        Args:
            hp: values of the trial, as `tuner.get_best_hyperparameters()` gives them.
            model: model of the trial, as `tuner.get_best_models()` gives it.
        """
        return TrainedNet.of_model(
            model,
            mean=self.statistics.mean,
            class_names=self.source.class_names,
            train_scale=self.recipe(hp).train_scale,
        )


def choose_point(sweep: Sweep, hp: keras_tuner.HyperParameters) -> Point:
    """Registers the choices of a sweep and returns the point that the tuner chose."""
    choices = sweep.choices()
    return sweep.point_of({name: hp.Choice(name, values) for name, values in choices.items()})


class GridOracle(keras_tuner.Oracle):
    """Every point of a sweep, once, in order.

    Keras Tuner's own grid search loses its position when it is killed (1.4.8).
    """

    def __init__(self, sweep: Sweep, **options: Any):
        super().__init__(**options)
        self.points = list(sweep.points())

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of the next point, see `keras_tuner.Oracle`."""
        done = len(self.start_order)
        if done == len(self.points):
            return {"status": "STOPPED"}
        return {"status": "RUNNING", "values": self.points[done].values}


def _max_trials(sweep: Sweep) -> int:
    return sweep.max_trials or len(list(sweep.points()))


_ORACLES: Mapping[str, Callable[..., keras_tuner.Oracle]] = {
    "grid": GridOracle,
    "random": lambda sweep, **options: keras_tuner.oracles.RandomSearchOracle(
        max_trials=_max_trials(sweep), **options
    ),
    "bayesian": lambda sweep, **options: keras_tuner.oracles.BayesianOptimizationOracle(
        max_trials=_max_trials(sweep), **options
    ),
    "hyperband": lambda sweep, **options: keras_tuner.oracles.HyperbandOracle(
        max_epochs=sweep.recipe.epochs, **options
    ),
}


class SweepTuner(keras_tuner.Tuner):
    """Trains trials in run folders. `run_sweep` makes it.

    Args:
        sweep: what to search.
        folder: folder of the sweep.
        options: further arguments of `vgg_keras.train`.
        overwrite: whether to begin the search again, without the files of Keras Tuner.

    Raises:
        SweepError: the files of Keras Tuner are damaged.
    """

    def __init__(
        self, sweep: Sweep, folder: Path, options: Mapping[str, Any], overwrite: bool = False
    ):
        self.sweep = sweep
        self.folder = folder
        self.train_options = dict(options)
        self.diverged: set[str] = set()
        space = keras_tuner.HyperParameters()
        choose_point(sweep, space)
        oracle = _ORACLES[sweep.tuner](
            sweep,
            objective=keras_tuner.Objective("error", "min"),
            seed=sweep.recipe.seed + 1,  # Keras Tuner takes 0 as no seed
            hyperparameters=space,
            max_consecutive_failed_trials=math.inf,  # trials that diverge do not end a search
        )
        super().__init__(
            oracle=oracle, directory=str(folder), project_name=TUNER_FOLDER, overwrite=overwrite
        )

    def reload(self) -> None:
        """Continues from the files of Keras Tuner. A worker has none; its chief has them."""
        if self._is_worker():
            return
        state = self.folder / TUNER_FOLDER
        with naming_file(state, SweepError, "holds a damaged state of Keras Tuner"):
            self.oracle.reload()
            if set(self.oracle.trials) != set(self.oracle.start_order):
                raise ValueError("it was killed while it began a trial")

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        """Trains the net of a trial, unless it is trained already; returns its errors.

        `on_trial_end` marks a trial that diverged as failed.
        """
        values = trial.hyperparameters.values
        point = choose_point(self.sweep, trial.hyperparameters)
        rung = None
        if "tuner/epochs" in values:
            epochs = values["tuner/epochs"] - values["tuner/initial_epoch"]
            rung = Rung(trial.trial_id, epochs, values.get("tuner/trial_id"))
        try:
            path = run_point(self.sweep, self.folder, point, rung, **self.train_options)
        except DivergenceError as error:
            log.warning("%s", error)
            self.diverged.add(trial.trial_id)
            return {"error": 100.0}  # Keras Tuner would show a traceback instead of an exception
        except UserError as error:
            # After any other error Keras Tuner would continue with the next trial, which would
            # most likely fail for the same reason.
            raise keras_tuner.errors.FatalError(str(error)) from error
        return score(path, self.sweep.objective)

    def on_trial_end(self, trial: Any) -> None:
        """Ends a trial, see `keras_tuner.Tuner`; one that diverged is failed and has no rank."""
        if trial.trial_id in self.diverged:
            trial.status = "FAILED"
        super().on_trial_end(trial)


def _open_tuner(sweep: Sweep, folder: Path, options: Mapping[str, Any]) -> SweepTuner:
    """The tuner of a new search, or of one that continues.

    Keras Tuner rewrites its files in place (1.4.8), so that a kill can leave half of one. Then the
    search begins again: with the same seed it chooses the same trials, whose runs are trained
    already.
    """
    try:
        return SweepTuner(sweep, folder, options)
    except SweepError as error:
        log.warning("%s; the search takes its trials from the runs again", error)
        return SweepTuner(sweep, folder, options, overwrite=True)


def run_sweep(sweep: Sweep, folder: str | os.PathLike, **options: Any) -> Path:
    """Runs a search, or continues one that was interrupted.

    A trial that diverges is not ranked, and the search continues with the next one. A search goes
    on with more `max_trials`, and with more epochs if all nets are trained from scratch and the
    tuner is "grid" or "random".

    With Keras Tuner's environment variables KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and
    KERASTUNER_ORACLE_PORT several processes share a search: a chief, which hands out trials, and
    workers, which see the folder under the same path.

    Args:
        sweep: what to search.
        folder: gets `sweep.json`, Keras Tuner's state in `tuner`, and one run folder for each
            trial in `runs`.
        options: `data_dir` and `devices` of `vgg_keras.train`.

    Returns:
        The folder.

    Raises:
        SweepError: the folder cannot be used, or a trial failed for another reason.
        ArgumentError: the recipe has no data.

    Example:
        recipe = replace(RECIPES["paper"], data="folder:ilsvrc")
        run_sweep(Sweep(recipe, nets=("A", "D")), "sweeps/x")
        net = TrainedNet.load(best_run("sweeps/x"))
    """
    folder = Path(folder)
    if not sweep.recipe.data:
        raise ArgumentError("data must be given in the recipe of a sweep. Received: ''", "data")
    sweep.save(folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras Tuner prints; stdout is for results
            _open_tuner(sweep, folder, options).search()
    except keras_tuner.errors.FatalError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
    return folder
