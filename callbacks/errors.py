"""Errors of the callbacks; all of them are errors that the caller can put right.

UserError
├── CheckpointError (ValueError)       a checkpoint cannot be restored
├── DivergenceError (ArithmeticError)  the loss of an epoch is not finite
├── JournalError (ValueError)          a journal cannot be read
└── WarmStartError (ValueError)        weights to start from are missing, damaged, or do not fit
"""

from __future__ import annotations

from vgg_keras.pipelines.errors import UserError


class CheckpointError(UserError, ValueError):
    """A checkpoint cannot be restored. The message names the file and the reason."""


class DivergenceError(UserError, ArithmeticError):
    """The loss of an epoch is NaN or infinite. The message says how to go on."""


class JournalError(UserError, ValueError):
    """A journal cannot be read. The message names the file and the reason."""


class WarmStartError(UserError, ValueError):
    """Weights to start from are missing, damaged, or do not fit the model."""
