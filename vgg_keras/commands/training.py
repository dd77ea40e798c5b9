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
)
from vgg_keras.commands.terminal import echo
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import RECIPES, LocalisationRecipe, Recipe
from vgg_keras.run_files import JOURNAL

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
    options = []
    for field in dataclasses.fields(kind):
        if field.name in without:
            continue
        if field.name == "data":
            options.append(data_options(field.metadata["help"]))
            continue
        flag = "--" + field.name.replace("_", "-")
        if hints[field.name] is bool:
            flag += f"/--no-{field.name.replace('_', '-')}"
        option = click.option(
            flag,
            *_FORMER_FLAGS.get((kind, field.name), ()),
            field.name,
            type=kinds.get(field.name, hints[field.name]),
            default=None,  # the recipe's; also for a switch, for which click would take False
            help=field.metadata["help"],
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
            default="paper",
            show_default=True,
            help="Recipe that gives the values of all options that you do not set.",
        ),
        click.option("--out", required=True, type=FOLDER, help="Folder of the run."),
        recipe_options(type(recipes["paper"])),
        data_dir_option,
        click.option(
            "--devices",
            type=int,
            help="Number of GPUs to use [all]. Without a GPU: number of virtual devices to split "
            "the CPU into.",
        ),
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


def take_recipe(options: dict[str, Any], recipes: Mapping[str, _Kind]) -> _Kind:
    """Takes the fields of a recipe out of a command's options.

    Raises:
        ArgumentError: a value is not allowed.
    """
    recipe = recipes[options.pop("recipe_name")]
    names = [field.name for field in dataclasses.fields(recipe)]
    return given_recipe(recipe, {name: options.pop(name) for name in names})


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
    """Train a net, or continue a run that was interrupted."""
    with one_line_errors(verbose):
        recipe = take_recipe(options, RECIPES)
        with quiet_tensorflow(verbose):
            from vgg_keras.training import train as run_training
        path = run_training(recipe, cluster=take_cluster(options), **options)
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
    "--out", type=FILE, default=Path("curves.png"), show_default=True, help="PNG file to write."
)
@click.pass_obj
def curves(verbose, runs, out) -> None:
    """Draw the learning curves of runs as a PNG file. RUNS are the folders of the runs."""
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
