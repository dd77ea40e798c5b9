"""Nets in files: runs, saved nets and weights files."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import keras
import msgspec

from vgg_keras.architecture import Architecture
from vgg_keras.errors import ArgumentError, RunError, WeightsError, WriteError
from vgg_keras.facts import NetFacts, as_colour, as_pair
from vgg_keras.ilsvrc import wnids
from vgg_keras.nets import get_net, weight_layers
from vgg_keras.pipelines.checks import is_finite
from vgg_keras.pipelines.contents import naming_file, parse_json, read_json
from vgg_keras.pipelines.files import check_pair, write_pair
from vgg_keras.pretrained import find_release
from vgg_keras.recipes import Recipe
from vgg_keras.run_data import load_statistics
from vgg_keras.run_files import BEST_WEIGHTS, CLASSES, NET, RECIPE, STATISTICS
from vgg_keras.version import __version__
from vgg_keras.weights.reading import read

# Arguments with which a weights file was read. The origin of a net has those that were given.
READ_WITH = ("net", "head", "preprocessing")


def read_facts(
    folder: str | os.PathLike, *, precision: str | None = None, pool_rounding: str | None = None
) -> NetFacts:
    """The facts of a run or of a saved net that has weights; builds no model.

    Raises:
        RunError: the folder is neither, or has no weights yet.
    """
    folder = Path(folder)
    if (folder / RECIPE).is_file():
        facts = _facts_of_run(folder)
    elif (folder / NET).is_file():
        facts = _from_json(folder)
    else:
        what = " It is a SavedModel." if (folder / "saved_model.pb").is_file() else ""
        raise RunError(
            f"{folder} is no run and no saved net: it holds no {RECIPE} and no {NET}.{what}"
        )
    architecture = dataclasses.replace(
        facts.architecture, pool_rounding=pool_rounding or facts.architecture.pool_rounding
    )
    return dataclasses.replace(
        facts,
        architecture=architecture,
        precision=precision or facts.precision,
        origin={"run": str(folder)},
    )


def read_recipe(file: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        RunError: the file holds something else.
    """
    with naming_file(file, RunError):
        return Recipe.from_json(file.read_bytes())


def read_class_names(folder: Path) -> tuple[str, ...]:
    """The names of the classes of a run.

    Raises:
        RunError: the file holds something else.
    """
    file = folder / CLASSES
    with naming_file(file, RunError):
        names = tuple(parse_json(file.read_bytes(), list[str]))
        if not names or len(set(names)) < len(names):
            raise ValueError(f"class names must be one or more, all different. Received: {names}")
        return names


def load_model(
    folder: Path, facts: NetFacts, classifier_activation: str | None = "softmax"
) -> keras.Model:
    """The model of a run or of a saved net, with its best weights; one of boxes has no soft-max.

    Raises:
        RunError: the weights cannot be read, hold NaN or Inf, or are not those that the
            description was saved with.
    """
    _check_size(folder / BEST_WEIGHTS, facts.architecture)
    if (folder / NET).is_file():
        description = read_json(folder / NET, dict[str, Any], RunError)
        check_pair(folder / BEST_WEIGHTS, folder / NET, description, RunError)
    model = facts.architecture.build(
        precision=facts.precision,
        classifier_activation=None if facts.regression else classifier_activation,
        initialise=False,
        **_build_options(facts.recipe),
    )
    _load_weights(model, folder / BEST_WEIGHTS)
    return model


def load_weights_file(
    path: Path,
    given: Mapping[str, Any],
    classifier_activation: str | None = "softmax",
    *,
    precision: str | None = None,
    pool_rounding: str | None = None,
    mean: Sequence[float] | None = None,
) -> tuple[NetFacts, keras.Model]:
    """The net in a weights file.

    Args:
        path: the file, or the name of a released net.
        given: those of `net`, `class_names`, `head`, `preprocessing`, `mean` and `train_scale` that
            are given, see `TrainedNet.load`.
        classifier_activation, precision, pool_rounding: see `TrainedNet.load`.
        mean: RGB mean that the net subtracts; by default that of the file.

    Raises:
        WeightsError: see `vgg_keras.weights.read`; or the FC layers are missing.
        ArgumentError: an argument does not fit.
    """
    source_mean = as_colour(given["mean"]) if "mean" in given else None
    layers, contents = read(
        path,
        given.get("net"),
        head=given.get("head"),
        preprocessing=given.get("preprocessing"),
        mean=mean,
        source_mean=source_mean,
    )
    if not contents.has_top:
        raise WeightsError(f"{path} has no FC layers, so it gives no class scores.")
    size = contents.num_classes, contents.crop_size, contents.width
    architecture = Architecture(contents.net, *size, pool_rounding=pool_rounding or "down")
    precision = precision or "float32"
    model = architecture.build(
        precision=precision,
        classifier_activation=classifier_activation,
        initialise=False,
        **_build_options(None),
    )
    for name in contents.taken:
        model.get_layer(name).set_weights(layers.pop(name))
    read_with = {name: given[name] for name in READ_WITH if name in given}
    if source_mean is not None:
        read_with["source_mean"] = list(source_mean)
    release = find_release(path)
    usual_scale = release.train_scale if release else round(256 * contents.crop_size / 224)
    facts = NetFacts(
        architecture=architecture,
        mean=contents.preprocessing.mean if mean is None else as_colour(mean),
        class_names=_names_of_outputs(
            path, contents.num_classes, tuple(given.get("class_names", ()))
        ),
        train_scale=as_pair(given.get("train_scale", usual_scale)),
        origin={"weights": str(path), **read_with, "input": contents.input},
        precision=precision,
    )
    return facts, model


def _names_of_outputs(path: Path, number: int, given: Sequence[str]) -> tuple[str, ...]:
    if number == len(wnids()) and set(given) <= set(wnids()):
        return wnids()  # in the order of the public weights
    if len(given) == number:
        return tuple(given)
    if given:
        raise ArgumentError(
            f"class_names must be as many as the {number} outputs of {path}. "
            f"Received: {len(given)} names, {', '.join(given[:3])}{', ...' * (len(given) > 3)}",
            "class_names",
        )
    return tuple(map(str, range(number)))


def _load_weights(model: keras.Model, file: Path) -> None:
    problem = f"cannot be read as weights of net {model.name} with {model.output_shape[-1]} outputs"
    with naming_file(file, RunError, problem):
        model.load_weights(file)
    for variable in model.weights:
        if not is_finite(keras.ops.convert_to_numpy(variable)):
            raise RunError(
                f"{file} holds NaN or Inf in {variable.path}: its training had diverged. Train the "
                f"net again in another folder, with a lower learning_rate."
            )


def _check_size(file: Path, architecture: Architecture) -> None:
    """Refuses a net that is larger than its weights file before memory is reserved for it."""
    layers = weight_layers(
        get_net(architecture.net),
        architecture.num_classes,
        architecture.crop_size,
        architecture.width,
    )
    parameters = sum(layer.parameters for layer in layers)
    if 2 * parameters > file.stat().st_size:  # 2 bytes each at least
        raise RunError(
            f"{file} has {file.stat().st_size:,} bytes, too few for {architecture}, which has "
            f"{parameters:,} parameters. It is cut short, or is of another net."
        )


def architecture_of(recipe: Recipe, num_classes: int) -> Architecture:
    """The architecture that a recipe trains."""
    return Architecture(
        recipe.net, recipe.outputs(num_classes), recipe.crop_size, recipe.width, recipe.lrn
    )


def build_for_training(recipe: Recipe, num_classes: int) -> keras.Model:
    """The recipe's net as it is trained: initialised, regularised, with logits as output."""
    return architecture_of(recipe, num_classes).build(
        precision=recipe.precision, classifier_activation=None, **_build_options(recipe)
    )


def _build_options(recipe: Recipe | None) -> dict[str, Any]:
    """Arguments of `vgg` that do not change what the net computes, but its digest."""
    if recipe is None:
        return {"initialisation": "gaussian"}
    names = ("initialisation", "weight_decay", "dropout", "seed")
    return {name: getattr(recipe, name) for name in names}


def _facts_of_run(folder: Path) -> NetFacts:
    for name in (CLASSES, STATISTICS, BEST_WEIGHTS):
        if not (folder / name).is_file():
            raise RunError(f"{folder} holds no {name}: its first epoch has not ended.")
    recipe = read_recipe(folder / RECIPE)
    class_names = read_class_names(folder)
    return NetFacts(
        architecture=architecture_of(recipe, len(class_names)),
        mean=load_statistics(folder).mean,
        class_names=class_names,
        train_scale=recipe.train_scale,
        recipe=recipe,
        regression=recipe.regression_kind,
        precision=recipe.precision,
    )


def write_net(folder: Path, facts: NetFacts, logits: keras.Model) -> None:
    """Writes a saved net: its weights and a description.

    Raises:
        RunError: the folder holds a run or something else.
        WriteError: it cannot be written.
    """
    others = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    visible = [name for name in others if not name.startswith(".")]
    if visible and (NET not in visible or RECIPE in visible):
        raise RunError(
            f"{folder} is not empty and holds no saved net. Save the net into another folder."
        )
    file = folder / BEST_WEIGHTS
    needed = sum(4 * math.prod(variable.shape) for variable in logits.variables) + 2**18
    try:
        write_pair(file, folder / NET, logits.save_weights, _to_json(facts), indent=2, size=needed)
    except (OSError, RuntimeError) as error:  # HDF5 raises RuntimeError on a full disk
        raise WriteError(
            f"{file} could not be written; what was saved before is intact: {error}"
        ) from error


def _to_json(facts: NetFacts) -> dict[str, Any]:
    return {
        "vgg_keras": __version__,
        "architecture": dataclasses.asdict(facts.architecture),
        "mean": list(facts.mean),
        "class_names": list(facts.class_names),
        "train_scale": facts.train_scale and list(facts.train_scale),
        "regression": facts.regression,
        "precision": facts.precision,
        "origin": dict(facts.origin),
        "recipe": None if facts.recipe is None else dataclasses.asdict(facts.recipe),
    }


class _NetInFile(TypedDict):
    architecture: Architecture
    mean: tuple[float, float, float]
    class_names: list[str]
    train_scale: tuple[int, int] | None
    recipe: dict[str, Any] | None
    regression: str | None
    precision: str


def _from_json(folder: Path) -> NetFacts:
    file = folder / NET
    if not (folder / BEST_WEIGHTS).is_file():
        raise RunError(f"{folder} holds no {BEST_WEIGHTS}.")
    if file.read_bytes().strip() == b"{}":
        raise RunError(f"{folder} holds no complete net: {NET} is empty, saving was interrupted.")
    with naming_file(file, RunError):
        found = msgspec.convert(parse_json(file.read_bytes(), _NetInFile), _NetInFile)
        recipe = found["recipe"]
        keras.dtype_policies.get(found["precision"])  # refuses what is none
        return NetFacts(
            architecture=found["architecture"],
            mean=found["mean"],
            class_names=tuple(found["class_names"]),
            train_scale=found["train_scale"],
            recipe=None if recipe is None else Recipe.from_json(json.dumps(recipe)),
            regression=found["regression"],
            precision=found["precision"],
        )
