"""`.safetensors` files, and `.pth` files of PyTorch, which need PyTorch."""

from __future__ import annotations

import argparse
import contextlib
import functools
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from vgg_keras.errors import MissingPackageError, WeightsError
from vgg_keras.weights.identification import identify
from vgg_keras.weights.stored import (
    METADATA,
    Stored,
    StoredTensor,
    WeightsMetadata,
    by_name,
    refuse_expansion,
    refuse_repeated,
)

if TYPE_CHECKING:
    import torch

_LARGEST = 2**30  # bytes read into memory at once; net E has 575 million
_T = TypeVar("_T", bound="_Tensor")
_MOST_NESTED = 2  # keys that lead to a dictionary of tensors
_MOST_KEYS = 12  # in a message
_WRAPPER = re.compile(r"(?<![^.])(module|_orig_mod)\.")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class _Tensor(Protocol):
    """A tensor of PyTorch or an array of NumPy."""

    @property
    def shape(self) -> Sequence[int]: ...


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[Stored]:
    """Opens a `.safetensors` file of torchvision, timm or this package."""
    import ml_dtypes  # noqa: F401 (this adds bfloat16 to NumPy)
    from safetensors import safe_open

    # Read instead of mapped: mapped pages would count as memory in addition to the copies.
    with safe_open(path, framework="np", backend="pread") as file:
        stored = (file.metadata() or {}).get(METADATA)

        def tensors() -> Iterator[tuple[str, str, StoredTensor]]:
            for name in file.keys():  # noqa: SIM118 (the file is not iterable)
                tensor = file.get_slice(name)
                dtype, shape = tensor.get_dtype(), tuple(tensor.get_shape())
                read = functools.partial(file.get_tensor, name)
                yield _plain(name), name, StoredTensor(shape, _DTYPES.get(dtype, dtype), read)

        metadata = WeightsMetadata.from_json(stored) if stored else WeightsMetadata()
        yield Stored(by_name(tensors()), metadata)


@contextlib.contextmanager
def open_torch(path: Path) -> Iterator[Stored]:
    """Opens a file of `torch.save`: tensors by name, or a checkpoint with such a dictionary.

    Raises:
        WeightsError: no dictionary in the file names a net, or several do.
        MissingPackageError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            f"{path} needs PyTorch: pip install torch. A .safetensors file of the same weights "
            f"does not need it."
        ) from error
    size = 0  # unknown for the older format without zip, which torchvision's vgg16 and vgg19 have
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            refuse_repeated(archive.namelist())
            size = sum(member.file_size for member in archive.infolist())
        refuse_expansion(path, size)
    try:
        # A large file is mapped, so that other content, such as optimizer state, is not read.
        with torch.serialization.safe_globals(_inert_globals()):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=size > _LARGEST)
    except pickle.UnpicklingError as error:  # PyTorch's message advises to run the code
        raise WeightsError(
            f"{path} holds pickled objects other than tensors, which are not read because "
            f"unpickling can run any code. If you trust the file, load it in PyTorch and save its "
            f"state_dict()."
        ) from error
    tensors = tensors_of_net(path, state, torch.Tensor)
    del state
    # Removed from `tensors`, so that a tensor's memory is free after it was read.
    yield Stored(
        by_name((_plain(name), name, _of_torch(tensors.pop(name))) for name in list(tensors))
    )


def _inert_globals() -> list[Any]:
    """What training scripts save beside tensors and cannot run code: arguments, NumPy's numbers."""
    dtypes = [type(np.dtype(kind)) for kind in ("?", "i4", "i8", "f4", "f8")]
    modules = ("numpy.core", "numpy._core")  # of NumPy 1 and 2
    scalars = [(_scalar, f"{module}.multiarray.scalar") for module in modules]
    return [argparse.Namespace, np.dtype, *dtypes, *scalars]


def _scalar(dtype: np.dtype, data: bytes = b"") -> np.generic:
    """A number of NumPy. Its own function allocates what the dtype declares."""
    if dtype.kind not in "biuf" or len(data) != dtype.itemsize:
        raise pickle.UnpicklingError(f"no number of {dtype}")
    number: np.generic = np.frombuffer(data, dtype)[0]
    return number


def tensors_of_net(path: Path, checkpoint: Any, tensor_type: type[_T]) -> dict[str, _T]:
    """Returns the tensors of the only dictionary in a checkpoint that names a net of the paper.

    Args:
        path: the file, for messages.
        checkpoint: any object. The dictionary is the checkpoint or lies at most two keys deep.
        tensor_type: class of the tensors.

    Raises:
        WeightsError: no dictionary names a net, or several do.
    """
    found = dict(_dictionaries(checkpoint, tensor_type))
    matches = {
        where: identify({_plain(name): tuple(tensor.shape) for name, tensor in tensors.items()})
        for where, tensors in found.items()
    }
    nets = (
        [where for where, match in matches.items() if match and match.is_complete]
        or [where for where, match in matches.items() if match and match.conv_kernels]
        or [where for where in matches if not where]  # all that is there
    )
    if len(nets) == 1:
        return found[nets[0]]
    if nets:
        names = ", ".join(".".join(map(repr, where)) for where in nets)
        raise WeightsError(
            f"{path} must hold one net. Received: nets under {names}. Save one of them in a file "
            f"of its own with torch.save"
        )
    keys = [str(key) for key in checkpoint] if isinstance(checkpoint, Mapping) else []
    raise WeightsError(
        f"{path} must hold a dictionary of tensors with the names of a VGG net, by itself or as a "
        f"value in a dictionary. Received: {type(checkpoint).__name__}"
        + f" with the keys {', '.join(keys[:_MOST_KEYS])}{', ...' * (len(keys) > _MOST_KEYS)}"
        * bool(keys)
    )


def _dictionaries(
    checkpoint: Any, tensor_type: type[_T]
) -> Iterator[tuple[tuple[str, ...], dict[str, _T]]]:
    """The dictionaries of tensors in a checkpoint with the keys that lead to them, at most two."""
    seen: set[int] = set()  # a dictionary can contain itself, or another one many times
    level: list[tuple[tuple[str, ...], Any]] = [((), checkpoint)]
    for _ in range(1 + _MOST_NESTED):
        inner: list[tuple[tuple[str, ...], Any]] = []
        for where, value in level:
            if not isinstance(value, Mapping) or id(value) in seen:
                continue
            seen.add(id(value))
            tensors = {
                str(name): tensor
                for name, tensor in value.items()
                if isinstance(tensor, tensor_type)
            }
            if tensors:
                yield where, tensors
            inner += [((*where, str(key)), item) for key, item in value.items()]
        level = inner


def _of_torch(tensor: torch.Tensor) -> StoredTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    read = functools.partial(_as_numpy, tensor.detach())
    return StoredTensor(tuple(tensor.shape), dtype, read)


def _plain(name: str) -> str:
    """The name without what DataParallel and `torch.compile` add to the net or to a part of it."""
    return _WRAPPER.sub("", name)


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().numpy()


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata
) -> None:
    """Writes a `.safetensors` file with the tensors, and the metadata in its header."""
    from safetensors.numpy import save_file

    save_file(dict(tensors), path, {"format": "pt", METADATA: metadata.to_json()})
