"""`describe`."""

from __future__ import annotations

import json
import sys

import click

from vgg_keras.commands.shared import (
    NetName,
    errors_for_people,
    json_option,
)
from vgg_keras.nets import TABLE_1


@click.command()
@click.option("--net", "nets", type=NetName(), multiple=True, help="Net; all of Table 1 if none.")
@click.option("--num-classes", default=1000, show_default=True)
@click.option("--crop-size", default=224, show_default=True)
@click.option("--width", default=1.0, show_default=True)
@json_option
def describe(nets, num_classes, crop_size, width, as_json) -> None:
    """Table 1: layers, parameters, multiply-adds and receptive fields."""
    from rich.console import Console

    from vgg_keras.describe import configuration_table, describe_net, layer_table

    size = (num_classes, crop_size, width)
    with errors_for_people(False):
        if as_json:
            click.echo(json.dumps([describe_net(n, *size) for n in nets or TABLE_1], indent=2))
            return
        console = Console(width=None if sys.stdout.isatty() else 132)
        console.print(configuration_table(nets or TABLE_1, *size))
        for name in nets:
            console.print(layer_table(name, *size))
