"""Errors of saved models; all of them are errors that the caller can put right.

UserError
├── ExportError (ValueError)   an export cannot be written or read
├── ReplayError (ValueError)   an export failed in a fresh process
└── RequestError (OSError)     a server cannot be reached or refuses a request
"""

from __future__ import annotations

from vgg_keras.pipelines.errors import UserError


class ExportError(UserError, ValueError):
    """An export cannot be written or read. The message says why."""


class ReplayError(UserError, ValueError):
    """An export failed in a fresh process. The message is the last line of its output."""


class RequestError(UserError, OSError):
    """A server cannot be reached or refuses a request. The message quotes the server."""
