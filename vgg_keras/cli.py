"""The `vgg-keras` command: reads arguments, calls the library, shows what it says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path

import click

from vgg_keras import __version__
from vgg_keras.nets import NETS, TABLE_1
from vgg_keras.recipes import RECIPES, Recipe

_ALIASES = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}


class _NetName(click.ParamType):
    name = "net"

    def convert(self, value, param, ctx):
        name = _ALIASES.get(value.lower(), value.upper() if value.upper() in NETS else value)
        if name not in NETS:
            self.fail(f"{value!r} is no net. Nets: {', '.join(NETS)}", param, ctx)
        return name


class _Scales(click.ParamType):
    """Whole numbers between commas (or a colon)."""

    name = "scales"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return tuple(int(part) for part in value.replace(":", ",").split(","))
        except ValueError:
            self.fail(f"{value!r}: whole numbers between commas are expected", param, ctx)


_data = click.option("--data", required=True, help="shapes, folder:DIR or tfds:NAME[/CONFIG].")
_data_dir = click.option("--data-dir", help="Where TFDS keeps its data [~/tensorflow_datasets].")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_bad_image = click.option(
    "--on-bad-image",
    type=click.Choice(("stop", "skip")),
    default="stop",
    show_default=True,
    help="What to do with an unreadable image.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("--verbose", is_flag=True, help="Show TensorFlow's own messages and tracebacks.")
@click.pass_context
def main(ctx: click.Context, verbose: bool) -> None:
    """The VGG paper as TensorFlow/Keras software: train, evaluate and describe its nets."""
    ctx.obj = verbose


@main.command()
@click.option("--net", "nets", type=_NetName(), multiple=True, help="Net; all of Table 1 if none.")
@click.option("--num-classes", default=1000, show_default=True)
@click.option("--crop-size", default=224, show_default=True)
@click.option("--width", default=1.0, show_default=True)
@_json
def describe(nets, num_classes, crop_size, width, as_json) -> None:
    """Table 1: layers, parameters, multiply-adds and receptive fields."""
    from rich.console import Console

    from vgg_keras.describe import configuration_table, describe_net, layer_table

    size = (num_classes, crop_size, width)
    with _errors_for_people(False):
        if as_json:
            click.echo(json.dumps([describe_net(n, *size) for n in nets or TABLE_1], indent=2))
            return
        console = Console(width=None if sys.stdout.isatty() else 132)
        console.print(configuration_table(nets or TABLE_1, *size))
        for name in nets:
            console.print(layer_table(name, *size))


def _recipe_options(command):
    """A flag for every field of `Recipe`."""
    hints = typing.get_type_hints(Recipe)
    kinds = {"net": _NetName(), "train_scale": _Scales()}
    for f in reversed(dataclasses.fields(Recipe)):
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


@main.command()
@click.option("--recipe", "recipe_name", type=click.Choice(tuple(RECIPES)), default="paper",
              show_default=True, help="Values of all flags that are not given.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder.")
@_recipe_options
@_data_dir
@click.option("--devices", type=int, help="GPUs to use, or virtual devices to split the CPU into.")
@click.option("--tensorboard", is_flag=True, help="Write event files into the run folder.")
@click.pass_obj
def train(verbose, recipe_name, out, data_dir, devices, tensorboard, **fields) -> None:
    """Train a net, or go on with a run that was interrupted."""
    given = {name: value for name, value in fields.items() if value is not None}
    if len(given.get("train_scale", ())) == 1:
        given["train_scale"] *= 2
    with _errors_for_people(verbose):
        recipe = dataclasses.replace(RECIPES[recipe_name], **given)
        with _quiet_tensorflow(verbose):
            from vgg_keras.training import train as run_training
        path = run_training(
            recipe, out, data_dir=data_dir, devices=devices, tensorboard=tensorboard
        )
        click.echo(f"{path}: done", err=True)


@main.command()
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Run folder.")
@_data
@_data_dir
@click.option("--split", default="val", show_default=True, help="Split to score.")
@click.option("--protocol", type=click.Choice(("centre",)), default="centre", show_default=True)
@click.option("--test-scales", type=_Scales(), help="Q, between commas [the training scale].")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@_bad_image
@_json
@click.pass_obj
def evaluate(
    verbose, run, data, data_dir, split, protocol, test_scales, batch_size, on_bad_image, as_json
) -> None:
    """Score a run: top-1 and top-5 error in percent."""
    del protocol  # one so far
    with _errors_for_people(verbose):
        with _quiet_tensorflow(verbose):
            from pipelines.screening import without_bad_images
            from pipelines.sources import open_source
            from vgg_keras.evaluation.centre import evaluate_centre
            from vgg_keras.runs import load_run
        source = open_source(data, data_dir)
        pictures = source[split]
        skipped: list[str] = []
        if on_bad_image == "skip":
            pictures, skipped = without_bad_images(pictures)
        result = evaluate_centre(
            load_run(run), pictures, source.class_names, test_scales or (), batch_size
        )
        if skipped:
            result["skipped"] = skipped
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(
        f"net {result['net']}, {result['protocol']}, Q = {result['test_scales']}: "
        f"top-1 error {result['top1_error']:.2f} %, top-5 error {result['top5_error']:.2f} % "
        f"of {result['images']} images"
    )


@main.command()
@_data
@_data_dir
@click.option("--split", default="train", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the JSON here too.")
@_bad_image
@click.pass_obj
def statistics(verbose, data, data_dir, split, out, on_bad_image) -> None:
    """Mean RGB and colour components of a training set, as JSON."""
    with _errors_for_people(verbose):
        with _quiet_tensorflow(verbose):
            from pipelines.screening import without_bad_images
            from pipelines.sources import open_source
            from pipelines.statistics import compute_statistics
        pictures = open_source(data, data_dir)[split]
        if on_bad_image == "skip":
            pictures, _ = without_bad_images(pictures)
        computed = compute_statistics(pictures)
        if out:
            computed.save(out)
        click.echo(json.dumps(dataclasses.asdict(computed)))


@main.command()
@click.argument("run_folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("curves.png"))
@click.pass_obj
def curves(verbose, run_folders, out) -> None:
    """Draw the learning curves of runs as a PNG."""
    with _errors_for_people(verbose):
        with _quiet_tensorflow(verbose):
            from vgg_keras.report.figures import learning_curves
            from vgg_keras.runs import JOURNAL
        missing = [str(path) for path in run_folders if not (path / JOURNAL).is_file()]
        if missing:
            raise ValueError(f"no {JOURNAL}, so no run with an epoch done: {', '.join(missing)}")
        learning_curves({path.name: path / JOURNAL for path in run_folders}, out)
        click.echo(out)


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@_data_dir
@click.pass_obj
def demo(verbose, out, data_dir) -> None:
    """Train a small A and a deeper net from it on drawn shapes, and show the result."""
    with _errors_for_people(verbose):
        with _quiet_tensorflow(verbose):
            from vgg_keras.demo import run_demo
        run_demo(out, data_dir)


class _Lines(logging.Handler):
    """Log messages as plain lines on what is standard error now; a progress bar takes its place."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


@contextlib.contextmanager
def _errors_for_people(verbose: bool) -> Iterator[None]:
    """An expected error becomes one line and exit code 1; anything else keeps its traceback."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_Lines()])
    for name in ("vgg_keras", "pipelines", "callbacks", "saved_models"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    except KeyboardInterrupt:
        click.echo("interrupted; a run goes on when the same command is given again", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        expected = (ValueError, OSError, ImportError)
        is_bad_image = type(error).__name__ == "BadImageError"
        if verbose or not (isinstance(error, expected) or is_bad_image):
            raise
        raise click.ClickException(str(error)) from error


@contextlib.contextmanager
def _quiet_tensorflow(verbose: bool) -> Iterator[None]:
    """Keeps what TensorFlow's C++ code prints while it is imported off the terminal.

    It writes to the file descriptor before any log level is heeded. After an error it is shown.
    """
    if verbose:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BaseException:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
