"""`sweep`: depth and scale searched with Keras Tuner, shown, and the best net exported."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from vgg_keras.commands.serving import export
from vgg_keras.commands.shared import (
    NetName,
    Scales,
    data_dir_option,
    errors_for_people,
    json_option,
)
from vgg_keras.commands.training import given_recipe, recipe_options
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import RECIPES, Recipe
from vgg_keras.sweeps.space import OBJECTIVES, TUNERS, Sweep, default_recipe

_SEVERAL = ("--train-scales", "--widths")
# What a trial decides, and what has an option of its own.
_NOT_OF_THE_RECIPE = ("net", "train_scale", "width", "init_from", "init_layers", "data", "epochs")


class _SweepGroup(click.Group):
    """`--train-scales 256 384` as `--train-scales 256 --train-scales 384`, which click reads."""

    def parse_args(self, ctx, args):
        spread, option = [], None
        for argument in args:
            if argument.startswith("--"):
                option = argument if argument in _SEVERAL else None
                if option is None:
                    spread.append(argument)
            elif option and argument not in self.commands:
                spread += [option, argument]
            else:
                spread.append(argument)
        return super().parse_args(ctx, spread)


class _Nets(click.ParamType):
    name = "nets"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        return tuple(NetName().convert(name, param, ctx) for name in value.split(","))


@click.group(cls=_SweepGroup, invoke_without_command=True)
@click.option("--data", help="shapes, folder:DIR or tfds:NAME[/CONFIG].")
@data_dir_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the sweep.")
@click.option("--nets", type=_Nets(), default="A,B,D,E", show_default=True)
@click.option(
    "--train-scales",
    type=Scales(),
    multiple=True,
    metavar="S|S_MIN:S_MAX ...",
    help="S, several after one another [256 384 256:512].",
)
@click.option(
    "--widths",
    type=float,
    multiple=True,
    metavar="W ...",
    help="Widths of the nets [the recipe's].",
)
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(tuple(RECIPES)),
    help="All else [small where an S is below 224, otherwise paper].",
)
@click.option("--tuner", type=click.Choice(TUNERS), default="grid", show_default=True)
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    default="top5",
    show_default=True,
    help="Validation error to bring down.",
)
@click.option("--budget-epochs", type=click.IntRange(1), help="Epochs a trial [the recipe's].")
@click.option("--max-trials", type=click.IntRange(1), help="For random and bayesian [all points].")
@recipe_options(Recipe, without=_NOT_OF_THE_RECIPE)
@click.option("--devices", type=int, help="GPUs a trial uses [all].")
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
    """Search depth and training scale with Keras Tuner, or go on with a search.

    Deeper nets start from net A of their scale and width, which is trained once (§3.1).
    """
    if ctx.invoked_subcommand:
        return
    for name, value in (("--data", data), ("--out", out)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    with errors_for_people(ctx.obj):
        scales = [scale * 2 if len(scale) == 1 else scale for scale in train_scales]
        scales = scales or [(256, 256), (384, 384), (256, 512)]
        base = RECIPES[recipe_name or default_recipe(scales)]
        fields |= {"data": data, "epochs": budget_epochs, "train_scale": scales[0]}
        recipe = given_recipe(base, fields)
        wanted = Sweep(
            recipe,
            nets=nets,
            train_scales=tuple(scales),
            widths=tuple(widths) or (base.width,),
            tuner=tuner,
            objective=objective,
            max_trials=max_trials,
        )
        with quiet_tensorflow(ctx.obj):
            from vgg_keras.sweeps.tuner import run_sweep
        run_sweep(wanted, out, data_dir=data_dir, devices=devices)
        click.echo(f"{out}: done; see it with `vgg-keras sweep show {out}`", err=True)


@sweep.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The picture [FOLDER/sweep.png].")
@json_option
@click.pass_obj
def show(verbose, folder, out, as_json) -> None:
    """A table of the trials, and a picture: error by depth and scale, against size and time."""
    with errors_for_people(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.report.figures import save_figure
            from vgg_keras.sweeps.results import read_trials, sweep_figure, trials_table
        rows, objective = read_trials(folder), Sweep.load(folder).objective
        if as_json:
            click.echo(json.dumps(rows, indent=2))
        else:
            console = Console()
            if not console.is_terminal:
                console.width = 132  # as of `table`: a pipe or a file has no lines to break
            console.print(trials_table(rows, str(folder)))
        if out or any("error" in row for row in rows):
            out = out or folder / "sweep.png"
            save_figure(sweep_figure(rows, objective), out)
            click.echo(f"drawn: {out}", err=True)


@sweep.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for a server to watch; its last part names the model.",
)
@click.pass_context
def export_best(ctx, folder, out) -> None:
    """Export the best trial's net, as `vgg-keras export --run` does."""
    with errors_for_people(ctx.obj):
        with quiet_tensorflow(ctx.obj):
            from vgg_keras.sweeps.results import best_run
        run = best_run(folder)
        click.echo(f"best: {run}", err=True)
    ctx.invoke(export, run_folder=run, out=out)
