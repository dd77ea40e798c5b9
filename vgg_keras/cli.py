"""The `vgg-keras` command."""

from __future__ import annotations

import click

from vgg_keras.commands.base import group
from vgg_keras.commands.claims import claims
from vgg_keras.commands.description import describe
from vgg_keras.commands.evaluation import evaluate, fuse, report, table
from vgg_keras.commands.features import features, transfer
from vgg_keras.commands.localisation import localise
from vgg_keras.commands.prediction import predict
from vgg_keras.commands.recipes import recipe_command
from vgg_keras.commands.reproduction import reproduce
from vgg_keras.commands.serving import export, request, verify
from vgg_keras.commands.similar import similar
from vgg_keras.commands.sweeps import sweep
from vgg_keras.commands.training import curves, demo, statistics, train
from vgg_keras.commands.weights import convert, weights
from vgg_keras.recipes import RECIPES
from vgg_keras.version import __version__

COMMANDS = (
    describe,
    train,
    recipe_command(RECIPES, "train"),
    sweep,
    reproduce,
    evaluate,
    predict,
    weights,
    convert,
    export,
    verify,
    request,
    localise,
    features,
    transfer,
    similar,
    fuse,
    table,
    report,
    claims,
    statistics,
    curves,
    demo,
)


@group(
    commands={command.name: command for command in COMMANDS},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__)
def main() -> None:
    """The VGG paper in TensorFlow and Keras: train, evaluate, export and describe its nets."""


if __name__ == "__main__":
    main()
