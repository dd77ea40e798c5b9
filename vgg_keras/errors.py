"""All errors of this project, in one tree.

    UserError                              the reader of the message can put it right
    ├── ArgumentError (ValueError)         an argument has a value that is not allowed
    ├── SourceError (ValueError)           data are missing or not in a form that can be used
    ├── BadImageError                      an image cannot be read
    ├── WriteError (OSError)               a file cannot be written
    ├── OutOfMemoryError (MemoryError)     a batch does not fit into memory
    ├── MissingPackageError (ImportError)  an optional package is not installed
    ├── RunError (ValueError)              a run or saved net cannot be used
    ├── WeightsError (ValueError)          a weights file cannot be used
    ├── PredictionsError (ValueError)      prediction files cannot be used, or not together
    ├── FeaturesError (ValueError)         feature files cannot be used, or not together
    └── SweepError (ValueError)            the folder of a sweep cannot be used

`vgg_keras.saved_models.errors` adds those of exports and servers, `vgg_keras.callbacks.errors`
those of checkpoints and warm starts.
"""

from __future__ import annotations

from vgg_keras.pipelines.errors import (
    ArgumentError,
    BadImageError,
    MissingPackageError,
    OutOfMemoryError,
    SourceError,
    UserError,
    WriteError,
)

__all__ = [
    "ArgumentError",
    "BadImageError",
    "FeaturesError",
    "MissingPackageError",
    "OutOfMemoryError",
    "PredictionsError",
    "RunError",
    "SourceError",
    "SweepError",
    "UserError",
    "WeightsError",
    "WriteError",
]


class RunError(UserError, ValueError):
    """The folder of a run or of a saved net cannot be used. The message says why.

    ```python
    try:
        TrainedNet.load("runs/unfinished")
    except RunError as error:
        print(error)
    ```
    """


class WeightsError(UserError, ValueError):
    """Weights cannot be used. The message names the file and what is wrong with it.

    ```python
    try:
        TrainedNet.load("vgg16.caffemodel")
    except WeightsError as error:
        print(error)
    ```
    """


class PredictionsError(UserError, ValueError):
    """Prediction files cannot be used, or not together. The message says why.

    ```python
    try:
        fuse([predictions, others])
    except PredictionsError as error:
        print(error)
    ```
    """


class FeaturesError(UserError, ValueError):
    """Feature files cannot be used, or not together. The message says why.

    ```python
    try:
        stacked([features, others])
    except FeaturesError as error:
        print(error)
    ```
    """


class SweepError(UserError, ValueError):
    """The folder of a sweep cannot be used. The message says why.

    ```python
    try:
        best_run("sweeps/x")
    except SweepError as error:
        print(error)
    ```
    """
