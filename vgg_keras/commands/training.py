"""`train`, and what looks at data and runs: `statistics`, `curves`, `demo`."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.options import (
    FILE,
    FOLDER,
    NetName,
    TrainScale,
    add_options,
    bad_image_option,
    data_dir_option,
    data_options,
    devices_option,
)
from vgg_keras.commands.recipes import defaults_text, read_config
from vgg_keras.commands.terminal import echo
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import (
    CHOICES,
    LOCALISATION_RECIPES,
    RECIPES,
    LocalisationRecipe,
    Recipe,
)
from vgg_keras.run_files import JOURNAL, RECIPE

_FORMER_FLAGS: dict[tuple[type[Recipe], str], tuple[str, ...]] = {
    (LocalisationRecipe, "trainable"): ("--tuned",)
}


def recipe_options(kind: type[Recipe], without: Collection[str] = ()):
    """A decorator that adds an option for every field of a kind of recipe.

    Args:
        kind: class of the recipe.
        without: fields to leave out.
    """
    hints = typing.get_type_hints(kind)
    kinds = {"net": NetName(), "train_scale": TrainScale()}
    for name, choices in CHOICES.items():
        kinds[name] = click.Choice([choice for choice in choices if choice])
    recipes = LOCALISATION_RECIPES if kind is LocalisationRecipe else RECIPES
    options = []
    for field in dataclasses.fields(kind):
        if field.name in without:
            continue
        if field.name == "data":
            options.append(data_options(field.metadata["help"]))
            continue
        defaults = defaults_text(field.name, recipes)
        flag = "--" + field.name.replace("_", "-")
        if hints[field.name] is bool:
            flag += f"/--no-{field.name.replace('_', '-')}"
        option = click.option(
            flag,
            *_FORMER_FLAGS.get((kind, field.name), ()),
            field.name,
            type=kinds.get(field.name, hints[field.name]),
            default=None,  # the recipe's; also for a switch, for which click would take False
            help=f"{field.metadata['help']} [{defaults}]" if defaults else field.metadata["help"],
        )
        options.append(option)
    return add_options(options)


def training_options(recipes: Mapping[str, Recipe]):
    """A decorator that adds the options of a command that trains.

    Args:
        recipes: those to choose from, all of one class.
    """
    options = (
        click.option(
            "--recipe",
            "recipe_name",
            type=click.Choice(tuple(recipes)),
            help="Recipe that gives the values of all options that you do not set [paper].",
        ),
        click.option(
            "--config",
            type=FILE,
            metavar="FILE.json",
            help="JSON file with a recipe, such as `recipe NAME --json` prints, or with some of "
            "its fields; --recipe gives the others. Options go before the file.",
        ),
        click.option("--out", type=FOLDER, help="Folder of the run [that of --resume]."),
        click.option(
            "--resume",
            type=FOLDER,
            metavar="RUN",
            help="Go on with the run in this folder, by its own recipe; --epochs and the options "
            "of the plateau may change it.",
        ),
        data_options(Recipe.__dataclass_fields__["data"].metadata["help"], required=False),
        recipe_options(type(recipes["paper"]), without=("data",)),
        data_dir_option,
        devices_option,
        click.option(
            "--processes",
            type=int,
            help="Number of processes that train one net together. This needs the JAX backend.",
        ),
        click.option("--process-id", type=int, help="Index of this process, from 0."),
        click.option(
            "--coordinator",
            metavar="HOST:PORT|auto",
            help="Address of process 0; auto reads the address, --processes and --process-id from "
            "SLURM, a TPU pod or Kubernetes.",
        ),
        click.option(
            "--tensorboard", is_flag=True, help="Write TensorBoard event files into the run folder."
        ),
    )
    return add_options(options)


_Kind = typing.TypeVar("_Kind", bound=Recipe)


def take_run(options: dict[str, Any], recipes: Mapping[str, _Kind]) -> tuple[_Kind, Path]:
    """Takes the recipe and the run folder out of a command's options.

    Raises:
        ArgumentError: a value is not allowed, or options do not go together.
        RunError: `--resume` is no run of such a recipe.
        click.UsageError: the folder or the data are missing.
    """
    base = recipes["paper"]
    fields = {field.name: options.pop(field.name) for field in dataclasses.fields(base)}
    resume, out = options.pop("resume"), options.pop("out")
    name, config = options.pop("recipe_name"), options.pop("config")
    if resume:
        others = {"--out": out, "--recipe": name, "--config": config}
        if given := [flag for flag, value in others.items() if value]:
            raise ArgumentError(
                f"--resume goes on with the recipe and in the folder of the run. Received: "
                f"{', '.join(given)} too"
            )
        return given_recipe(_recipe_of_run(resume, base), fields), resume
    if name:
        base = recipes[name]
    recipe = given_recipe(read_config(config, base) if config else base, fields)
    for flag, value in (("--data", recipe.data), ("--out", out)):
        if not value:
            raise click.UsageError(f"Missing option '{flag}'.")
    return recipe, out


def _recipe_of_run(folder: Path, base: _Kind) -> _Kind:
    """The recipe of a run that is to go on.

    Raises:
        RunError: the folder holds no run, or one of another kind than `base`.
    """
    from vgg_keras.errors import RunError
    from vgg_keras.net_files import read_recipe

    if not (folder / RECIPE).is_file():
        raise RunError(f"{folder} is no run that can go on: it holds no {RECIPE}.")
    recipe = read_recipe(folder / RECIPE)
    if type(recipe) is not type(base):
        command = "train" if isinstance(base, LocalisationRecipe) else "localise train"
        raise RunError(f"{folder} goes on with `vgg-keras {command} --resume {folder}`.")
    return recipe


def given_recipe(recipe: _Kind, fields: Mapping[str, Any]) -> _Kind:
    """The recipe with the fields that were given.

    Raises:
        ArgumentError: a value is not allowed.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    return dataclasses.replace(recipe, **given)


def take_cluster(options: dict[str, Any]):
    """Takes the `Cluster` out of a command's options; None for a process of its own.

    Raises:
        ArgumentError: some of the options are missing, or a value is not allowed.
    """
    from vgg_keras.distribution import Cluster

    names = ("coordinator", "processes", "process_id")
    coordinator, processes, process_id = (options.pop(name) for name in names)
    if coordinator is None:
        if processes is not None or process_id is not None:
            raise ArgumentError("--processes and --process-id need --coordinator HOST:PORT.")
        return None
    return Cluster(coordinator, processes, process_id)


@command()
@training_options(RECIPES)
@click.pass_obj
def train(verbose, **options) -> None:
    """Train a net, or go on with a run that was interrupted or is to have more epochs."""
    with one_line_errors(verbose):
        with quiet_tensorflow(verbose):
            recipe, out = take_run(options, RECIPES)
            from vgg_keras.training import train as run_training
        path = run_training(recipe, out, cluster=take_cluster(options), **options)
        echo(f"{path}: done", err=True)


@command()
@data_options()
@data_dir_option
@click.option("--split", default="train", show_default=True, help="Split to use.")
@click.option("--out", type=FILE, help="Save the JSON in this file too.")
@bad_image_option
@click.pass_obj
def statistics(verbose, data, data_dir, split, out, on_bad_image) -> None:
    """Compute the mean RGB value and the colour components of a training set, as JSON."""
    with one_line_errors(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.pipelines.screening import without_bad_images
            from vgg_keras.pipelines.sources import open_source
            from vgg_keras.pipelines.statistics import compute_statistics
        images = open_source(data, data_dir)[split]
        if on_bad_image == "skip":
            images, _ = without_bad_images(images)
        computed = compute_statistics(images)
        if out:
            computed.save(out)
        echo(json.dumps(dataclasses.asdict(computed)))


@command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--out",
    type=FILE,
    default=Path("curves.png"),
    show_default=True,
    help="File to write, .png or .svg.",
)
@click.pass_obj
def curves(verbose, runs, out) -> None:
    """Draw the learning curves of runs. RUNS are the folders of the runs."""
    with one_line_errors(verbose):
        missing = [str(path) for path in runs if not (path / JOURNAL).is_file()]
        if missing:
            raise ArgumentError(
                f"A run has a {JOURNAL} once its first epoch has ended. Received folders without "
                f"one: {', '.join(missing)}"
            )
        with quiet_tensorflow(verbose):
            from vgg_keras.report.curves import journals_of, learning_curves
            from vgg_keras.report.figures import save_figure
        save_figure(learning_curves(journals_of(runs)), out)
        echo(out)


@command()
@click.option(
    "--out",
    type=FOLDER,
    default=Path("demo"),
    show_default=True,
    help="Folder for the runs and images.",
)
@data_dir_option
@click.pass_obj
def demo(verbose, out, data_dir) -> None:
    """Train net A on drawn shapes, and a deeper net that starts from it, and show the results."""
    with one_line_errors(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.demos.classification import run_demo
        run_demo(out, data_dir)
