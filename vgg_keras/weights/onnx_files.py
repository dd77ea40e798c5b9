"""`.onnx` files, such as those of the ONNX model zoo and of `torch.onnx`. The model is not run.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from vgg_keras.errors import MissingPackageError, WeightsError
from vgg_keras.weights.protobuf import Field, fields
from vgg_keras.weights.stored import MOST_SIDES, Stored, StoredTensor, by_name

_GRAPH = 7  # in ModelProto
_NODE, _INITIALIZER, _INPUT = 1, 5, 11  # in GraphProto
# In TensorProto. Numbers of these three fields are stored as one run of little-endian bytes.
_READ = {4: "float32", 9: "", 10: "float64"}  # float_data, raw_data of any dtype, double_data
_DATA = (*_READ, 5, 6, 7, 11)
_MOST_FIELDS = 10_000  # nodes and initializers; net E has 83
_LONGEST = 2**16  # bytes of a node, or of an initializer without its data
_LAYERS = ("Conv", "Gemm", "MatMul")
_OTHERS = ("int32", "int64", "bool", "object")  # dtypes of shapes, axes and texts


class _Span(NamedTuple):
    """Where the data of a tensor are."""

    path: Path
    start: int
    length: int


class _Layer(NamedTuple):
    """A node with weights.

    Attributes:
        image: name of its input.
        weights: name of its weights.
        is_transposed: whether the weights are `(outputs, inputs)`, as in PyTorch.
    """

    image: str
    weights: str
    is_transposed: bool


@contextlib.contextmanager
def open_onnx(path: Path) -> Iterator[Stored]:
    """Opens an `.onnx` file. The names of the tensors are those of its initializers.

    The data can be in other files of the same folder. FC layers have the layout of PyTorch.

    Raises:
        MissingPackageError: the package `onnx` is not installed.
    """
    try:
        from onnx import ValueInfoProto
    except ImportError as error:
        raise MissingPackageError(f"{path} needs the package onnx: pip install onnx.") from error
    with open(path, "rb") as file:
        layers: list[_Layer] = []
        tensors: list[tuple[str, Path, StoredTensor]] = []
        inputs: set[str] = set()
        for field in _fields_of_graph(file):
            if field.number == _NODE and field.length <= _LONGEST:  # a layer is not longer
                layers += _layers(_bytes(file, (field.payload, field.end)))
            elif field.number == _INITIALIZER:
                tensors += _tensors(path, file, field)
            elif field.number == _INPUT:
                message = _bytes(file, (field.payload, field.end))
                inputs.add(ValueInfoProto.FromString(message).name)
        to_transpose = {layer.weights for layer in layers if not layer.is_transposed}
        stored = by_name(
            (name, str(origin), _transposed(tensor) if name in to_transpose else tensor)
            for name, origin, tensor in tensors
        )
        takes_image = bool(layers) and layers[0].image in inputs
        ambiguity = "" if takes_image else "nodes in front of its first layer change the image"
        files = frozenset(origin for _, origin, _ in tensors) - {path}
        yield Stored(stored, ambiguity=ambiguity, files=files)


def _fields_of_graph(file: IO[bytes]) -> Iterator[Field]:
    size = os.fstat(file.fileno()).st_size
    graphs = [field for field in fields(file, 0, size, 1000) if field.number == _GRAPH]
    if len(graphs) != 1:
        raise WeightsError(f"it must be an ONNX model, with one graph. Received: {len(graphs)}")
    yield from fields(file, graphs[0].payload, graphs[0].end, _MOST_FIELDS)


def _bytes(file: IO[bytes], *spans: tuple[int, int]) -> bytes:
    if (size := sum(end - start for start, end in spans)) > _LONGEST:
        raise WeightsError(f"it has a message of {size:,} bytes besides its tensors")
    found = b""
    for start, end in spans:
        file.seek(start)
        found += file.read(end - start)
    return found


def _layers(message: bytes) -> Iterator[_Layer]:
    """The node as a layer, if it has weights."""
    from onnx import NodeProto

    node = NodeProto.FromString(message)
    if node.op_type in _LAYERS and len(node.input) > 1:
        values = {attribute.name: attribute.i for attribute in node.attribute}
        is_transposed = node.op_type == "Conv" or bool(values.get("transB"))
        yield _Layer(node.input[0], node.input[1], is_transposed)


def _transposed(tensor: StoredTensor) -> StoredTensor:
    return StoredTensor(tensor.shape[::-1], tensor.dtype, lambda: tensor.read().T)


def _tensors(path: Path, file: IO[bytes], field: Field) -> Iterator[tuple[str, Path, StoredTensor]]:
    """Name, file and contents of an initializer that can be weights. Its data are not read."""
    from onnx import TensorProto
    from onnx.helper import tensor_dtype_to_np_dtype

    parts = list(fields(file, field.payload, field.end, 1000))
    header = _bytes(file, *((p.start, p.end) for p in parts if p.number not in _DATA))
    tensor = TensorProto.FromString(header)
    name, shape, dtype = tensor.name, tuple(tensor.dims), tensor_dtype_to_np_dtype(tensor.data_type)
    if dtype.name in _OTHERS:
        return
    data = [part for part in parts if part.number in _DATA and part.length]
    if tensor.data_location == TensorProto.EXTERNAL:
        span = _external(path, {entry.key: entry.value for entry in tensor.external_data}, name)
    elif len(data) == 1 and _READ.get(data[0].number) in ("", dtype.name):
        span = _Span(path, data[0].payload, data[0].length)
    else:
        raise WeightsError(f"the data of {name} must be one run of bytes")
    if len(shape) > MOST_SIDES or math.prod(shape) * dtype.itemsize != span.length:
        raise WeightsError(
            f"{name} declares shape {shape[:MOST_SIDES]} and has {span.length:,} bytes"
        )

    def read() -> np.ndarray:
        return np.fromfile(span.path, dtype, math.prod(shape), offset=span.start).reshape(shape)

    yield name, span.path, StoredTensor(shape, dtype.name, read)


def _external(path: Path, entries: Mapping[str, str], name: str) -> _Span:
    """Where the data of a tensor are in another file, which must be in the folder of the model."""
    location = entries.get("location", "")
    target = path.parent / location
    if path.parent.resolve() not in target.resolve().parents:
        raise WeightsError(
            f"the data of {name} must be in the folder of the model. Received: {location!r}"
        )
    if not target.is_file():
        raise WeightsError(f"the data of {name} must be in {target}, which does not exist")
    size, start = target.stat().st_size, int(entries.get("offset", 0))
    length = int(entries.get("length", size - start))
    if min(start, length) < 0 or start + length > size:
        raise WeightsError(
            f"{target} is cut off or damaged: it has {size:,} bytes, and the data of {name} are "
            f"bytes {start} to {start + length}"
        )
    return _Span(target, start, length)
