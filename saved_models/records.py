"""Requests to a signature, as warm-up records and as lines of a file."""

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
    """A request to a signature.

        request = Request("serving_default", image_inputs([Path("photo.jpg").read_bytes()]))
        replies, load_seconds = replay("exports/vgg16/1", [request])

    Attributes:
        signature: name of the signature.
        inputs: one batch of inputs, by name.
        method: method of TensorFlow Serving that the signature is made for.
    """

    signature: str
    inputs: Tensors
    method: str = PREDICT


def examples(images: Sequence[bytes]) -> Tensors:
    """Returns image files as the inputs of a signature that takes `tf.train.Example`s.

    ```python
    inputs = examples([Path("photo.jpg").read_bytes()])
    list(inputs)  # ["inputs"]
    ```
    """
    return image_inputs([_example(image) for image in images], "inputs")


def _example(image: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    features = tf.train.Features(feature={EXAMPLE_FEATURE: feature})
    return tf.train.Example(features=features).SerializeToString()


def write_warmup(path: Path, model_name: str, requests: Iterable[Request]) -> None:
    """Writes requests that TensorFlow Serving sends to itself when it loads a model.

    The file belongs in `assets.extra/` and holds a PredictionLog in each record
    (https://www.tensorflow.org/tfx/serving/saved_model_warmup).
    """
    with tf.io.TFRecordWriter(str(path)) as records:
        for request in requests:
            records.write(prediction_log(model_name, request))


def prediction_log(model_name: str, request: Request) -> bytes:
    """Returns a request as a serialised PredictionLog."""
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    message = (log.classify_log if request.method == CLASSIFY else log.predict_log).request
    message.model_spec.name = model_name
    message.model_spec.signature_name = request.signature
    if request.method == CLASSIFY:
        (batch,) = request.inputs.values()
        for serialised in batch:
            message.input.example_list.examples.add().ParseFromString(serialised)
    else:
        for name, array in request.inputs.items():
            message.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return log.SerializeToString()


def write_lines(path: Path, requests: Iterable[Request]) -> None:
    """Writes requests for `read_lines`, one JSON object on each line."""
    lines = [json.dumps([r.signature, pack(r.inputs), r.method]) + "\n" for r in requests]
    path.write_text("".join(lines))


def read_lines(path: Path) -> list[Request]:
    """Reads requests that `write_lines` wrote."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [Request(signature, unpack(inputs), method) for signature, inputs, method in lines]


def pack(tensors: Tensors) -> dict[str, str]:
    """Returns arrays of any dtype as text, by name."""
    return {
        name: base64.b64encode(tf.make_tensor_proto(array).SerializeToString()).decode()
        for name, array in tensors.items()
    }


def unpack(packed: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns the arrays that `pack` was given."""
    arrays = {}
    for name, text in packed.items():
        proto = tensor_pb2.TensorProto.FromString(base64.b64decode(text))
        arrays[name] = tf.make_ndarray(proto)
    return arrays
