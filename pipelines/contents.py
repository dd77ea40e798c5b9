"""Reads files that this project wrote. Wrong contents give one error, which names the file."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from vgg_keras.pipelines.errors import UserError

T = TypeVar("T")
_LONGEST_REASON = 300  # characters; some readers list everything that a file holds


@contextlib.contextmanager
def naming_file(
    path: str | os.PathLike, error: type[UserError], problem: str = "cannot be read"
) -> Iterator[None]:
    """Turns every exception that the contents of a file cause into an error that names the file.

    Readers of HDF5, Parquet, NumPy and JSON raise exceptions of many classes for damaged files.

    Args:
        path: the file.
        error: class of the error.
        problem: what the message says of the file, before the reason.

    Raises:
        UserError: of the class `error`, in place of any exception except a missing package and an
            error that names the file already.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as cause:
        if isinstance(cause, UserError) and str(path) in str(cause):
            raise
        raise error(f"{path} {problem}: {_reason(cause)}") from cause


def _reason(cause: Exception) -> str:
    """The message of an exception on one line."""
    if isinstance(cause, KeyError) and cause.args:
        return f"it lacks {cause.args[0]!r}"
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."


def read_json(
    path: str | os.PathLike, kind: type[T], error: type[UserError], problem: str = "cannot be read"
) -> T:
    """Reads a JSON file whose values have known types.

        class_names = read_json("classes.json", list[str], RunError)

    Args:
        path: the file.
        kind: type of the value, such as `list[str]` or a `TypedDict`, whose other keys may have
            any value. See `parse_json`.
        error, problem: see `naming_file`.

    Raises:
        UserError: of the class `error`, if the file is missing or holds something else.
    """
    with naming_file(path, error, problem):
        return parse_json(Path(path).read_bytes(), kind)


def parse_json(text: str | bytes, kind: type[T]) -> T:
    """Parses JSON whose values have known types.

    Args:
        text: JSON. Bytes are UTF-8, UTF-16 or UTF-32.
        kind: type of the value. A bool is no number, and an integer is a float too.

    Returns:
        The value as JSON has it: objects are dictionaries with all of their keys, arrays are lists.

    Raises:
        ValueError: the text is not JSON, has a number that is not finite, or has a value of another
            type. The message names the value.
        RecursionError: the text is nested too deeply.
    """
    value = json.loads(text, parse_float=_finite, parse_constant=_refuse)
    msgspec.convert(value, kind)  # only checks: it drops the keys that `kind` does not have
    return value


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"a number must be finite. Received: {text}")
