"""Reads the arrays of a pickle. Nothing that the pickle names is imported or called.

The unpickler has only the opcodes and names with which NumPy pickles arrays. Where a pickle calls
a function, it keeps the name of the function and the arguments. They are checked and read as
arrays afterwards.
"""

from __future__ import annotations

import functools
import math
import os
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.weights.stored import StoredTensor

# Names with which versions of NumPy pickle arrays.
_DTYPE = "numpy.dtype"
_NAMES = (
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    _DTYPE,
)
# Opcodes of containers, texts, numbers below 2**2040, the memo, and calls.
_OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE),
    *(pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.DICT, pickle.LIST),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.MEMOIZE),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD),
)
_NOT_ARRAYS = "it holds pickled objects other than arrays of NumPy, which are never loaded"
_MOST_OPCODES, _MOST_ARRAYS = 20_000, 1_000  # net E has some 2,000 opcodes and 38 arrays
_LONGEST_LINE = 256  # bytes of the name of a function
_PARTS = ("weights", "biases")  # names of the two arrays of a layer in the order of a list


def arrays_of_pickle(file: IO[bytes]) -> Iterator[tuple[str, str, StoredTensor]]:
    """Reads a pickled array of one object: a dictionary of arrays, or of the arrays of each layer.

    Args:
        file: file at the start of the pickle.

    Yields:
        For each array its name, or `LAYER/PART`, where it is, and the array. The parts have the
        names of a dictionary, or `weights` and `biases` for a list or for the keys 0 and 1.

    Raises:
        WeightsError: the pickle holds anything but arrays, or is damaged.
    """
    match _Unpickler(file).load():
        case _Object(state=(_, (), _, _, [dict() as layers])):
            pass
        case _:
            raise WeightsError("it must be a dictionary of layers, pickled as an array")
    found = ((layer, *part) for layer, value in layers.items() for part in _parts_of(value))
    for count, (layer, ending, origin, value) in enumerate(found):
        if count == _MOST_ARRAYS:
            raise WeightsError(f"it has more than {_MOST_ARRAYS:,} arrays")
        name = _text(layer)
        yield name + ending, name + origin, _array(value, name + origin)


def _parts_of(layer: Any) -> Iterator[tuple[str, str, Any]]:
    """Ending of the name, where it is, and value, of each array of a layer."""
    if isinstance(layer, _Object):
        yield "", "", layer
        return
    if not isinstance(layer, list | tuple | dict):
        raise WeightsError("each layer must be an array, or a list or dictionary of arrays")
    items = layer.items() if isinstance(layer, dict) else enumerate(layer)
    for part, value in items:
        yield f"/{_PARTS[part] if part in (0, 1) else _text(part)}", f"[{part!r}]", value


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _array(value: Any, origin: str) -> StoredTensor:
    match value:
        case _Object(
            state=(
                int(),
                tuple() as shape,
                _Object(function=function, arguments=(code, *_), state=(int(), order, *_)),
                int() as is_fortran,
                bytes() as data,
            )
        ) if function == _DTYPE and all(isinstance(side, int) and side >= 0 for side in shape):
            dtype = _dtype(_text(order) + _text(code), origin)
        case _:
            raise WeightsError(f"{origin} must be an array of numbers")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WeightsError(f"{origin} declares shape {shape} and has {len(data):,} bytes")

    def read() -> np.ndarray:
        return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C").copy()

    return StoredTensor(shape, dtype.name, read)


def _dtype(code: str, origin: str) -> np.dtype:
    if not re.fullmatch(r"[<>|=][biufc]\d{1,2}", code):
        raise WeightsError(f"{origin} must be an array of numbers. Received: dtype {code[:20]!r}")
    return np.dtype(code)


@dataclass
class _Object:
    """A call that the pickle asks for, and the state that it gives to the result."""

    function: Any
    arguments: Any
    state: Any = None


class _Bounded:
    """A file that refuses to read more than it has, before any memory is used."""

    def __init__(self, file: IO[bytes]):
        self.file, self.size = file, os.fstat(file.fileno()).st_size
        self.readline = functools.partial(file.readline, _LONGEST_LINE)

    def read(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise WeightsError("it is cut off")
        return self.file.read(count)


class _Opcodes(dict[int, Callable[[Any], None]]):
    """Functions by opcode."""

    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        raise WeightsError(f"{_NOT_ARRAYS} (opcode {opcode:#04x})")


# The unpickler in C is not used, because it allocates what an opcode asks for.
class _Unpickler(pickle._Unpickler):
    """Unpickles to containers, texts, numbers and `_Object`s."""

    dispatch = _Opcodes()
    read: Callable[[int], bytes]
    stack: list[Any]

    def __init__(self, file: IO[bytes]):
        super().__init__(_Bounded(file), encoding="bytes")
        self.opcodes = 0

    def find_class(self, module: str, name: str) -> str:
        """The name of a function, if it is one of those that make arrays."""
        if (full := f"{module}.{name}") not in _NAMES:
            raise WeightsError(f"{_NOT_ARRAYS}: {full}")
        return full

    def load_frame(self) -> None:
        """Ignores a frame, which only tells how much to read ahead."""
        self.read(8)

    def load_reduce(self) -> None:
        """Keeps a call."""
        arguments = self.stack.pop()
        self.stack[-1] = _Object(self.stack[-1], arguments)

    def load_build(self) -> None:
        """Keeps the state of an object."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Object):
            raise WeightsError(_NOT_ARRAYS)
        self.stack[-1].state = state


def _counted(handle: Callable[[Any], None]) -> Callable[[Any], None]:
    def run(unpickler: _Unpickler) -> None:
        unpickler.opcodes += 1
        if unpickler.opcodes > _MOST_OPCODES:
            raise WeightsError(f"it has more than {_MOST_OPCODES:,} opcodes")
        handle(unpickler)

    return run


for _opcode in _OPCODES:
    _name = pickle._Unpickler.dispatch[_opcode[0]].__name__
    _Unpickler.dispatch[_opcode[0]] = _counted(getattr(_Unpickler, _name))
