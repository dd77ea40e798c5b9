"""Errors of saved models; all of them are errors that the caller can put right.

UserError
├── ExportError (ValueError)   an export cannot be written or read
├── ReplayError (ValueError)   an export failed in a fresh process
└── RequestError (OSError)     a server cannot be reached, refuses, or answers nonsense
"""

from __future__ import annotations

from vgg_keras.pipelines.errors import UserError

_LONGEST_EXCERPT = 300  # characters


class ExportError(UserError, ValueError):
    """An export cannot be written or read. The message says why.

    ```python
    try:
        read_metadata("exports/vgg16/1")
    except ExportError as error:
        print(error)
    ```
    """


class ReplayError(UserError, ValueError):
    """An export failed in a fresh process. The message is the last line of its output.

    ```python
    try:
        replay("exports/vgg16/1", requests)
    except ReplayError as error:
        print(error)
    ```
    """


class RequestError(UserError, OSError):
    """A server cannot be reached, refuses a request, or gives an answer that cannot be used.

    The message quotes the server.

    ```python
    try:
        server.predict(image_inputs([image]))
    except RequestError as error:
        print(error)
    ```
    """


def excerpt(text: str | None) -> str:
    """Returns the beginning of a server's text for a message: one line, printable characters."""
    words = " ".join((text or "")[: 2 * _LONGEST_EXCERPT].split())
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
    return escaped[:_LONGEST_EXCERPT] or "nothing"
