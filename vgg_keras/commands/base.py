"""Commands and groups that refuse what click accepts without a word."""

from __future__ import annotations

import functools
from collections import Counter

import click

from vgg_keras.commands.options import Several


class Command(click.Command):
    """A command of `vgg-keras`: it refuses an option that is given twice but takes one value.

    Click takes the last value and forgets the others.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, times in Counter(given).items():
            is_single = isinstance(option, click.Option) and not (option.multiple or option.count)
            if times > 1 and is_single and not option.is_eager and not ctx.resilient_parsing:
                flag = "/".join((*option.opts, *option.secondary_opts))
                commas = ", with commas between values" * isinstance(option.type, Several)
                ctx.fail(f"{flag} must be given once{commas}. Received: {times} times")
        return super().parse_args(ctx, args)


class Group(Command, click.Group):
    """A group of commands; those that are added with `@group.command()` are `Command`s."""

    command_class = Command


command = functools.partial(click.command, cls=Command)
group = functools.partial(click.group, cls=Group)
