"""A request to a signature, and two forms of it: a warm-up record, and a line of a file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from vgg_keras.saved_models.tensors import Tensors, image_inputs

PREDICT, CLASSIFY = "predict", "classify"  # methods of TensorFlow Serving
EXAMPLE_FEATURE = "image/encoded"  # as in TF-Slim's records of ILSVRC


@dataclass(frozen=True, eq=False)
class Request:
    """What is given to a signature: its inputs by name, as one batch."""

    signature: str
    inputs: Tensors
    method: str = PREDICT


def examples(pictures: Sequence[bytes]) -> Tensors:
    """Encoded pictures as the inputs of a signature that takes `tf.train.Example`s, serialised."""
    return image_inputs([_example(picture) for picture in pictures], "inputs")


def _example(picture: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))
    features = tf.train.Features(feature={EXAMPLE_FEATURE: feature})
    return tf.train.Example(features=features).SerializeToString()


def write_warmup(path: Path, model_name: str, requests: Iterable[Request]) -> None:
    """Writes requests that TensorFlow Serving sends itself when it loads a model.

    The file belongs into `assets.extra/` and has a PredictionLog a record
    (https://www.tensorflow.org/tfx/serving/saved_model_warmup).
    """
    with tf.io.TFRecordWriter(str(path)) as records:
        for request in requests:
            records.write(prediction_log(model_name, request))


def prediction_log(model_name: str, request: Request) -> bytes:
    """A request as a serialised PredictionLog.

    Written field by field, so that exporting does not need `tensorflow-serving-api`. The numbers
    are those of prediction_log.proto, predict.proto, classification.proto, input.proto and
    model.proto in https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis.
    """
    spec = _field(1, model_name.encode()) + _field(3, request.signature.encode())
    if request.method == CLASSIFY:
        (batch,) = request.inputs.values()
        example_list = _field(1, b"".join(_field(1, example) for example in batch))
        return _field(2, _field(1, _field(1, spec) + _field(2, example_list)))
    inputs = b"".join(
        _field(2, _field(1, name.encode()) + _field(2, _tensor_bytes(array)))
        for name, array in request.inputs.items()
    )
    return _field(6, _field(1, _field(1, spec) + inputs))


def write_lines(path: Path, requests: Iterable[Request]) -> None:
    """Writes requests, a JSON object a line, for `read_lines`."""
    lines = [json.dumps([r.signature, pack(r.inputs), r.method]) + "\n" for r in requests]
    path.write_text("".join(lines))


def read_lines(path: Path) -> list[Request]:
    """Reads what `write_lines` wrote."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [Request(signature, unpack(inputs), method) for signature, inputs, method in lines]


def pack(tensors: Tensors) -> dict[str, str]:
    """Arrays of any kind as text."""
    return {k: base64.b64encode(_tensor_bytes(v)).decode() for k, v in tensors.items()}


def unpack(packed: Mapping[str, str]) -> dict[str, np.ndarray]:
    """What `pack` took."""
    protos = {
        name: tensor_pb2.TensorProto.FromString(base64.b64decode(text))
        for name, text in packed.items()
    }
    return {name: tf.make_ndarray(proto) for name, proto in protos.items()}


def _tensor_bytes(array: np.ndarray) -> bytes:
    return tf.make_tensor_proto(array).SerializeToString()


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field (https://protobuf.dev/programming-guides/encoding)."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
