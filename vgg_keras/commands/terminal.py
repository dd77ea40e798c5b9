"""What commands print. Names of files and classes and answers of servers are only shown."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from vgg_keras.text import printable

if TYPE_CHECKING:
    from rich.table import Table


def echo(line: Any, *, err: bool = False) -> None:
    """Prints a line, without characters that a terminal would obey.

    Args:
        line: converted to a string.
        err: whether to print to standard error.
    """
    click.echo(printable(str(line)), err=err)


def echo_lines(text: str) -> None:
    """Prints a text of several lines, which ends in a line break or not."""
    for line in text.removesuffix("\n").split("\n"):
        echo(line)


def terminal_width(otherwise: int) -> int:
    """Width of the terminal in characters, or `otherwise` if the output is not one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else otherwise


def print_table(table: Table, width: int | None = None) -> None:
    """Prints a table.

    Args:
        table: cells that are strings are shown as they are: brackets are not markup.
        width: width in characters where the output is not a terminal; by default 80.
    """
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if width and not console.is_terminal:
        console.width = width
    console.print(table)
