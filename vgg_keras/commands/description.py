"""`describe`."""

from __future__ import annotations

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.options import NetName, Several, json_option
from vgg_keras.commands.results import print_json
from vgg_keras.commands.terminal import print_table
from vgg_keras.nets import TABLE_1


@command()
@click.option(
    "--nets",
    "--net",  # its only name before
    "nets",
    type=Several(NetName()),
    metavar="NET,...",
    help="Nets to describe layer by layer [all of Table 1].",
)
@click.option("--num-classes", default=1000, show_default=True, help="Number of classes.")
@click.option(
    "--crop-size",
    default=224,
    show_default=True,
    help="Side of the input in pixels, a multiple of 32.",
)
@click.option(
    "--width",
    default=1.0,
    show_default=True,
    help="Factor on the number of channels of all hidden layers.",
)
@json_option
@click.pass_obj
def describe(verbose, nets, num_classes, crop_size, width, as_json) -> None:
    """Print Table 1: layers, parameters, multiply-adds and receptive fields."""
    from vgg_keras.describe import configuration_table, describe_net, layer_table

    size = (num_classes, crop_size, width)
    with one_line_errors(verbose):
        if as_json:
            print_json([describe_net(name, *size) for name in nets or TABLE_1])
            return
        print_table(configuration_table(nets or TABLE_1, *size), width=132)
        for name in nets or ():
            print_table(layer_table(name, *size), width=132)
