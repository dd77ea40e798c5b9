"""Client of TensorFlow Serving's gRPC interface, `PredictionService`.

A server is not trusted. Its answer has a limited number of bytes, is not decompressed, and no
tensor has more values than its message has bytes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vgg_keras.saved_models.errors import RequestError, excerpt
from vgg_keras.saved_models.tensors import MAX_BYTES, TIMEOUT, Tensors


class GrpcServer:
    """A model on a server with TensorFlow Serving's gRPC interface, `PredictionService`.

    Use `connect` to make one.

        server = GrpcServer("localhost:8500", "vgg16")
        server.predict(image_inputs([Path("photo.jpg").read_bytes()]))

    Args:
        address: `HOST:PORT`.
        model: name of the model on the server.
        version: version of the model. By default the server chooses one.
        timeout: number of seconds for a request and its answer.
        max_bytes: largest number of bytes of an answer.
    """

    def __init__(
        self,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float = TIMEOUT,
        max_bytes: int = MAX_BYTES,
    ):
        # These import TensorFlow, which REST does not need.
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        self.timeout = timeout
        self.address = address
        self._errors = grpc.RpcError
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = model
        if version is not None:
            self._request.model_spec.version.value = version
        options = [
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # only "identity"
        ]
        channel = grpc.insecure_channel(address, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(self, inputs: Tensors, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """See `Server.predict`."""
        import tensorflow as tf

        request = type(self._request)()
        request.CopyFrom(self._request)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        try:
            response = self._stub.Predict(request, timeout=self.timeout)
        except self._errors as error:
            raise RequestError(
                f"grpc://{self.address} answers {error.code().name}: {excerpt(error.details())}"
            ) from error
        return {name: self._tensor(name, proto) for name, proto in response.outputs.items()}

    def _tensor(self, name: str, proto: Any) -> np.ndarray:
        """The array of a TensorProto, whose fields need not fit together.

        A value takes at least one byte, but a shape can declare any number of them.
        """
        import tensorflow as tf

        shape = [dim.size for dim in proto.tensor_shape.dim]
        try:
            if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
                raise ValueError("it has no shape")
            if math.prod(shape) > proto.ByteSize():
                raise ValueError(f"shape {shape} in {proto.ByteSize()} bytes")
            return tf.make_ndarray(proto)
        except (ValueError, TypeError, LookupError) as error:
            raise RequestError(
                f"grpc://{self.address} answers with an output {excerpt(name)} that is not a "
                f"tensor: {excerpt(str(error))}"
            ) from error
