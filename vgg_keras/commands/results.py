"""Results as `--json` prints them: one shape for all commands, see docs/json.md."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from vgg_keras.commands.base import arguments_of
from vgg_keras.commands.terminal import echo
from vgg_keras.metadata import PROVENANCE_KEY, rounded


def print_json(results: Sequence[Any], **more: Any) -> None:
    """Prints one JSON object, whose `results` are a list, also if there is a single one.

    Floats have six significant digits.

    Args:
        results: objects of one kind.
        more: what all results share.
    """
    echo(json.dumps(rounded({"results": list(results), **more})))


def without_password(argument: str) -> str:
    """An argument without the user and password of the URL that it may be or hold."""
    return re.sub(r"(?<=://)[^/?#]*@", "", argument)


class Timer:
    """The seconds of a block, see `timed`."""

    seconds: float | None = None


@contextlib.contextmanager
def timed() -> Iterator[Timer]:
    """Measures the seconds of a block."""
    timer, started = Timer(), time.perf_counter()
    yield timer
    timer.seconds = time.perf_counter() - started


def provenance(timer: Timer | None = None, images: int | None = None) -> dict[str, dict[str, Any]]:
    """How the command that runs came to a result, as an entry of it.

    Args:
        timer: the seconds that the result took.
        images: number of images that were computed in that time.
    """
    from vgg_keras.hardware import hardware
    from vgg_keras.provenance import git_commit
    from vgg_keras.version import __version__

    ctx = click.get_current_context()
    arguments = arguments_of(ctx)
    found: dict[str, Any] = {
        "version": __version__,
        "commit": git_commit(),
        "command": shlex.join([*ctx.command_path.split(), *map(without_password, arguments)]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
    }
    if timer and timer.seconds is not None:
        found["seconds"] = round(timer.seconds, 2)
        if images is not None:
            found["images_per_second"] = round(images / max(timer.seconds, 1e-9), 1)
    return {PROVENANCE_KEY: found}
