"""A run folder: what was trained, how, on what, and the weights."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import keras

from vgg_keras import provenance
from vgg_keras.callbacks.file_names import BEST_WEIGHTS, LAST_WEIGHTS
from vgg_keras.ilsvrc import wnids
from vgg_keras.models import vgg
from vgg_keras.pipelines.files import atomic_write, locked
from vgg_keras.pipelines.statistics import ILSVRC, Statistics
from vgg_keras.recipes import Recipe
from vgg_keras.weights import WeightsError, read

RECIPE, STATISTICS, CLASSES = "recipe.json", "statistics.json", "classes.json"
JOURNAL, BAD_IMAGES = "journal.jsonl", "bad_images.json"
_LOCK = ".lock"
_BESIDE_THE_RECIPE = (
    provenance.ENVIRONMENT,
    STATISTICS,
    CLASSES,
    BAD_IMAGES,
    JOURNAL,
    BEST_WEIGHTS,
)

log = logging.getLogger(__name__)


class RunError(ValueError):
    """A run folder cannot be used. The message says why."""


class Run(NamedTuple):
    """A trained run, read back."""

    path: Path
    recipe: Recipe
    statistics: Statistics
    class_names: tuple[str, ...]
    model: keras.Model
    pool_rounding: str = "down"


def prepare_run_folder(path: Path, recipe: Recipe) -> None:
    """Makes the folder for a run of `recipe`, or finds it to be one.

    A run of another recipe in which no epoch has ended has nothing to lose and gives way. The
    folder is to be `lock_run`.

    Raises:
        RunError: another recipe's run is there, or the folder cannot be written.
    """
    file = path / RECIPE
    differences = _read_recipe(file).differences(recipe) if file.exists() else []
    if differences:
        if (path / LAST_WEIGHTS).exists():
            raise RunError(
                f"{path} holds a run of another recipe ({'; '.join(differences)}). Give its own "
                f"recipe to go on with it, or another --out."
            )
        log.info("%s: no epoch of another recipe's run had ended; it gives way", path)
        for name in _BESIDE_THE_RECIPE:
            (path / name).unlink(missing_ok=True)
    try:
        if differences or not file.exists():
            atomic_write(file, recipe.to_json())
        provenance.record(path)
    except OSError as error:
        raise RunError(str(error)) from error


@contextlib.contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Keeps a run folder for this process; a process that is killed lets go.

    Raises:
        RunError: another process is training into it, or it holds something else.
    """
    visible = [p for p in path.iterdir() if not p.name.startswith(".")] if path.is_dir() else []
    if visible and not (path / RECIPE).exists():
        raise RunError(f"{path} is not empty and holds no run. Give another --out.")
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(locked(path / _LOCK, wait=False))
        except BlockingIOError as error:
            raise RunError(
                f"Another process is training into {path}. Wait for it, or give another --out."
            ) from error
        except OSError as error:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s); train into it from one place only", path, error)
        yield


def is_run_of(path: Path, recipe: Recipe) -> bool:
    """Whether the folder holds a run of just this recipe."""
    return (path / RECIPE).exists() and _read_recipe(path / RECIPE) == recipe


def record_classes(path: Path, class_names: Sequence[str]) -> None:
    """Writes the class names into the run folder, or finds them there.

    Raises:
        RunError: the run was begun with other classes.
    """
    file = path / CLASSES
    if not file.exists():
        atomic_write(file, json.dumps(list(class_names), indent=0) + "\n")
    elif json.loads(file.read_text()) != list(class_names):
        raise RunError(
            f"The classes of the data are not those that {path} was begun with, see {file}. Give "
            f"the data it was begun with, or another --out."
        )


def build_model(
    recipe: Recipe, num_classes: int, pool_rounding: str = "down", policy: str | None = None
) -> keras.Model:
    """The recipe's net with scores (logits) as output, in a dtype policy or the recipe's."""
    with _dtype_policy(policy or recipe.precision):
        return vgg(
            recipe.net,
            recipe.outputs(num_classes),
            recipe.crop_size,
            recipe.width,
            initialisation=recipe.initialisation,
            weight_decay=recipe.weight_decay,
            dropout=recipe.dropout,
            lrn=recipe.lrn,
            pool_rounding=pool_rounding,
            classifier_activation=None,
            seed=recipe.seed,
        )


def read_run(path: str | os.PathLike) -> tuple[Recipe, tuple[str, ...]]:
    """Recipe and class names of a run that can be loaded.

    Raises:
        RunError: the folder is no run, or has no weights yet.
    """
    path = Path(path)
    if not (path / RECIPE).is_file():
        raise RunError(f"{path} is no run folder: it holds no {RECIPE}.")
    for name in (CLASSES, STATISTICS, BEST_WEIGHTS):
        if not (path / name).is_file():
            raise RunError(f"{path} holds no {name}: its first epoch has not ended.")
    return _read_recipe(path / RECIPE), tuple(json.loads((path / CLASSES).read_text()))


def load_run(
    path: str | os.PathLike, *, precision: str | None = None, pool_rounding: str = "down"
) -> Run:
    """Reads a run with its best weights.

    Args:
        path: run folder.
        precision: Keras dtype policy to compute in; by default that of training.
        pool_rounding: see `vgg`.

    Raises:
        RunError: the folder is no run, or has no weights yet.
    """
    path = Path(path)
    recipe, class_names = read_run(path)
    recipe = dataclasses.replace(recipe, precision=precision or recipe.precision)
    model = build_model(recipe, len(class_names), pool_rounding)
    _load_weights(model, path / BEST_WEIGHTS)
    statistics = Statistics.load(path / STATISTICS)
    return Run(path, recipe, statistics, class_names, model, pool_rounding)


def load_weights_file(
    path: str | os.PathLike,
    net: str | None = None,
    class_names: Sequence[str] | None = None,
    *,
    preprocessing: str | None = None,
    statistics: Statistics | None = None,
    train_scale: tuple[int, int] | None = None,
    precision: str = "float32",
    pool_rounding: str = "down",
) -> Run:
    """A file of weights that is not in a run folder, as a run.

    Args:
        path: of any kind that `vgg_keras.weights.read` takes.
        net: its net; by default told by its layers.
        class_names: of the net's outputs, in order; or some of ILSVRC's, where it has 1,000
            outputs and so all of them. By default those, or else numbers.
        preprocessing: see `vgg_keras.weights.read`.
        statistics: their mean is what the weights' input is free of, and what the run will
            subtract. By default the file or its kind says it, and the run subtracts ILSVRC's.
        train_scale: S that it was trained at; by default 256 in proportion to the crop size.
        precision: Keras dtype policy to compute in.
        pool_rounding: see `vgg`.

    Raises:
        WeightsError: see `vgg_keras.weights.read`; or the FC layers are missing.
        ValueError: the class names are not as many as the net's outputs.
    """
    path = Path(path)
    layers, contents = read(
        path,
        net,
        preprocessing=preprocessing,
        mean=(statistics or ILSVRC).mean,
        source_mean=statistics.mean if statistics else None,
    )
    if not contents.has_top:
        raise WeightsError(f"{path} has no FC layers, so it gives no scores.")
    class_names = _names_of_outputs(path, contents.num_classes, tuple(class_names or ()))
    scale = round(256 * contents.crop_size / 224)
    recipe = Recipe(
        net=contents.net,
        crop_size=contents.crop_size,
        width=contents.width,
        train_scale=train_scale or (scale, scale),
        precision=precision,
    )
    model = build_model(recipe, contents.num_classes, pool_rounding)
    for name in contents.taken:
        model.get_layer(name).set_weights(layers.pop(name))
    return Run(path, recipe, statistics or ILSVRC, class_names, model, pool_rounding)


def in_precision(run: Run, policy: str) -> Run:
    """The run with its net in another Keras dtype policy.

    Args:
        run: from `load_run`.
        policy: any of Keras's; with "bfloat16" the variables are rounded to it too, all but
            those of the last layer, whose scores stay float32.
    """
    model = build_model(run.recipe, len(run.class_names), run.pool_rounding, policy)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(run.model.get_layer(layer.name).get_weights())
    return run._replace(model=model)


def _names_of_outputs(path: Path, number: int, given: tuple[str, ...]) -> tuple[str, ...]:
    if number == len(wnids()) and set(given) <= set(wnids()):
        return wnids()  # in the order of the public weights
    if len(given) == number:
        return given
    if given:
        raise ValueError(
            f"{path} has {number} outputs, which cannot be the {len(given)} classes "
            f"{', '.join(given[:3])}{', ...' * (len(given) > 3)}"
        )
    return tuple(map(str, range(number)))


def _load_weights(model: keras.Model, file: Path) -> None:
    try:
        model.load_weights(file)
    except (OSError, KeyError, ValueError) as error:
        raise RunError(
            f"{file} cannot be read as weights of net {model.name} with "
            f"{model.output_shape[-1]} classes: {error}"
        ) from error


def _read_recipe(file: Path) -> Recipe:
    try:
        return Recipe.from_json(file.read_text())
    except ValueError as error:
        raise RunError(f"{file} cannot be read: {error}") from error


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
