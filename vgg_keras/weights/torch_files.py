"""`.safetensors`, and PyTorch's own `.pth`, which needs PyTorch."""

from __future__ import annotations

import contextlib
import functools
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.weights.stored import (
    METADATA,
    Stored,
    StoredTensor,
    WeightsMetadata,
    refuse_expansion,
)

_LARGEST = 2**30  # bytes; net E has 575 million
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[Stored]:
    """A `.safetensors` file, torchvision's or timm's."""
    import ml_dtypes  # noqa: F401 (with it NumPy knows bfloat16)
    from safetensors import safe_open

    # Not mapped: pages of a mapping would count as memory beside what they are copied to.
    with safe_open(path, framework="np", backend="pread") as file:
        stored = (file.metadata() or {}).get(METADATA)
        tensors = {}
        for name in file.keys():  # noqa: SIM118 (it cannot be iterated over)
            part = file.get_slice(name)
            dtype = part.get_dtype()
            read = functools.partial(file.get_tensor, name)
            kind = _DTYPES.get(dtype, dtype)
            tensors[_plain(name)] = StoredTensor(tuple(part.get_shape()), kind, read)
        yield Stored(tensors, WeightsMetadata.from_json(stored) if stored else WeightsMetadata())


@contextlib.contextmanager
def open_torch(path: Path) -> Iterator[Stored]:
    """A `.pth` file of tensors, or a training checkpoint that has them as `state_dict`."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} can only be read with PyTorch: pip install torch. A .safetensors file of the "
            f"same weights can be read without."
        ) from error
    size = 0  # of torchvision's vgg16 and vgg19, which are older than PyTorch's zip files
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        refuse_expansion(path, size)
    try:
        # Of a file with more than weights, the state of an optimizer say, only these are read.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=size > _LARGEST)
    except pickle.UnpicklingError as error:  # PyTorch's own words advise to run the code
        raise WeightsError(
            f"{path} holds pickled objects other than tensors, which are not read: unpickling can "
            f"run any code. Where you trust the file, load it in PyTorch and save its state_dict()."
        ) from error
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else {}
    tensors = {}
    for name in [name for name, value in state.items() if isinstance(value, torch.Tensor)]:
        tensor = state.pop(name).detach()
        dtype = str(tensor.dtype).removeprefix("torch.")
        read = functools.partial(_as_numpy, tensor)
        tensors[_plain(name)] = StoredTensor(tuple(tensor.shape), dtype, read)
    yield Stored(tensors)


def _plain(name: str) -> str:
    """Less what DataParallel, around the net or its features, puts into names."""
    return name.replace("module.", "")


def _as_numpy(tensor) -> np.ndarray:
    return tensor.float().numpy()


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata
) -> None:
    """Tensors by name, and what is said of them in the file's metadata."""
    from safetensors.numpy import save_file

    save_file(dict(tensors), path, {"format": "pt", METADATA: metadata.to_json()})
