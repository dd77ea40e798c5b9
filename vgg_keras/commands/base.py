"""Commands and groups that refuse what click accepts without a word, and print whole sentences."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import click

from vgg_keras.commands.options import Several

_ARGUMENTS = "vgg_keras.arguments"  # key of a context's `meta`


def _set_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Commands take the switch as `ctx.obj`, where that of the group before them is too."""
    ctx.obj = value or bool(ctx.obj)


class Command(click.Command):
    """A command of `vgg-keras`. It has the switch `--verbose`.

    It refuses an option that is given twice but takes one value; click takes the last value and
    forgets the others. In the list of commands its first sentence is not cut.
    """

    def __init__(self, *args: Any, **attributes: Any):
        super().__init__(*args, **attributes)
        verbose = click.Option(
            ["--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbose,
            help="Show the messages of TensorFlow, and the tracebacks of errors.",
        )
        self.params.append(verbose)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, times in Counter(given).items():
            is_single = isinstance(option, click.Option) and not (option.multiple or option.count)
            if times > 1 and is_single and not option.is_eager and not ctx.resilient_parsing:
                flag = "/".join((*option.opts, *option.secondary_opts))
                commas = ", with commas between values" * isinstance(option.type, Several)
                ctx.fail(f"{flag} must be given once{commas}. Received: {times} times")
        return super().parse_args(ctx, args)

    def get_short_help_str(self, limit: int = 0) -> str:
        """The first sentence of the help, whatever the limit."""
        sentence, *_ = " ".join((self.help or "").split()).split(". ")
        return sentence.removesuffix(".")


class Group(Command, click.Group):
    """A group of commands; those that are added with `@group.command()` are `Command`s."""

    command_class = Command


def arguments_of(ctx: click.Context) -> list[str]:
    """The arguments that a command was given, as in `sys.argv`, without those of its groups."""
    return ctx.meta[_ARGUMENTS]


command = functools.partial(click.command, cls=Command)
group = functools.partial(click.group, cls=Group)
