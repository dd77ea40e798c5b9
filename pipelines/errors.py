"""Errors that a caller can correct.

    UserError
    ├── ArgumentError (ValueError)         an argument has a value that is not allowed
    ├── SourceError (ValueError)           data are missing or not in a form that can be used
    ├── BadImageError                      an image cannot be read
    ├── WriteError (OSError)               a file cannot be written
    ├── OutOfMemoryError (MemoryError)     a batch does not fit into memory
    └── MissingPackageError (ImportError)  an optional package is not installed

Every package adds its own below `UserError`; `vgg_keras.errors` lists all of them. The command line
shows these as one line and lets any other exception through, because that is a bug.
"""

from __future__ import annotations


class UserError(Exception):
    """Base class of the errors of this project.

    ```python
    try:
        data = open_source("folder:photos")
    except UserError as error:
        print(error)
    ```
    """


class ArgumentError(UserError, ValueError):
    """An argument has a value that is not allowed.

    ```python
    try:
        steps_per_epoch(split, batch_size=0)
    except ArgumentError as error:
        print(error)
    ```

    Args:
        message: the rule, the allowed values, and `Received: ...`.
        argument: name of the argument, from which the command line finds the flag.
    """

    def __init__(self, message: str, argument: str | None = None):
        super().__init__(message)
        self.argument = argument


class SourceError(UserError, ValueError):
    """Data are missing or not in a form that can be used. The message says what to do.

    ```python
    try:
        open_source("folder:photos")
    except SourceError as error:
        print(error)  # There is no folder photos.
    ```
    """


class BadImageError(UserError):
    """An image cannot be read. The message names it.

    ```python
    try:
        compute_statistics(split)
    except BadImageError as error:
        print(error)
    ```
    """


class WriteError(UserError, OSError):
    """A file cannot be written. The message names it; what was saved before is intact.

    ```python
    try:
        colours.save("statistics.json")
    except WriteError as error:
        print(error)
    ```
    """


class OutOfMemoryError(UserError, MemoryError):
    """A batch does not fit into memory. The message says what would fit.

    ```python
    try:
        evaluate(net, data, batch_size=4096)
    except OutOfMemoryError as error:
        print(error)
    ```
    """


class MissingPackageError(UserError, ImportError):
    """An optional package is not installed. The message says how to install it.

    ```python
    try:
        export(net, "exports/onnx", format="onnx")
    except MissingPackageError as error:
        print(error)
    ```
    """
