"""Types of options, and the options that several commands have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from vgg_keras.evaluation.procedure import MAP_AVERAGES, PROTOCOL_ALIASES, PROTOCOLS
from vgg_keras.nets import get_net
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.recipes import BAD_IMAGE_POLICIES, PRECISIONS

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY_PATH = click.Path(path_type=Path)


class NetName(click.ParamType):
    """A net of Table 1 by its name or alias."""

    name = "net"

    def convert(self, value, param, ctx):
        try:
            return get_net(value).name
        except ArgumentError as error:
            self.fail(str(error), param, ctx)


class TrainScale(click.ParamType):
    """S, or S_MIN,S_MAX or S_MIN:S_MAX, as a pair."""

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
            self.fail(f"{value!r} is not S, and not S_MIN,S_MAX", param, ctx)
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

data_option = click.option(
    "--data",
    required=True,
    help="Data: shapes, folder:DIR, tfds:NAME[/CONFIG][?image=FEATURE&label=FEATURE], cls-loc:DIR, "
    "caltech256:PATH or voc-action:PATH.",
)
data_dir_option = click.option(
    "--data-dir", help="Folder in which TensorFlow Datasets stores data [~/tensorflow_datasets]."
)
devices_option = click.option(
    "--devices",
    type=int,
    help="Number of GPUs to use [all]. Without a GPU: number of virtual devices to split the CPU "
    "into.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
bad_image_option = click.option(
    "--on-bad-image",
    type=click.Choice(BAD_IMAGE_POLICIES),
    default="stop",
    show_default=True,
    help="What to do with an image that cannot be read.",
)


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
