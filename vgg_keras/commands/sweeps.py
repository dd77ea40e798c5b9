"""`sweep`: a search over depth and training scale with Keras Tuner."""

from __future__ import annotations

import click

from vgg_keras.commands.base import group
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.options import (
    FILE,
    FOLDER,
    NetName,
    Several,
    TrainScale,
    data_dir_option,
    data_options,
    json_option,
)
from vgg_keras.commands.results import print_json
from vgg_keras.commands.serving import export
from vgg_keras.commands.terminal import echo, print_table
from vgg_keras.commands.training import given_recipe, recipe_options
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import RECIPES, Recipe
from vgg_keras.sweeps.space import OBJECTIVES, TUNERS, Sweep, default_recipe

# Fields that a trial decides, or that have an option of their own.
_NOT_OF_THE_RECIPE = (
    "net",
    "train_scale",
    "width",
    "init_from",
    "init_layers",
    "preprocessing",
    "data",
    "epochs",
)


@group(invoke_without_command=True)
@data_options("Data: shapes, folder:DIR or tfds:NAME[/CONFIG].", required=False)
@data_dir_option
@click.option("--out", type=FOLDER, help="Folder of the sweep.")
@click.option(
    "--nets",
    type=Several(NetName()),
    default="A,B,D,E",
    show_default=True,
    metavar="NET,...",
    help="Nets to try.",
)
@click.option(
    "--train-scales",
    type=Several(TrainScale()),
    default="256,384,256:512",
    show_default=True,
    metavar="S|S_MIN:S_MAX,...",
    help="Training scales to try.",
)
@click.option(
    "--widths",
    type=Several(click.FLOAT),
    metavar="W,...",
    help="Widths to try: factors on the number of channels [that of the recipe].",
)
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(tuple(RECIPES)),
    help="Recipe that gives the values of all options that you do not set [small if an S is below "
    "224, otherwise paper].",
)
@click.option(
    "--tuner",
    type=click.Choice(TUNERS),
    default="grid",
    show_default=True,
    help="How Keras Tuner searches.",
)
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    default="top5",
    show_default=True,
    help="Validation error to minimise.",
)
@click.option(
    "--budget-epochs",
    type=click.IntRange(1),
    help="Largest number of epochs of a trial [that of the recipe].",
)
@click.option(
    "--max-trials",
    type=click.IntRange(1),
    help="Largest number of trials of random and bayesian [the number of combinations].",
)
@recipe_options(Recipe, without=_NOT_OF_THE_RECIPE)
@click.option("--devices", type=int, help="Number of GPUs that a trial uses [all].")
@click.pass_context
def sweep(
    ctx,
    data,
    data_dir,
    out,
    nets,
    train_scales,
    widths,
    recipe_name,
    tuner,
    objective,
    budget_epochs,
    max_trials,
    devices,
    **fields,
) -> None:
    """Search depth and training scale with Keras Tuner, or continue a search.

    Deeper nets start from net A of the same scale and width, which is trained once (§3.1).
    """
    if ctx.invoked_subcommand:
        return
    for name, value in (("--data", data), ("--out", out)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    with one_line_errors(ctx.obj):
        base = RECIPES[recipe_name or default_recipe(train_scales)]
        fields |= {"data": data, "epochs": budget_epochs, "train_scale": train_scales[0]}
        search = Sweep(
            given_recipe(base, fields),
            nets=nets,
            train_scales=train_scales,
            widths=widths or (base.width,),
            tuner=tuner,
            objective=objective,
            max_trials=max_trials,
        )
        with quiet_tensorflow(ctx.obj):
            from vgg_keras.sweeps.tuner import run_sweep
        run_sweep(search, out, data_dir=data_dir, devices=devices)
        echo(f"{out}: done; `vgg-keras sweep show {out}` shows the trials", err=True)


@sweep.command()
@click.argument("folder", type=FOLDER)
@click.option("--out", type=FILE, help="File for the figure [FOLDER/sweep.png].")
@json_option
@click.pass_obj
def show(verbose, folder, out, as_json) -> None:
    """Show the trials of a sweep as a table, and their errors as a figure.

    The figure shows the error by depth and scale, and against size and time.
    """
    with one_line_errors(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.report.figures import save_figure
            from vgg_keras.sweeps.results import read_trials, sweep_figure, trials_table
        rows, objective = read_trials(folder), Sweep.load(folder).objective
        if out or any("error" in row for row in rows):
            out = out or folder / "sweep.png"
            save_figure(sweep_figure(rows, objective), out)
            echo(f"drawn: {out}", err=True)
        if as_json:
            print_json(rows, objective=objective)
        else:
            # As wide as in `table`: a pipe or a file does not break lines.
            print_table(trials_table(rows, str(folder)), width=132)


@sweep.command("export")
@click.argument("folder", type=FOLDER)
@click.option(
    "--out",
    required=True,
    type=FOLDER,
    help="Folder that a server watches; its name is the name of the model.",
)
@click.pass_context
def export_best(ctx, folder, out) -> None:
    """Export the net of the best trial, as `vgg-keras export --run` does."""
    with one_line_errors(ctx.obj):
        with quiet_tensorflow(ctx.obj):
            from vgg_keras.sweeps.results import best_run
        run = best_run(folder)
        echo(f"best: {run}", err=True)
    ctx.invoke(export, run=run, out=out)
