"""What the commands share: kinds of arguments, flags, errors as one line."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import click

from vgg_keras.evaluation.procedure import MAP_AVERAGES, PROTOCOLS
from vgg_keras.nets import get_net
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.recipes import PRECISIONS


class NetName(click.ParamType):
    name = "net"

    def convert(self, value, param, ctx):
        try:
            return get_net(value).name
        except ArgumentError as error:
            self.fail(str(error), param, ctx)


class Scales(click.ParamType):
    """Whole numbers between commas (or a colon)."""

    name = "scales"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return tuple(int(part) for part in value.replace(":", ",").split(","))
        except ValueError:
            self.fail(f"{value!r}: whole numbers between commas are expected", param, ctx)


data_option = click.option(
    "--data",
    required=True,
    help="shapes, folder:DIR, tfds:NAME[/CONFIG], cls-loc:DIR, caltech256:PATH or voc-action:PATH.",
)
data_dir_option = click.option(
    "--data-dir", help="Where TFDS keeps its data [~/tensorflow_datasets]."
)
devices_option = click.option(
    "--devices", type=int, help="GPUs to use [all], or virtual devices to split the CPU into."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
bad_image_option = click.option(
    "--on-bad-image",
    type=click.Choice(("stop", "skip")),
    default="stop",
    show_default=True,
    help="What to do with an unreadable image.",
)


_PROCEDURE = (
    click.option("--test-scales", type=Scales(), help="Q, between commas [as the paper pairs it]."),
    click.option("--multi-scale", is_flag=True, help="The paper's several scales (§4.2), not one."),
    click.option("--flip/--no-flip", default=None, help="Mirror images too [all but centre]."),
    click.option(
        "--map-average",
        type=click.Choice(MAP_AVERAGES),
        default=MAP_AVERAGES[0],
        show_default=True,
        help="What is averaged over the class score map.",
    ),
    click.option(
        "--pool-rounding",
        type=click.Choice(("down", "up")),
        default="down",
        show_default=True,
        help="Of odd sides in pooling; Caffe's is up.",
    ),
)
_TESTING = (
    click.option(
        "--protocol", type=click.Choice(tuple(PROTOCOLS)), default="dense", show_default=True
    ),
    *_PROCEDURE,
    click.option("--precision", type=click.Choice(PRECISIONS), help="Dtype policy [the run's]."),
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        default=64,
        show_default=True,
        help="Crops through the net at once; whole images up to as many pixels.",
    ),
)


def procedure_options(command):
    """Adds what the dense protocol leaves open: scales, flips and readings of §3.2."""
    return add_options(_PROCEDURE, command)


def testing_options(command):
    """Adds the protocol too, and how it is run."""
    return add_options(_TESTING, command)


def add_options(options, command):
    """Adds click's options to a command, to be shown in that order."""
    for option in reversed(options):
        command = option(command)
    return command


class _Lines(logging.Handler):
    """Log messages as plain lines on what is standard error now; a progress bar takes its place."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


@contextlib.contextmanager
def errors_for_people(verbose: bool) -> Iterator[None]:
    """An expected error becomes one line and exit code 1; anything else keeps its traceback."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_Lines()])
    for name in ("vgg_keras",):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            "interrupted; what was kept is whole, and train and evaluate go on from it", err=True
        )
        raise SystemExit(130) from None
    except Exception as error:
        expected = (ValueError, OSError, ImportError, MemoryError)
        is_bad_image = type(error).__name__ == "BadImageError"
        if verbose or not (isinstance(error, expected) or is_bad_image):
            raise
        raise click.ClickException(str(error)) from error
