"""`train`, and what looks at data and runs: `statistics`, `curves`, `demo`."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Collection, Mapping
from pathlib import Path

import click

from vgg_keras.commands.shared import (
    NetName,
    Scales,
    add_options,
    bad_image_option,
    data_dir_option,
    data_option,
    errors_for_people,
)
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import RECIPES, Recipe


def recipe_options(kind: type[Recipe], without: Collection[str] = ()):
    """Adds a flag for every field of a kind of recipe but some."""

    def add(command):
        hints = typing.get_type_hints(kind)
        kinds = {"net": NetName(), "train_scale": Scales()}
        for f in reversed(dataclasses.fields(kind)):
            if f.name in without:
                continue
            flag = "--" + f.name.replace("_", "-")
            if hints[f.name] is bool:
                flag += f"/--no-{f.name.replace('_', '-')}"
            command = click.option(
                flag,
                f.name,
                type=kinds.get(f.name, hints[f.name]),
                default=None,  # not given: the recipe's own; click would take False for a switch
                help=f.metadata["help"],
            )(command)
        return command

    return add


_Kind = typing.TypeVar("_Kind", bound=Recipe)


def training_options(recipes: Mapping[str, Recipe]):
    """Adds the flags of a command that trains by one of these recipes, all of one kind."""
    options = (
        click.option(
            "--recipe",
            "recipe_name",
            type=click.Choice(tuple(recipes)),
            default="paper",
            show_default=True,
            help="Values of all flags that are not given.",
        ),
        click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder."),
        recipe_options(type(recipes["paper"])),
        data_dir_option,
        click.option(
            "--devices", type=int, help="GPUs to use, or virtual devices to split the CPU into."
        ),
        click.option("--processes", type=int, help="Processes that train together, under JAX."),
        click.option("--process-id", type=int, help="Which of them this is, from 0."),
        click.option(
            "--coordinator",
            metavar="HOST:PORT|auto",
            help="Where process 0 is; auto: all three as SLURM, TPU or Kubernetes say.",
        ),
        click.option("--tensorboard", is_flag=True, help="Write event files into the run folder."),
    )
    return lambda command: add_options(options, command)


def given_recipe(recipe: _Kind, fields: dict) -> _Kind:
    """The recipe with the fields that were given.

    Raises:
        ValueError: a value is not allowed.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if len(given.get("train_scale", ())) == 1:
        given["train_scale"] *= 2
    return dataclasses.replace(recipe, **given)


def given_cluster(processes: int | None, process_id: int | None, coordinator: str | None):
    """The `Cluster` that the flags describe; None for a process of its own.

    Raises:
        ValueError: some of the flags are missing, or cannot be.
    """
    from vgg_keras.distribution import Cluster

    if coordinator is None:
        if processes is not None or process_id is not None:
            raise ValueError("--processes and --process-id need --coordinator HOST:PORT.")
        return None
    return Cluster(coordinator, processes, process_id)


@click.command()
@training_options(RECIPES)
@click.pass_obj
def train(
    verbose,
    recipe_name,
    out,
    data_dir,
    devices,
    processes,
    process_id,
    coordinator,
    tensorboard,
    **fields,
) -> None:
    """Train a net, or go on with a run that was interrupted."""
    with errors_for_people(verbose):
        recipe = given_recipe(RECIPES[recipe_name], fields)
        with quiet_tensorflow(verbose):
            from vgg_keras.training import train as run_training
        path = run_training(
            recipe,
            out,
            data_dir=data_dir,
            devices=devices,
            cluster=given_cluster(processes, process_id, coordinator),
            tensorboard=tensorboard,
        )
        click.echo(f"{path}: done", err=True)


@click.command()
@data_option
@data_dir_option
@click.option("--split", default="train", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the JSON here too.")
@bad_image_option
@click.pass_obj
def statistics(verbose, data, data_dir, split, out, on_bad_image) -> None:
    """Mean RGB and colour components of a training set, as JSON."""
    with errors_for_people(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.pipelines.screening import without_bad_images
            from vgg_keras.pipelines.sources import open_source
            from vgg_keras.pipelines.statistics import compute_statistics
        pictures = open_source(data, data_dir)[split]
        if on_bad_image == "skip":
            pictures, _ = without_bad_images(pictures)
        computed = compute_statistics(pictures)
        if out:
            computed.save(out)
        click.echo(json.dumps(dataclasses.asdict(computed)))


@click.command()
@click.argument("run_folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("curves.png"))
@click.pass_obj
def curves(verbose, run_folders, out) -> None:
    """Draw the learning curves of runs as a PNG."""
    with errors_for_people(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.report.figures import learning_curves, save_figure
            from vgg_keras.runs import JOURNAL
        missing = [str(path) for path in run_folders if not (path / JOURNAL).is_file()]
        if missing:
            raise ValueError(f"no {JOURNAL}, so no run with an epoch done: {', '.join(missing)}")
        save_figure(learning_curves({path.name: path / JOURNAL for path in run_folders}), out)
        click.echo(out)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@data_dir_option
@click.pass_obj
def demo(verbose, out, data_dir) -> None:
    """Train a small A and a deeper net from it on drawn shapes, and show the result."""
    with errors_for_people(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.demos.classification import run_demo
        run_demo(out, data_dir)
