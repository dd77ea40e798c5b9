"""Files of Keras: `.weights.h5`, the older `.h5` of Keras Applications, and `.keras`."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.nets import FC_NAMES, NETS
from vgg_keras.weights.naming import PARTS
from vgg_keras.weights.preprocessing import PREPROCESSINGS
from vgg_keras.weights.stored import (
    METADATA,
    Stored,
    StoredTensor,
    WeightsMetadata,
    by_name,
    refuse_expansion,
    refuse_repeated,
)

_APPLICATIONS = ("vgg16", "vgg19")  # names of the models of Keras Applications


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Stored]:
    """Opens a `.weights.h5` or `.h5` file of weights or of a whole model.

    The names of the tensors are `LAYER/kernel` and `LAYER/bias`.
    """
    with h5py.File(path) as file:
        yield _stored(file)


@contextlib.contextmanager
def open_keras_archive(path: Path) -> Iterator[Stored]:
    """Opens the weights in a `.keras` file. Its configuration is not read, as it can hold code."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as unpacked:
        refuse_repeated(archive.namelist())
        member = archive.getinfo("model.weights.h5")
        refuse_expansion(path, member.file_size)
        with archive.open(member) as source:
            shutil.copyfileobj(source, unpacked, 2**20)
        with h5py.File(unpacked) as file:
            yield _stored(file)


def _stored(file: h5py.File) -> Stored:
    if "layers" in file:
        return _of_keras_3(file)
    return _of_applications(file)


def _of_keras_3(file: h5py.File) -> Stored:
    layers = _inside(file, "layers")
    groups = {
        kind: _inside(layers, f"{kind}/vars") for kind in layers if "vars" in _inside(layers, kind)
    }
    tensors = by_name(_tensors_of_keras_3(file, groups))
    # The kind of the FC layers or the name of the model distinguishes a net of this package from
    # one of Keras Applications. Feature extractors have neither.
    name = str(file["vars"].attrs.get("name")) if "vars" in file else None
    kinds = {kind.rstrip("_0123456789") for kind in groups}
    stored = _stored_metadata(file)
    metadata = stored or _inferred_metadata(name, "sliding_dense" in kinds)
    is_known = metadata != WeightsMetadata() or "dense" in kinds or name in _APPLICATIONS
    return Stored(tensors, metadata, is_ambiguous=stored is None and not is_known)


def _tensors_of_keras_3(
    file: h5py.File, groups: Mapping[str, h5py.Group]
) -> Iterator[tuple[str, str, StoredTensor]]:
    """Name, path and contents of each tensor."""
    for kind, variables in groups.items():
        if len(variables) and "name" not in variables.attrs:
            raise WeightsError(
                f"{file.filename} does not name its layers, because Keras before 3.6 wrote it. "
                f"Load it with that version and save it with a newer one."
            )
        for i in variables:
            if not kind.startswith("dropout"):  # its only variable is a seed
                name = _name(str(variables.attrs["name"]), int(i))
                yield name, f"{variables.name}/{i}", _tensor(variables, i)


def _of_applications(file: h5py.File) -> Stored:
    group = _inside(file, "model_weights") if "model_weights" in file else file
    tensors = by_name(_tensors_of_applications(group))
    config = _text(file.attrs.get("model_config", "{}"))  # read as text; the model is not built
    name = json.loads(config).get("config", {}).get("name")
    return Stored(
        tensors, _stored_metadata(group) or _inferred_metadata(name, '"SlidingDense"' in config)
    )


def _tensors_of_applications(group: h5py.Group) -> Iterator[tuple[str, str, StoredTensor]]:
    """Name, path and contents of each tensor."""
    for layer in map(_text, group.attrs["layer_names"]):
        weights = _inside(group, layer)
        for i, name in enumerate(map(_text, weights.attrs["weight_names"])):
            yield _name(layer, i), f"{weights.name}/{name}", _tensor(weights, name)


def _inferred_metadata(name: str | None, has_sliding_dense: bool) -> WeightsMetadata:
    """Metadata inferred from the name of the model and the kind of its FC layers."""
    if name in NETS or has_sliding_dense:
        return WeightsMetadata(PREPROCESSINGS["rgb"], name if name in NETS else None)
    return WeightsMetadata()


def _name(layer: str, index: int) -> str:
    return f"{layer}/{PARTS[index] if index < len(PARTS) else index}"


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _inside(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """A group or dataset of this file. Links are refused, as they can lead to other files."""
    for part in filter(None, name.split("/")):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise WeightsError(f"{group.file.filename}: {name} is not stored in the file itself.")
        group = group[part]
    return group


def _tensor(group: h5py.Group, name: str) -> StoredTensor:
    dataset = _inside(group, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise WeightsError(f"{group.file.filename}: {name} is not a tensor in the file itself.")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if math.prod(dataset.chunks or ()) * dataset.dtype.itemsize > size + 2**20:
        raise WeightsError(f"{group.file.filename}: {name} has chunks larger than itself.")
    return StoredTensor(dataset.shape, dataset.dtype.name, lambda: dataset[()])


def _stored_metadata(group: h5py.Group) -> WeightsMetadata | None:
    stored = group.attrs.get(METADATA)
    return None if stored is None else WeightsMetadata.from_json(_text(stored))


def write_keras_weights(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata
) -> None:
    """Writes a `.weights.h5` file in the format of Keras 3, for `vgg(...).load_weights`."""
    kinds: Counter[str] = Counter()
    with h5py.File(path, "w") as file:
        file.create_group("vars").attrs["name"] = metadata.net or ""
        for layer, arrays in _by_layer(tensors).items():
            kind = "sliding_dense" if layer in FC_NAMES else "conv2d"
            group = file.create_group(f"layers/{_numbered(kind, kinds)}/vars")
            group.attrs["name"] = layer
            for i, array in enumerate(arrays):
                group[str(i)] = array
        file.attrs[METADATA] = metadata.to_json()


def _numbered(kind: str, seen: Counter[str]) -> str:
    seen[kind] += 1
    return kind if seen[kind] == 1 else f"{kind}_{seen[kind] - 1}"


def write_applications_h5(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata
) -> None:
    """Writes a `.h5` file for `keras.applications.VGG16(weights=...)`."""
    layers = _by_layer(tensors)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"3.0.0"
        file.attrs[METADATA] = metadata.to_json()
        for layer, arrays in layers.items():
            group = file.create_group(layer)
            names = [f"{layer}/{part}:0" for part in PARTS]
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            for name, array in zip(names, arrays, strict=True):
                group[name] = array


def _by_layer(tensors: Mapping[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Arrays named `LAYER/kernel` and `LAYER/bias` as a list by layer, in order."""
    layers: dict[str, list[np.ndarray]] = {}
    for name, array in tensors.items():
        layers.setdefault(name.split("/")[0], []).append(array)
    return layers
