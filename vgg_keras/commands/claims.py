"""`claims`: which claims of the paper hold on your results."""

from __future__ import annotations

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.options import FOLDER, json_option
from vgg_keras.commands.results import print_json
from vgg_keras.commands.terminal import echo, echo_lines, terminal_width


@command()
@click.option(
    "--results",
    required=True,
    type=FOLDER,
    help="Folder with results: files that --out of evaluate, fuse, localise or transfer saved.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "markdown"]),
    default="text",
    show_default=True,
    help="Format of the table.",
)
@json_option
@click.pass_obj
def claims(verbose, results, kind, as_json) -> None:
    """Test the claims of the paper on your results: which hold, and by how much.

    The gain is the difference of two sides on the same images, in points, with a 95 % interval.
    """
    with one_line_errors(verbose):
        from vgg_keras.report.rendering import render
        from vgg_keras.report.results import read_results
        from vgg_keras.reproduction.summary import claims_as_json, claims_table
        from vgg_keras.reproduction.verdicts import test_claims

        tested = test_claims(read_results(results))
        if as_json:
            print_json(claims_as_json(tested))
            return
        width = terminal_width(160)
        echo_lines(render(claims_table(tested), kind, width))
        differences = [one.difference for one in tested if one.difference]
        if any(one.seeds == one.splits == 1 for one in differences):
            echo("With one seed, the interval is over images only: it holds for these nets.")
        for one in tested:
            for note in one.notes:
                echo(f"{'- ' if kind == 'markdown' else ''}{one.claim.id}: {note}")
