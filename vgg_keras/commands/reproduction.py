"""`reproduce`: the experiments of the paper as one plan."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.claims import claims
from vgg_keras.commands.errors import one_line_errors, with_flags
from vgg_keras.commands.options import (
    FOLDER,
    NetName,
    Several,
    data_dir_option,
    devices_option,
    json_option,
)
from vgg_keras.commands.results import print_json, provenance, timed
from vgg_keras.commands.terminal import echo, print_table
from vgg_keras.commands.training import recipe_options
from vgg_keras.features.protocols import CUSTOM, TRANSFER_PROTOCOLS
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import Recipe
from vgg_keras.reproduction.options import PLANNED_FIELDS, ROWS, SIZES, TABLES, Options

_FLAGS = {name: f"--{name.replace('_', '-')}" for name in ("localisation_data", "transfer_data")}
_FIELDS = [f.name for f in dataclasses.fields(Recipe) if f.name not in PLANNED_FIELDS]


class _TransferData(click.ParamType):
    """PROTOCOL=DATA as a pair."""

    name = "PROTOCOL=DATA"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        protocol, equals, data = value.partition("=")
        names = (*TRANSFER_PROTOCOLS, CUSTOM)
        if not equals or not data or protocol not in names:
            self.fail(f"{value!r} is not PROTOCOL=DATA, with PROTOCOL {', '.join(names)}", param)
        return protocol, data


class _TableNumber(click.Choice):
    """The number of a table."""

    def __init__(self):
        super().__init__(tuple(map(str, ROWS)))

    def convert(self, value, param, ctx):
        return int(super().convert(str(value), param, ctx))


@command()
@click.option(
    "--size",
    type=click.Choice(tuple(SIZES)),
    default="small",
    show_default=True,
    help="Recipe of all nets: tiny (crop 32, width 1/8), small (crop 64, width 1/4) or paper. "
    "Scales are in proportion to the crop.",
)
@click.option(
    "--seeds",
    type=Several(click.INT),
    default="0,1,2",
    show_default=True,
    metavar="SEED,...",
    help="Seeds; each repeats all experiments.",
)
@click.option(
    "--tables",
    type=Several(_TableNumber()),
    metavar="N,...",
    help=f"Tables of the paper: {', '.join(map(str, ROWS))}; 7 and 10 repeat rows of 6 and 9 "
    f"[{','.join(map(str, TABLES))}].",
)
@click.option(
    "--nets",
    type=Several(NetName()),
    metavar="NET,...",
    help="Nets; what needs another one is left out [all].",
)
@click.option(
    "--localisation-data", help="Data with boxes, for Tables 8 to 10 [--data, if they have boxes]."
)
@click.option(
    "--transfer-data",
    type=_TransferData(),
    multiple=True,
    help="Data for Table 11 with their protocol, such as caltech101=tfds:caltech101; may be given "
    "several times.",
)
@click.option(
    "--hours",
    type=click.FloatRange(0),
    help="Start no step that would not end within this time, by the estimate [no limit].",
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("reproduction"),
    show_default=True,
    help="Folder for the runs and results. The same command goes on with what is there.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print the steps, with their times and disk space, and end."
)
@recipe_options(Recipe, without=set(PLANNED_FIELDS) - {"data"})
@data_dir_option
@devices_option
@json_option
@click.pass_obj
def reproduce(verbose, data_dir, devices, hours, out, dry_run, as_json, **given) -> None:
    """Carry out the experiments of Tables 3 to 6, 8, 9 and 11, for several seeds.

    Every training, test and result is a step. After an interruption the same command goes on. An
    option of a recipe, such as --epochs, changes the recipe of all nets.
    """
    with one_line_errors(verbose):
        options = _options(given)
        with quiet_tensorflow(verbose):
            from vgg_keras.reproduction.estimate import estimate
            from vgg_keras.reproduction.folder import RESULTS
            from vgg_keras.reproduction.run import reproduce as run_plan
        if dry_run:
            found = estimate(options, out, data_dir=data_dir, devices=devices)
            if as_json:
                shown = found.as_json()
                print_json(shown.pop("results"), **shown, **provenance())
            else:
                _show(found)
            return
        with timed() as timer:
            outcome = run_plan(options, out, data_dir=data_dir, devices=devices, hours=hours)
        _report(outcome)
        if as_json:
            print_json(outcome.as_json(), **provenance(timer))
        elif (results := out / RESULTS).is_dir():
            click.get_current_context().invoke(claims, results=results, kind="text", as_json=False)
        if outcome.failed:
            raise SystemExit(1)


def _options(given: dict) -> Options:
    """The options of a plan from those of the command."""
    fields = {name: given.pop(name) for name in _FIELDS}
    overrides = {name: value for name, value in fields.items() if value is not None}
    several = given.pop("transfer_data")
    transfer_data = dict(several)
    if len(transfer_data) < len(several):
        raise ArgumentError("Each protocol of transfer_data must be given once.", "transfer_data")
    chosen = {name: value for name, value in given.items() if value is not None}
    return Options(**chosen, transfer_data=transfer_data, overrides=overrides)


def _show(found) -> None:
    """Prints the steps with their costs."""
    from rich.table import Table

    from vgg_keras.reproduction.cost import as_text

    table = Table(box=None)
    table.add_column("step")
    table.add_column("tables")
    table.add_column("time", justify="right")
    table.add_column("disk", justify="right")
    for step in found.steps:
        tables = ",".join(map(str, step.tables))
        time = "done" if step.done else as_text(step.seconds)
        disk = "?" if math.isnan(step.disk) else f"{step.disk / 1e6:.1f} MB"
        table.add_row(step.name, tables, time, disk)
    print_table(table, width=120)
    for number, needed in found.missing.items():
        echo(f"Table {number} is left out: it needs {with_flags(needed, _FLAGS)}.")
    echo(
        f"{len(found.steps)} steps, {sum(step.done for step in found.steps)} done. Left: "
        f"{as_text(found.seconds)} at most, because a training ends earlier on a plateau "
        f"({found.measured_on})."
    )
    disk = "?" if math.isnan(found.disk) else f"{found.disk / 1e9:.2f} GB"
    echo(f"Disk: {disk} to write, {found.free / 1e9:.1f} GB free.")


def _report(outcome) -> None:
    """Prints what became of the steps."""
    for name, reason in outcome.failed.items():
        echo(f"failed: {name}: {reason}", err=True)
    lines = (
        (outcome.blocked, "need a step that failed"),
        (outcome.left, "do not fit into the time of --hours"),
    )
    for steps, why in lines:
        if steps:
            echo(f"{len(steps)} steps {why}", err=True)
    echo(f"{outcome.done} of {outcome.total} steps are done", err=True)
