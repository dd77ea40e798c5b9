"""An extension of Griffe: docstrings as this project writes them, for the pages of the reference.

- The code under `Example:` becomes a block of code.
- A line for several parameters, `flip, map_average: as of Procedure`, becomes one line for each.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:\n((?:[ ]{4,}.*\n?|\n)+)", re.MULTILINE)
_SEVERAL = re.compile(r"^    (\w+(?:, \w+)+):(.*(?:\n[ ]{8,}.*)*)", re.MULTILINE)


def _as_code(match: re.Match[str]) -> str:
    kind = "pycon" if ">>>" in match[1] else "python"
    code = f"```{kind}\n{textwrap.dedent(match[1]).strip()}\n```"
    return f"Example:\n{textwrap.indent(code, '    ')}\n\n"


def _one_each(match: re.Match[str]) -> str:
    return "\n".join(f"    {name}:{match[2]}" for name in match[1].split(", "))


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            text = _EXAMPLE.sub(_as_code, obj.docstring.value)
            obj.docstring.value = _SEVERAL.sub(_one_each, text)
