"""The C++ loader that TensorFlow Serving uses, called from Python, for benchmarks and tests.

`TF_LoadSessionFromSavedModel` of the C API calls the same `LoadSavedModel` as TensorFlow Serving.
It is in `libtensorflow_cc` of TensorFlow's wheel. Python's loader takes no part.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from vgg_keras.saved_models.tensors import Tensors

_STRING_BYTES = 24  # size of a TF_TString, tensorflow/core/platform/ctstring_internal.h


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    )


class LoaderError(ValueError):
    """An export cannot be loaded or a request failed. The message is TensorFlow's."""


class CppModel:
    """An export in the C++ loader.

    Args:
        path: version folder.

    Raises:
        ImportError: this TensorFlow has no `libtensorflow_cc`.
        LoaderError: the export cannot be loaded.
    """

    def __init__(self, path: str | os.PathLike):
        self._tf = _library()
        self._graph = self._tf.TF_NewGraph()
        options = self._tf.TF_NewSessionOptions()
        meta_graph = self._tf.TF_NewBuffer()
        tags = (ctypes.c_char_p * 1)(b"serve")
        with self._status() as status:
            self._session = self._tf.TF_LoadSessionFromSavedModel(
                options, None, os.fsencode(path), tags, 1, self._graph, meta_graph, status
            )
        serialised = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
        self._tf.TF_DeleteBuffer(meta_graph)
        self._tf.TF_DeleteSessionOptions(options)
        self.signatures = dict(tf.compat.v1.MetaGraphDef.FromString(serialised).signature_def)

    def run(self, signature: str, inputs: Tensors) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: name of the signature.
            inputs: inputs by name. They are converted to the dtypes of the signature.

        Returns:
            Outputs by name.

        Raises:
            LoaderError: there is no such signature or input, or the graph raises an error.
        """
        if signature not in self.signatures:
            raise LoaderError(
                f"There is no signature {signature!r}. Signatures: {', '.join(self.signatures)}."
            )
        definition = self.signatures[signature]
        if set(inputs) != set(definition.inputs):
            raise LoaderError(
                f"Signature {signature!r} takes {', '.join(definition.inputs)}. "
                f"Received: {', '.join(inputs)}"
            )
        dtypes = {k: tf.as_dtype(v.dtype).as_numpy_dtype for k, v in definition.inputs.items()}
        given = [_InputTensor(self._tf, np.asarray(v, dtypes[k])) for k, v in inputs.items()]
        fed = self._outputs(definition.inputs[name].name for name in inputs)
        wanted = self._outputs(tensor.name for tensor in definition.outputs.values())
        found = (ctypes.c_void_p * len(wanted))()
        handles = (ctypes.c_void_p * len(given))(*(tensor.handle for tensor in given))
        try:
            with self._status() as status:
                self._tf.TF_SessionRun(
                    self._session,
                    None,
                    fed,
                    handles,
                    len(given),
                    wanted,
                    found,
                    len(wanted),
                    None,
                    0,
                    None,
                    status,
                )
            return {
                name: _to_array(self._tf, handle)
                for name, handle in zip(definition.outputs, found, strict=True)
            }
        finally:
            for tensor in given:
                tensor.free()

    def close(self) -> None:
        """Frees the session with its variables, and the graph."""
        with self._status() as status:
            self._tf.TF_DeleteSession(self._session, status)
        self._tf.TF_DeleteGraph(self._graph)

    def _outputs(self, tensor_names: Iterable[str]) -> ctypes.Array:
        """The tensors of the graph with these names."""
        names = [name.rsplit(":", 1) for name in tensor_names]
        return (_Output * len(names))(
            *(
                _Output(self._tf.TF_GraphOperationByName(self._graph, op.encode()), int(index))
                for op, index in names
            )
        )

    @contextmanager
    def _status(self) -> Iterator[int]:
        """Yields a status for one call and raises LoaderError if the call failed."""
        status = self._tf.TF_NewStatus()
        try:
            yield status
            if self._tf.TF_GetCode(status):
                raise LoaderError(self._tf.TF_Message(status).decode("utf-8", "replace"))
        finally:
            self._tf.TF_DeleteStatus(status)


class _InputTensor:
    """A NumPy array as a tensor of the C API."""

    def __init__(self, library: ctypes.CDLL, array: np.ndarray):
        self._tf = library
        self._strings = array.size if array.dtype == object else 0
        array = np.ascontiguousarray(array)
        size = self._strings * _STRING_BYTES or (0 if array.dtype == object else array.nbytes)
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        dtype = tf.string if array.dtype == object else tf.as_dtype(array.dtype)
        self.handle = library.TF_AllocateTensor(dtype.as_datatype_enum, shape, array.ndim, size)
        self._data = library.TF_TensorData(self.handle)
        if array.dtype != object:
            ctypes.memmove(self._data, array.ctypes.data, array.nbytes)
            return
        for i, text in enumerate(array.flat):
            address = self._data + i * _STRING_BYTES
            library.TF_StringInit(address)
            library.TF_StringCopy(address, text, len(text))

    def free(self) -> None:
        """Frees the tensor and its strings."""
        for i in range(self._strings):
            self._tf.TF_StringDealloc(self._data + i * _STRING_BYTES)
        self._tf.TF_DeleteTensor(self.handle)


def _to_array(library: ctypes.CDLL, handle: int) -> np.ndarray:
    """Copies a tensor of the C API into an array and frees the tensor."""
    shape = [library.TF_Dim(handle, i) for i in range(library.TF_NumDims(handle))]
    data, dtype = library.TF_TensorData(handle), tf.as_dtype(library.TF_TensorType(handle))
    if dtype == tf.string:
        array = np.empty(shape, object)
        for i in range(array.size):
            address = data + i * _STRING_BYTES
            array.flat[i] = ctypes.string_at(
                library.TF_StringGetDataPointer(address), library.TF_StringGetSize(address)
            )
    else:
        content = ctypes.string_at(data, library.TF_TensorByteSize(handle))
        array = np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
    library.TF_DeleteTensor(handle)
    return array


@functools.cache
def _library() -> ctypes.CDLL:
    """`libtensorflow_cc`, with the types of the functions that are used here."""
    found = sorted(Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc.*"))
    if not found:
        raise ImportError(f"TensorFlow {tf.__version__} has no libtensorflow_cc.")
    library = ctypes.CDLL(str(found[0]))
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    integers = ctypes.POINTER(ctypes.c_int64)
    buffer, outputs = ctypes.POINTER(_Buffer), ctypes.POINTER(_Output)
    pointers, text = ctypes.POINTER(pointer), ctypes.c_char_p
    prototypes = {  # as in tensorflow/c/c_api.h, tf_status.h, tf_tensor.h and tf_tstring.h
        "TF_NewStatus": (pointer,),
        "TF_DeleteStatus": (None, pointer),
        "TF_GetCode": (integer, pointer),
        "TF_Message": (text, pointer),
        "TF_NewGraph": (pointer,),
        "TF_DeleteGraph": (None, pointer),
        "TF_NewSessionOptions": (pointer,),
        "TF_DeleteSessionOptions": (None, pointer),
        "TF_NewBuffer": (buffer,),
        "TF_DeleteBuffer": (None, buffer),
        "TF_LoadSessionFromSavedModel": (
            pointer,
            pointer,
            pointer,
            text,
            ctypes.POINTER(text),
            integer,
            pointer,
            buffer,
            pointer,
        ),
        "TF_DeleteSession": (None, pointer, pointer),
        "TF_GraphOperationByName": (pointer, pointer, text),
        "TF_SessionRun": (
            None,
            pointer,
            pointer,
            outputs,
            pointers,
            integer,
            outputs,
            pointers,
            integer,
            pointers,
            integer,
            pointer,
            pointer,
        ),
        "TF_AllocateTensor": (pointer, integer, integers, integer, size),
        "TF_DeleteTensor": (None, pointer),
        "TF_TensorData": (pointer, pointer),
        "TF_TensorByteSize": (size, pointer),
        "TF_TensorType": (integer, pointer),
        "TF_NumDims": (integer, pointer),
        "TF_Dim": (ctypes.c_int64, pointer, integer),
        "TF_StringInit": (None, pointer),
        "TF_StringCopy": (None, pointer, text, size),
        "TF_StringDealloc": (None, pointer),
        "TF_StringGetDataPointer": (pointer, pointer),
        "TF_StringGetSize": (size, pointer),
    }
    for name, (result, *arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
