"""Errors on the command line: one line, which names flags where the library names arguments."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
from collections.abc import Iterator

import click

from vgg_keras.commands.terminal import echo
from vgg_keras.pipelines.errors import ArgumentError, UserError
from vgg_keras.text import printable

# Flags of arguments that have another name in the library; the first that was given,
# else the first that the command has, counts.
_FLAGS = {
    "boxes_file": ("--boxes",),
    "class_names": ("--classes",),
    "classifiers": ("--classifier",),
    "folder": ("--out",),
    "limits": ("--max-pixels", "--max-aspect"),
    "localisers": ("--localiser",),
    "mean": ("--statistics",),
    "net": ("--run",),
    "nets": ("--run",),
    "path": ("--out",),
    "splits": ("--num-splits",),
    "threshold": ("--merge-threshold",),
    "where": ("--run", "--weights"),
}
# What else the library says in its own words, where a command has the flag.
_PHRASES = {
    "--out": (r"another folder", r"another folder (--out)"),
    "--split": (r"Its splits:", r"Its splits (--split):"),
    "--val-fraction": (r"(--data \S.*?)[?&]val=([\d.]*\d)", r"\1 --val-fraction \2"),
    "--recipe": (r'(?:LOCALISATION_)?RECIPES\["([\w-]+)"\]', r"--recipe \1"),
    "--resume": (r"continue this run", r"continue this run (or --resume RUN)"),
}
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def one_line_errors(verbose: bool) -> Iterator[None]:
    """Shows an error that the user can put right as one line, with exit code 1.

    Such are every `UserError` and what the operating system refuses: a missing file, no
    permission, a full disk. Any other exception is a bug and keeps its traceback.

    Args:
        verbose: whether all exceptions keep their tracebacks.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_Lines()])
    logging.getLogger("vgg_keras").setLevel(logging.INFO)
    try:
        yield
    except KeyboardInterrupt:
        echo("Interrupted. What was saved is intact; run it again to continue.", err=True)
        raise SystemExit(130) from None
    except UserError as error:
        if verbose:
            raise
        raise click.ClickException(printable(_message(error))) from error
    except OSError as error:
        if verbose or not (error.filename or error.errno in _DISK_IS_FULL):
            raise
        name = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(printable(f"{name}{error.strerror}")) from error


class _Lines(logging.Handler):
    """Writes log messages as plain lines on what is standard error now.

    A progress bar replaces it while it runs.
    """

    def emit(self, record: logging.LogRecord) -> None:
        echo(with_flags(self.format(record), _flags_of_command()), err=True)


def _message(error: UserError) -> str:
    """The message of an error with the flags of the command that runs."""
    flags = _flags_of_command()
    text = str(error)
    argument = error.argument if isinstance(error, ArgumentError) else None
    flag = _flag_of(argument, flags) if argument else None
    if argument is None or flag is None:
        return with_flags(text, flags)
    if text.startswith(f"{argument} "):
        text = f"{flag}{text.removeprefix(argument)}"
    text = with_flags(text, flags)
    return text if text.startswith(flag) else f"{flag}: {text}"


def with_flags(message: str, flags: dict[str, str]) -> str:
    """The message with flags in place of arguments, as in `--cache-dir` for `cache_dir`.

    Args:
        message: as the library gives it. `on_bad_image="skip"` becomes `--on-bad-image skip`. A
            name of one word is replaced only before a value, because `data` may be a plain word.
            So are `_PHRASES`.
        flags: flag of each argument.
    """

    def flag(match: re.Match) -> str:
        name, value = match["name"], match["value"]
        if name not in flags or (value is None and "_" not in name):
            return match[0]
        if value is None or value == "True":
            return flags[name]
        return f"{flags[name]} {value.strip(_QUOTES)}"

    message = _ARGUMENT.sub(flag, message)
    for known, (pattern, replacement) in _PHRASES.items():
        if known in flags.values():
            message = re.sub(pattern, replacement, message)
    return message


_QUOTES = "\"'"
_ARGUMENT = re.compile(
    r"(?<![\w/.-])(?P<name>[a-z][a-z_]*[a-z])(?:=(?P<value>\"[^\"]*\"|'[^']*'|\([^)]*\)|[\w.:/-]*\w))?"
    r"(?![\w/=-]|\.\w)"
)


def _flag_of(argument: str, flags: dict[str, str]) -> str | None:
    """The flag of an argument: its own if it was given, else one of its other names."""
    others = [flag for flag in _FLAGS.get(argument, ()) if flag in flags.values()]
    own, given = flags.get(argument), _given()
    return own if own in given or not others else min(others, key=lambda flag: flag not in given)


def _flags_of_command() -> dict[str, str]:
    """The long flags of the command that runs, by the name of their argument."""
    options = _options_of_command()
    return {flag[2:].replace("-", "_"): flag for option in options for flag in option.opts[:1]}


def _given() -> set[str]:
    """The flags that the user gave."""
    context = click.get_current_context(silent=True)
    return {
        option.opts[0]
        for option in _options_of_command()
        if context
        and context.get_parameter_source(option.name) is click.core.ParameterSource.COMMANDLINE
    }


def _options_of_command() -> list[click.Option]:
    context = click.get_current_context(silent=True)
    parameters = context.command.params if context else []
    return [one for one in parameters if isinstance(one, click.Option) and one.opts[0][:2] == "--"]
