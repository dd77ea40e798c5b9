"""Writes a net as ONNX or LiteRT files, by Keras's own exporters.

Each of the signatures `images` and `crops` is one file, with the inputs and outputs that it has in
a SavedModel. The other signatures decode images, which these formats cannot do.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from vgg_keras.errors import ArgumentError, MissingPackageError
from vgg_keras.evaluation.posteriors import make_predict_fn
from vgg_keras.evaluation.procedure import Procedure
from vgg_keras.ilsvrc import label
from vgg_keras.nets import FC_NAMES
from vgg_keras.saved_models.errors import ExportError
from vgg_keras.saved_models.export import (
    MODEL_CONFIG,
    write_class_names,
    write_metadata,
    write_version_folder,
)
from vgg_keras.serving.signatures import pixels, score_outputs
from vgg_keras.serving.source import describe_source
from vgg_keras.trained import TrainedNet
from vgg_keras.version import __version__

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}


def check_portable(format: str, out: Path, given: Sequence[str]) -> None:
    """Raises the errors of `write_portable` that can be found before any work is done.

    Args:
        format: key of `SUFFIXES`.
        out: see `write_portable`.
        given: names of the arguments of `export` that were given and that only a SavedModel has.

    Raises:
        ArgumentError: an argument was given that only a SavedModel has.
        ExportError: TensorFlow Serving watches the folder, and could not load the version.
        MissingPackageError: the package tf2onnx is not installed.
    """
    if given:
        raise ArgumentError(
            f"{given[0]} must be left out if format is not 'saved_model': the signatures images "
            f"and crops do not use it. Received: format={format!r}",
            given[0],
        )
    if (out / MODEL_CONFIG).exists():
        raise ExportError(
            f"{out} has SavedModels for TensorFlow Serving, which cannot load a version in another "
            f"format. Give another folder. Received: format={format!r}"
        )
    if format == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise MissingPackageError("ONNX files need the package tf2onnx: pip install tf2onnx")


def write_portable(
    net: TrainedNet,
    out: str | os.PathLike,
    format: str,
    flip: bool | None = None,
    map_average: str = "scores",
    version: int | None = None,
) -> Path:
    """Writes `out/VERSION/` with `images`, `crops`, `class_names.txt` and `export.json`.

    Args:
        net: classification net.
        out: folder of the versions.
        format: key of `SUFFIXES`.
        flip, map_average: of `images`, see `Procedure`.
        version: see `export`.

    Returns:
        The folder of the version.

    Raises:
        ExportError, WriteError: see `vgg_keras.saved_models.export.write_version`.
        ArgumentError: the net gives boxes, or `map_average` is unknown.
    """
    # The caller rescales images, so any scale will do for the pass.
    scale = net.architecture.crop_size
    (dense,) = Procedure("dense", (scale,), flip=flip, map_average=map_average).passes(net)
    net = net.in_precision("float32")  # Keras's exporters take no other dtype policy
    signatures = {
        "images": (None, make_predict_fn(net, flip=dense.flip, map_average=dense.map_average)),
        "crops": (net.architecture.crop_size, make_predict_fn(net, flip=False)),
    }
    metadata = {
        "vgg_keras": __version__,
        "tensorflow": tf.__version__,
        "format": format,
        **describe_source(net),
        "flip": dense.flip,
        "map_average": dense.map_average,
        "mean": list(net.mean),
        "class_names": list(net.class_names),
    }

    def write(folder: Path) -> None:
        folder.mkdir()
        write_class_names(folder, [label(name) for name in net.class_names])
        write_metadata(folder, metadata)
        for name, (side, predict_fn) in signatures.items():
            file = folder / f"{name}{SUFFIXES[format]}"
            model, spec = _Signature(net.model, predict_fn, name=name), pixels(side, name)
            model.build(spec[0].shape)
            WRITERS[format](model, spec, file)

    return write_version_folder(out, write, version)


class _Signature(keras.Model):
    """A signature as the Keras model that an exporter takes."""

    def __init__(self, net: keras.Model, predict_fn: Callable, name: str) -> None:
        super().__init__(name=name)
        self.net = net  # Keras tracks its variables
        self.predict_fn = predict_fn
        self.fc_kernels = [net.get_layer(name).kernel for name in FC_NAMES]

    def call(self, images: tf.Tensor, *fc_kernels: tf.Tensor) -> dict[str, tf.Tensor]:
        """The outputs, with the given kernels of the FC layers in place of the net's."""
        given = zip(self.fc_kernels, fc_kernels, strict=True) if fc_kernels else ()
        with keras.StatelessScope(given):
            return score_outputs(self.predict_fn(images))


def _write_litert(model: _Signature, spec: list[tf.TensorSpec], file: Path) -> None:
    model.export(str(file), format="litert", input_signature=spec, verbose=False)


def _write_onnx(model: _Signature, spec: list[tf.TensorSpec], file: Path) -> None:
    """Writes an ONNX file whose FC kernels are added after the conversion.

    tf2onnx copies constants many times. With the 0.5 GB of a net it takes many minutes and more
    than 20 GB of memory. So the kernels of the FC layers are inputs of the converted function.
    """
    import onnx

    kernels = {kernel.path.replace("/", "_"): kernel for kernel in model.fc_kernels}
    kernel_specs = [tf.TensorSpec(k.shape, tf.float32, name) for name, k in kernels.items()]
    model.export(str(file), format="onnx", input_signature=[*spec, *kernel_specs], verbose=False)
    proto = onnx.load(file)
    for value in [value for value in proto.graph.input if value.name in kernels]:
        proto.graph.input.remove(value)
        array = keras.ops.convert_to_numpy(kernels[value.name])
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    onnx.save(proto, file)


WRITERS = {"onnx": _write_onnx, "litert": _write_litert}
