"""`.safetensors` files, and `.pth` files of PyTorch, which need PyTorch."""

from __future__ import annotations

import contextlib
import functools
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vgg_keras.errors import MissingPackageError, WeightsError
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
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


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
    """Opens a `.pth` file of tensors, or a training checkpoint with them as `state_dict`.

    Raises:
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
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=size > _LARGEST)
    except pickle.UnpicklingError as error:  # PyTorch's message advises to run the code
        raise WeightsError(
            f"{path} holds pickled objects other than tensors, which are not read because "
            f"unpickling can run any code. If you trust the file, load it in PyTorch and save its "
            f"state_dict()."
        ) from error
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else {}
    names = [name for name, value in state.items() if isinstance(value, torch.Tensor)]
    # Removed from `state`, so that a tensor's memory is free after it was read.
    yield Stored(by_name((_plain(name), name, _of_torch(state.pop(name))) for name in names))


def _of_torch(tensor: torch.Tensor) -> StoredTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    read = functools.partial(_as_numpy, tensor.detach())
    return StoredTensor(tuple(tensor.shape), dtype, read)


def _plain(name: str) -> str:
    """The name without the prefix that DataParallel adds to the net or to its features."""
    return name.replace("module.", "")


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().numpy()


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata
) -> None:
    """Writes a `.safetensors` file with the tensors, and the metadata in its header."""
    from safetensors.numpy import save_file

    save_file(dict(tensors), path, {"format": "pt", METADATA: metadata.to_json()})
