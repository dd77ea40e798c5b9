"""Tensors as they lie in a file: looked at first, read one by one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.weights.preprocessing import Preprocessing

# Weights hardly compress. What claims to be far larger than its file is damaged, or a trap.
_EXPANSION = 16


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read.

    Attributes:
        shape: as the file declares it.
        dtype: the file's name for it; a kind of float where it is to be read.
        read: gives the values, of that shape.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class WeightsMetadata:
    """What a file says of its net beside the tensors; our own writers put it in.

    Attributes:
        preprocessing: what the net takes.
        net: its name.
    """

    preprocessing: Preprocessing | None = None
    net: str | None = None

    def to_json(self) -> str:
        """As an object of its fields."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WeightsMetadata:
        """Reads what `to_json` gave.

        Raises:
            ValueError: the text is something else.
        """
        try:
            fields = json.loads(text)
            return cls(Preprocessing(**fields["preprocessing"]), fields["net"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"what it says of its net cannot be read: {error!r}") from error


# Where the text lies in a file: an attribute, an entry, or a line of metadata.
METADATA = "about"


@dataclass(frozen=True)
class Stored:
    """What a file holds.

    Attributes:
        tensors: by the file's own names. Some readers hold the values here until they are taken
            out, so take out what has been read.
        about: what the file says beside them.
        is_unclear: whether nets that take different input are saved as such files.
    """

    tensors: dict[str, StoredTensor]
    metadata: WeightsMetadata = WeightsMetadata()
    is_unclear: bool = False


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes a library raise becomes a `WeightsError` that names it."""
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


def refuse_expansion(path: Path, declared_bytes: int) -> None:
    """Refuses what would be far larger in memory than it is on disk.

    Raises:
        WeightsError: it would be.
    """
    size = os.path.getsize(path)
    if declared_bytes > _EXPANSION * size + 2**20:
        raise WeightsError(
            f"{path} declares {declared_bytes:,} bytes of tensors and has {size:,}: it is damaged, "
            f"or was made to fill memory."
        )
