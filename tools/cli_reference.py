"""A Markdown extension: the line `::: commands` becomes a reference of the command line.

It is made from the commands themselves, with all that `--help` shows. Tables take the place of the
columns of a terminal, so that no line is wrapped or cut.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import click
from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor

from vgg_keras.cli import main

MARKER = "::: commands"


def _plain(text: str) -> str:
    return re.sub(r"([\\*_\[\]|])", r"\\\1", html.escape(text, quote=False))


def escaped(text: str) -> str:
    """Plain text as Markdown in a cell of a table. Code between backticks is left as it is."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(p if p.startswith("`") else _plain(p) for p in parts)


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a help text. Those that click does not wrap (`\\b`) stay as they are."""
    for paragraph in re.split(r"\n\s*\n", text):
        yield f"```text\n{paragraph[2:]}\n```" if paragraph.startswith("\b") else escaped(paragraph)


def reference(command: click.Command, context: click.Context) -> Iterator[str]:
    """The blocks of Markdown for a command, and for the commands below it."""
    name = context.command_path
    depth = len(name.split())
    yield f"{'#' * max(2, depth)} {name} {{ #{name.replace(' ', '-')} }}"
    yield from paragraphs(command.help or "")
    yield f"```text\n{name} {' '.join(command.collect_usage_pieces(context))}\n```"
    parameters = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    records = [record for p in parameters if (record := p.get_help_record(context))]
    rows = [f"| `{flags}` | {escaped(text)} |" for flags, text in records]
    yield "\n".join(["| option | meaning |", "| --- | --- |", *rows])
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            assert child is not None
            yield from reference(child, child.context_class(child, context, info_name=child_name))


class Commands(Preprocessor):
    """Replaces the marker."""

    def run(self, lines: list[str]) -> list[str]:
        blocks = reference(main, click.Context(main, info_name="vgg-keras"))
        text = "\n\n".join(blocks) if MARKER in lines else ""
        return "\n".join(text if line == MARKER else line for line in lines).split("\n")


class CommandsExtension(Extension):
    """The extension, as Markdown registers it: before fenced code is read."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(Commands(md), "commands", 100)


def makeExtension(**options: object) -> CommandsExtension:
    """Called by Markdown."""
    return CommandsExtension(**options)
