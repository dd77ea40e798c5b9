"""Names and messages of others as text: on terminals, in figures and in tables."""

from __future__ import annotations

import re

# Control characters, which a terminal obeys; line separators; marks that change the direction of
# writing, which make a name look like another; and surrogates, which cannot be encoded.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Returns a text on one line, in which unprintable characters are escapes such as `\x1b`.

    Bytes that are not UTF-8, which Python has as surrogates in the names of files, are escapes too.

    Example:
        >>> printable("\x1b[31mcat")
        '\\x1b[31mcat'
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python's error handler "surrogateescape" has a byte
        return f"\\x{code - 0xDC00:02x}"
    return ascii(match[0])[1:-1]


def figure_text(text: str) -> str:
    """Returns a text that Matplotlib draws as it is: dollars do not enclose mathematics."""
    return printable(text).replace("$", r"\$")
