"""Saved models: writing a model as an export that can be served, and asking a server about it.

    path = write_version("exports/mine", {"serving_default": Endpoint(...)})
    for answer in classify(connect("http://localhost:8501/v1/models/mine"), images):
        print(answer.class_names[0])

The names are loaded on first use, so that importing this package does not import TensorFlow.
"""

from typing import TYPE_CHECKING

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "client": ["Answer", "Server", "classify", "connect"],
        "errors": ["ExportError", "ReplayError", "RequestError"],
        "export": ["Endpoint", "class_name_table", "read_metadata", "write_version"],
        "grpc_client": ["GrpcServer"],
        "images": ["Limits", "apply_by_size", "images_of_examples", "read_sizes"],
        "records": ["Request", "examples"],
        "replay": ["Reply", "replay", "replay_on_server"],
        "rest_client": ["RestServer"],
        "tensors": ["Tensors", "image_inputs"],
    },
)

if TYPE_CHECKING:  # the same names for type checkers and editors
    from vgg_keras.saved_models.client import Answer as Answer
    from vgg_keras.saved_models.client import Server as Server
    from vgg_keras.saved_models.client import classify as classify
    from vgg_keras.saved_models.client import connect as connect
    from vgg_keras.saved_models.errors import ExportError as ExportError
    from vgg_keras.saved_models.errors import ReplayError as ReplayError
    from vgg_keras.saved_models.errors import RequestError as RequestError
    from vgg_keras.saved_models.export import Endpoint as Endpoint
    from vgg_keras.saved_models.export import class_name_table as class_name_table
    from vgg_keras.saved_models.export import read_metadata as read_metadata
    from vgg_keras.saved_models.export import write_version as write_version
    from vgg_keras.saved_models.grpc_client import GrpcServer as GrpcServer
    from vgg_keras.saved_models.images import Limits as Limits
    from vgg_keras.saved_models.images import apply_by_size as apply_by_size
    from vgg_keras.saved_models.images import images_of_examples as images_of_examples
    from vgg_keras.saved_models.images import read_sizes as read_sizes
    from vgg_keras.saved_models.records import Request as Request
    from vgg_keras.saved_models.records import examples as examples
    from vgg_keras.saved_models.replay import Reply as Reply
    from vgg_keras.saved_models.replay import replay as replay
    from vgg_keras.saved_models.replay import replay_on_server as replay_on_server
    from vgg_keras.saved_models.rest_client import RestServer as RestServer
    from vgg_keras.saved_models.tensors import Tensors as Tensors
    from vgg_keras.saved_models.tensors import image_inputs as image_inputs
