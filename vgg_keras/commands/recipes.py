"""`recipe`, and recipes as files and as text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.terminal import echo_lines, print_table
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.recipes import Recipe

_Kind = TypeVar("_Kind", bound=Recipe)


def value_text(value: Any) -> str:
    """The value of a field as its flag takes it; "" for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        low, high = value
        return str(low) if low == high else f"{low}:{high}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def defaults_text(name: str, recipes: Mapping[str, Recipe]) -> str:
    """The value of a field in each recipe, as in "74; small: 40"; "" if no recipe has one.

    The first value is that of all recipes that are not named.
    """
    values = {key: value_text(getattr(recipe, name)) for key, recipe in recipes.items()}
    first = next(iter(values.values()))
    others = (f"{key}: {value}" for key, value in values.items() if value != first)
    return "; ".join([*filter(None, [first]), *others])


def read_config(file: Path, base: _Kind) -> _Kind:
    """The recipe of a JSON file.

    Args:
        file: a recipe, such as `vgg-keras recipe NAME --json` prints and a run folder holds, or
            some of its fields.
        base: gives the fields that the file lacks.

    Raises:
        ArgumentError: the file does not hold fields of such a recipe. The message names it.
    """
    from vgg_keras.pipelines.contents import naming_file, parse_json

    with naming_file(file, ArgumentError, "must hold fields of a recipe"):
        fields = parse_json(file.read_bytes(), dict[str, Any])
        return type(base).of_fields(dataclasses.asdict(base) | fields)


def recipe_command(recipes: Mapping[str, Recipe], train: str):
    """A command that prints recipes.

    Args:
        recipes: recipes of one class, by name.
        train: the command that takes them.
    """

    @command(
        "recipe",
        help=f"Print a recipe of `{train}`: each field with its value and meaning, or as JSON for "
        "--config. Without NAME, print the values of all recipes.",
    )
    @click.argument("name", type=click.Choice(tuple(recipes)), required=False, metavar="[NAME]")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, which --config takes.")
    @click.pass_obj
    def recipe(verbose, name, as_json) -> None:
        with one_line_errors(verbose):
            if as_json and name:
                echo_lines(recipes[name].to_json())
            elif as_json:
                found = {key: dataclasses.asdict(one) for key, one in recipes.items()}
                echo_lines(json.dumps(found, indent=2))
            else:
                print_table(_table({name: recipes[name]} if name else recipes), width=132)

    return recipe


def _table(recipes: Mapping[str, Recipe]):
    """The fields of recipes; of a single one with their meaning."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    explained = len(recipes) == 1
    for column in ("field", *recipes, *["meaning"] * explained):
        table.add_column(column, no_wrap=column != "meaning")
    for field in dataclasses.fields(next(iter(recipes.values()))):
        values = (value_text(getattr(one, field.name)) or "-" for one in recipes.values())
        table.add_row(field.name, *values, *[field.metadata["help"]] * explained)
    return table
