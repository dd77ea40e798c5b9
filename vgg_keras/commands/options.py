"""Types of options, and the options that several commands have."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from vgg_keras.evaluation.procedure import MAP_AVERAGES, PROTOCOL_ALIASES, PROTOCOLS
from vgg_keras.nets import ALIASES, NETS, get_net
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.recipes import BAD_IMAGE_POLICIES, PRECISIONS


class _PathType(click.Path):
    """A path. The empty text, as of a shell variable that is not set, is not the current folder.

    Args:
        hint: what is added to the message about a folder in place of a file, or the reverse.
    """

    def __init__(self, hint="", **options):
        super().__init__(path_type=Path, **options)
        self.hint = hint

    def convert(self, value, param, ctx):
        if value == "":
            self.fail("a path must not be empty", param, ctx)
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message} {self.hint}".strip(), param, ctx)


class _WeightsFile(_PathType):
    """A weights file, or the name of a released net."""

    def shell_complete(self, ctx, param, incomplete):
        from vgg_keras.pretrained import RELEASES

        names = [release.name for release in RELEASES]
        return _completions(names, incomplete) + super().shell_complete(ctx, param, incomplete)


def _completions(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """The names that begin with what was typed."""
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


FILE = _PathType(dir_okay=False)
FOLDER = _PathType(file_okay=False)
RUN = _PathType("A weights file is given as --weights.", file_okay=False)
WEIGHTS = _WeightsFile("A run or saved net is given as --run.", dir_okay=False)
ANY_PATH = _PathType()


class NetName(click.ParamType):
    """A net of Table 1 by its name or alias."""

    name = "net"

    def convert(self, value, param, ctx):
        try:
            return get_net(value).name
        except ArgumentError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx, param, incomplete):
        return _completions((*NETS, *ALIASES), incomplete)


class TrainScale(click.ParamType):
    """S, or S_MIN:S_MAX, as a pair; a comma may stand for the colon where one scale is given."""

    name = "scale"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        parts = value.replace(":", ",").split(",")
        try:
            low, high = int(parts[0]), int(parts[-1])
        except ValueError:
            parts = []
        if len(parts) not in (1, 2):
            self.fail(f"{value!r} is not S, and not S_MIN:S_MAX", param, ctx)
        return low, high


class Several(click.ParamType):
    """Values between commas, as a tuple."""

    def __init__(self, kind: click.ParamType):
        self.kind = kind
        self.name = f"{kind.name},..."

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        return tuple(self.kind.convert(part.strip(), param, ctx) for part in value.split(","))

    def shell_complete(self, ctx, param, incomplete):
        done, comma, last = incomplete.rpartition(",")
        items = self.kind.shell_complete(ctx, param, last)
        return [CompletionItem(done + comma + item.value) for item in items]


class Names(click.Choice):
    """A choice that has aliases too."""

    def __init__(self, choices: Sequence[str], aliases: Mapping[str, str]):
        super().__init__(choices)
        self.aliases = aliases

    def convert(self, value, param, ctx):
        return super().convert(self.aliases.get(value, value), param, ctx)


SCALES = Several(click.INT)
_BATCH_SIZE = (
    "Number of crops in a batch. A batch of whole images has at most as many pixels as these crops."
)

_DATA = (
    "Data: shapes, folder:DIR, tfds:NAME[/CONFIG][?image=FEATURE&label=FEATURE], "
    "tfrecord:PATTERN, parquet:DIR, webdataset:PATTERN, cls-loc:DIR, caltech256:PATH or "
    "voc-action:PATH."
)
_val_fraction_option = click.option(
    "--val-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="FRACTION",
    help="Hold this fraction of the images of each class out of the split train or all, as the "
    "split val; the same as ?val=FRACTION at the end of --data.",
)
data_dir_option = click.option(
    "--data-dir",
    help="Folder in which TensorFlow Datasets stores data, and in which indexes of TFRecord, "
    "Parquet and tar files are cached [~/tensorflow_datasets].",
)
devices_option = click.option(
    "--devices",
    type=int,
    help="Number of GPUs to use [all]. Without a GPU: number of virtual devices to split the CPU "
    "into.",
)
predictions_option = click.option(
    "--out", type=FILE, help="Save the predictions in this .parquet or .csv file."
)
submission_option = click.option(
    "--submission",
    type=FILE,
    help="Save the five answers for each image in this text file, as ILSVRC's evaluation server "
    "takes them.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the results as JSON, as docs/json.md describes."
)
bad_image_option = click.option(
    "--on-bad-image",
    type=click.Choice(BAD_IMAGE_POLICIES),
    default="stop",
    show_default=True,
    help="What to do with an image that cannot be read.",
)


def data_options(text: str = _DATA, *, required: bool = True):
    """A decorator that adds `--data`, and `--val-fraction`, which is added to the data's query."""

    def add(command):
        @functools.wraps(command)
        def with_fraction(*args, data, val_fraction, **options):
            if val_fraction is not None and not data:
                raise click.UsageError("--val-fraction goes with --data.")
            if data and val_fraction is not None:
                data += f"{'&' if '?' in data else '?'}val={val_fraction:g}"
            return command(*args, data=data, **options)

        data_option = click.option("--data", required=required, help=text)
        return data_option(_val_fraction_option(with_fraction))

    return add


def check_files_to_write(out: Path | None, submission: Path | None) -> None:
    """Refuses at once files of predictions that could not be written at the end."""
    from vgg_keras.evaluation.predictions import known_format
    from vgg_keras.pipelines.files import check_writable

    for file in filter(None, (out and known_format(out), submission)):
        check_writable(file)


def batch_size_option(text: str = _BATCH_SIZE):
    """The option `--batch-size`."""
    return click.option(
        "--batch-size", type=click.IntRange(1), default=64, show_default=True, help=text
    )


# What a procedure leaves open when the protocol is fixed: scales, flips, readings of §3.2.
PROCEDURE = (
    click.option(
        "--test-scales",
        type=SCALES,
        metavar="Q,...",
        help="Test scales Q, smaller sides of the rescaled images [those that the paper pairs "
        "with the training scale S].",
    ),
    click.option(
        "--multi-scale",
        is_flag=True,
        help="Use the several test scales of §4.2 instead of the single one of §4.1.",
    ),
    click.option(
        "--flip/--no-flip",
        default=None,
        help="Average the posteriors with those of the mirror image [yes, except for centre].",
    ),
    click.option(
        "--map-average",
        type=click.Choice(MAP_AVERAGES),
        default=MAP_AVERAGES[0],
        show_default=True,
        help="What is averaged over the class score map: the scores before the soft-max, or "
        "posteriors.",
    ),
)
TESTING = (
    click.option(
        "--protocol",
        type=Names(tuple(PROTOCOLS), PROTOCOL_ALIASES),
        default="dense",
        show_default=True,
        help="Test protocol of §3.2 and §4.3: the central crop, the whole image, a grid of crops, "
        "or the last two together.",
    ),
    *PROCEDURE,
    click.option(
        "--precision", type=click.Choice(PRECISIONS), help="Keras dtype policy [that of the net]."
    ),
    batch_size_option(),
)


def add_options(options):
    """A decorator that adds options to a command, in the order in which they are given."""

    def add(command):
        for option in reversed(options):
            command = option(command)
        return command

    return add
