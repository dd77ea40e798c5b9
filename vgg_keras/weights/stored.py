"""The tensors of a file, which are checked first and read one by one."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.weights.preprocessing import Preprocessing

# Weights hardly compress. A file that declares far more than its size is damaged or malicious.
_EXPANSION = 16

# Key of the metadata in a file: an attribute, an entry or a line of text. Files on disk have it.
METADATA = "about"

MOST_SIDES = 8  # of a tensor

# A reason for `Stored.ambiguity`.
UNKNOWN_INPUT = "nets with different preprocessing are saved in such files"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file that has not been read.

    Attributes:
        shape: shape that the file declares.
        dtype: name that the file gives to the dtype. Weights need a float.
        read: function that returns the values, in that shape.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class WeightsMetadata:
    """Metadata of a weights file. The writers of this package store it beside the tensors.

    Attributes:
        preprocessing: preprocessing of the images that the net takes.
        net: name of the net.
    """

    preprocessing: Preprocessing | None = None
    net: str | None = None

    def to_json(self) -> str:
        """Returns the fields as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WeightsMetadata:
        """Returns the metadata that `to_json` wrote.

        Raises:
            WeightsError: the text is not such metadata.
        """
        try:
            fields = json.loads(text)
            return cls(Preprocessing(**fields["preprocessing"]), fields["net"])
        except (TypeError, KeyError) as error:
            raise WeightsError(f"the metadata of its net cannot be read: {error!r}") from error


@dataclass(frozen=True)
class Stored:
    """Contents of a weights file.

    Attributes:
        tensors: tensors by the names in the file. Some readers keep the values in memory until the
            tensor is removed from this dictionary, so remove a tensor after reading it.
        metadata: metadata of the file; empty if there is none.
        ambiguity: why the file does not determine the preprocessing of its net; empty if the kind
            of file does.
        is_of_vgg: whether `vgg` built the net. It takes RGB minus a mean, which the file does not
            state.
        files: other files that have values of the tensors.
    """

    tensors: dict[str, StoredTensor]
    metadata: WeightsMetadata = WeightsMetadata()
    ambiguity: str = ""
    is_of_vgg: bool = False
    files: frozenset[Path] = frozenset()


def by_name(tensors: Iterable[tuple[str, str, StoredTensor]]) -> dict[str, StoredTensor]:
    """Returns the tensors of a file by name.

    Args:
        tensors: for each tensor its name, where the file stores it, and the tensor.

    Raises:
        WeightsError: two tensors have the same name, so that it is unknown which one is meant.
    """
    named: dict[str, StoredTensor] = {}
    origins: dict[str, str] = {}
    for name, origin, tensor in tensors:
        if name in named:
            raise WeightsError(
                f"{name} must be stored once. Received: {origins[name]} and {origin}"
            )
        named[name], origins[name] = tensor, origin
    return named


def refuse_repeated(names: Iterable[str]) -> None:
    """Raises WeightsError for a name that occurs twice, such as that of an entry of a zip file."""
    for name, count in Counter(names).items():
        if count > 1:
            raise WeightsError(f"{name} must be stored once. Received: {count} entries")


@contextlib.contextmanager
def errors_with_path(path: Path) -> Iterator[None]:
    """Turns any exception that a damaged file causes into a `WeightsError` with the file's path."""
    try:
        yield
    except ImportError:
        raise
    except WeightsError as error:
        if str(path) in str(error):
            raise
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise WeightsError(f"{path} cannot be read: {reason}") from error


def refuse_expansion(path: Path, declared_bytes: int, others: Iterable[Path] = ()) -> None:
    """Raises WeightsError if tensors would be far larger in memory than the file on disk.

    Args:
        path: the file, or the common beginning of the names of several files.
        declared_bytes: size of the tensors according to the file.
        others: other files that belong to it.
    """
    size = sum(os.path.getsize(file) for file in (path, *others) if file.is_file())
    if declared_bytes > _EXPANSION * size + 2**20:
        raise WeightsError(
            f"{path} has {size:,} bytes and declares {declared_bytes:,} bytes of tensors. It is "
            f"damaged, or was made to fill memory."
        )
