"""Checkpoints of TensorFlow: those of TF-Slim, such as `vgg_16.ckpt`, and of Keras models."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vgg_keras.errors import WeightsError
from vgg_keras.nets import FC_NAMES
from vgg_keras.weights.keras_layers import Layer, name_by_order
from vgg_keras.weights.preprocessing import Preprocessing
from vgg_keras.weights.stored import (
    MOST_SIDES,
    UNKNOWN_INPUT,
    Stored,
    StoredTensor,
    WeightsMetadata,
    by_name,
)

if TYPE_CHECKING:
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto
    from tensorflow.train import CheckpointReader

_INDEX = ".index"
_LARGEST_INDEX = 2**24  # bytes; that of net E has some thousand
_MOST_SHARDS = 1000
_MOST_ENTRIES = 10_000
_LONGEST = 1024  # bytes of a name or an entry
_FOOTER = 48  # bytes at the end of a table
# Last bytes of a table: a checkpoint of one file, or the index of a newer one.
TABLE_END = bytes.fromhex("57fb808b247547db")
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Variables of optimizers and of training in a checkpoint of TensorFlow 1.
_TRAINING = (
    r"(.*/)?(global_step|beta\d_power|Momentum|Adam(_1)?|RMSProp(_1)?|Adagrad|"
    r"ExponentialMovingAverage)"
)


@contextlib.contextmanager
def open_checkpoint(path: Path) -> Iterator[Stored]:
    """Opens a checkpoint, given by its prefix, its `.index` file, or as a file of the older format.

    A checkpoint `vgg_16.ckpt` is either one file of this name, or `vgg_16.ckpt.index` with
    `vgg_16.ckpt.data-00000-of-00001`.
    """
    prefix = path.with_suffix("") if path.suffix == _INDEX else path
    index = prefix.with_name(prefix.name + _INDEX)
    files = _check_index(prefix, index) if index.is_file() else frozenset()
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    tensors = _tensors(reader)
    if _GRAPH in tensors:
        layers = _layers_of_keras(reader.get_tensor(_GRAPH), tensors)
        stored = by_name(tensor for layer in layers for tensor in layer.named_tensors())
        # Keras 3 has no such names. It saves nets of this package and of others alike.
        is_tf_keras = any(name.startswith("layer_with_weights-") for name in tensors)
        is_known = is_tf_keras and set(FC_NAMES) <= {layer.name for layer in layers}
        ambiguity = "" if is_known else UNKNOWN_INPUT
        yield Stored(stored, ambiguity=ambiguity, files=files)
        return
    preprocessing = _mean(tensors)
    weights = ((name, name, t) for name, t in tensors.items() if not re.fullmatch(_TRAINING, name))
    yield Stored(by_name(weights), WeightsMetadata(preprocessing), files=files)


def _tensors(reader: CheckpointReader) -> dict[str, StoredTensor]:
    dtypes = reader.get_variable_to_dtype_map()
    shapes = reader.get_variable_to_shape_map()
    return {
        name: StoredTensor(tuple(shape), dtypes[name].name, partial(reader.get_tensor, name))
        for name, shape in sorted(shapes.items())
    }


def _mean(tensors: dict[str, StoredTensor]) -> Preprocessing | None:
    """Removes the mean that the checkpoints of TF-Slim have beside the weights, and returns it."""
    names = [name for name in tensors if name.rpartition("/")[2] == "mean_rgb"]
    means = [tensors.pop(name) for name in names]
    if len(means) != 1 or means[0].shape != (3,) or not means[0].dtype.startswith("float"):
        return None
    red, green, blue = means[0].read().tolist()
    return Preprocessing((red, green, blue))


def _layers_of_keras(graph: bytes, tensors: Mapping[str, StoredTensor]) -> list[Layer]:
    """The layers of a Keras model, by the names that the graph of its objects has for them.

    A checkpoint has the tensors by their paths in the model, as `layer_with_weights-0/kernel`.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(graph).nodes
    names = {value.checkpoint_key: value.full_name for node in nodes for value in node.attributes}
    layers: dict[str, Layer] = {}
    for key, tensor in tensors.items():
        path, _, part = key.removesuffix(_VALUE).rpartition("/")
        if not key.endswith(_VALUE) or not tensor.shape or "optimizer" in f"{path}/".lower():
            continue
        name = names.get(key, "").rpartition("/")[0].rpartition("/")[2] or None
        layer = layers.setdefault(path, Layer(path.replace("-", "_"), name))
        layer.tensors[part.lstrip("_")], layer.origins[part.lstrip("_")] = tensor, key
    found = list(layers.values())
    return found if all(layer.name for layer in found) else name_by_order(found)


def _check_index(prefix: Path, index: Path) -> frozenset[Path]:
    """Checks what the reader of TensorFlow takes on trust. A negative side ends its process.

    The format is that of `tensor_bundle.proto`.

    Returns:
        The files with the values.

    Raises:
        WeightsError: a tensor does not lie in these files.
    """
    from tensorflow.core.protobuf import tensor_bundle_pb2
    from tensorflow.dtypes import as_dtype

    entries = _table(index)
    header = entries.pop(b"", None)
    if header is None:
        raise WeightsError("its index has no header")
    shards = tensor_bundle_pb2.BundleHeaderProto.FromString(header).num_shards
    if not 1 <= shards <= _MOST_SHARDS:
        raise WeightsError(f"it must have 1 to {_MOST_SHARDS} files of values. Received: {shards}")
    files = [prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}") for i in range(shards)]
    sizes = [file.stat().st_size for file in files]
    for name, value in entries.items():
        entry = tensor_bundle_pb2.BundleEntryProto.FromString(value)
        shape = [side.size for side in entry.shape.dim]
        dtype = as_dtype(entry.dtype)
        is_shape = len(shape) <= MOST_SIDES and all(0 <= side < 2**40 for side in shape)
        is_there = 0 <= entry.shard_id < shards and (
            0 <= entry.offset <= entry.offset + entry.size <= sizes[entry.shard_id]
        )
        fits = is_shape and (not dtype.size or entry.size == math.prod(shape) * dtype.size)
        if not is_there or not fits or entry.slices:
            raise WeightsError(
                f"{name.decode(errors='replace')} declares shape {shape[:MOST_SIDES]} of "
                f"{dtype.name}, and is not stored as one tensor of that size"
            )
        if name == _GRAPH.encode():  # read at once, and its length is in the file of values
            _check_text(files[entry.shard_id], entry, shape, dtype.name)
    return frozenset(files)


def _check_text(file: Path, entry: BundleEntryProto, shape: list[int], dtype: str) -> None:
    """Raises WeightsError if an entry is not one text that lies in its bytes."""
    with open(file, "rb") as values:
        values.seek(entry.offset)
        (length,), _ = _varints(values.read(min(entry.size, 10)), 0, 1)
    if shape or dtype != "string" or length > entry.size:
        raise WeightsError(f"{_GRAPH} must be one text of at most {entry.size:,} bytes")


def _table(path: Path) -> dict[bytes, bytes]:
    """The entries of a table file of LevelDB without compression, as TensorFlow writes it.

    https://github.com/google/leveldb/blob/main/doc/table_format.md: blocks of entries, then the
    index of the blocks, and a footer with the position of that index.
    """
    if path.stat().st_size > _LARGEST_INDEX:
        raise WeightsError("its index is larger than that of any net")
    data = path.read_bytes()
    if len(data) < _FOOTER or not data.endswith(TABLE_END):
        raise WeightsError("its index is cut off or damaged")
    (_, _, offset, size), _ = _varints(data, len(data) - _FOOTER, 4)  # of two blocks
    entries: dict[bytes, bytes] = {}
    count = 0  # also of repeated entries, as blocks can be read many times
    for _, handle in _block(data, offset, size):
        (offset, size), _ = _varints(handle, 0, 2)
        for key, value in _block(data, offset, size):
            count += 1
            if count > _MOST_ENTRIES:
                raise WeightsError(f"its index has more than {_MOST_ENTRIES:,} entries")
            entries[key] = value
    return entries


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block. A key is stored without what it shares with the last one."""
    end = offset + size
    if end + 1 > len(data) or size < 4 or data[end] != 0:
        raise WeightsError("its index is damaged or compressed")
    restarts = int.from_bytes(data[end - 4 : end], "little")
    end, key = end - 4 * (restarts + 1), b""
    while offset < end:
        (shared, rest, length), offset = _varints(data, offset, 3)
        is_long = shared + rest > _LONGEST or length > _LONGEST
        if is_long or shared > len(key) or offset + rest + length > end:
            raise WeightsError("its index is damaged")
        key = key[:shared] + data[offset : offset + rest]
        offset += rest + length
        yield key, data[offset - length : offset]


def _varints(data: bytes, offset: int, count: int) -> tuple[list[int], int]:
    """Numbers of 7 bits a byte, the lowest first, and the offset behind them."""
    numbers = []
    for _ in range(count):
        number = shift = 0
        while True:
            byte = data[offset]
            number |= (byte & 0x7F) << shift
            offset, shift = offset + 1, shift + 7
            if byte < 0x80 or shift > 63:
                break
        numbers.append(number)
    return numbers, offset
