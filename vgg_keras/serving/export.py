"""Writes a net as a SavedModel, from encoded images to class names in one graph (§3.2).

For other formats see `vgg_keras.serving.portable`.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tensorflow as tf

from vgg_keras.evaluation.predictions import TOP
from vgg_keras.evaluation.procedure import Pass, Procedure, as_scales
from vgg_keras.forward import check_tensorflow
from vgg_keras.ilsvrc import label
from vgg_keras.pipelines.checks import check_at_least, check_choice
from vgg_keras.recipes import EXPORT_FORMATS, SERVING_PRECISIONS
from vgg_keras.saved_models.export import check_version, class_name_table, write_version
from vgg_keras.saved_models.images import Limits
from vgg_keras.serving.localise import Localisers, localise_endpoint
from vgg_keras.serving.portable import check_portable, write_portable
from vgg_keras.serving.signatures import Signatures
from vgg_keras.serving.source import describe_localisers, describe_source
from vgg_keras.trained import TrainedNet
from vgg_keras.version import __version__


def export(
    net: TrainedNet,
    out: str | os.PathLike,
    *,
    format: str = "saved_model",
    version: int | None = None,
    top: int = TOP,
    precision: str = "float32",
    test_scales: int | Sequence[int] | None = None,
    multi_scale: bool = False,
    flip: bool | None = None,
    map_average: str = "scores",
    limits: Limits | None = None,
    localisers: Localisers | None = None,
) -> Path:
    """Writes a net as `out/VERSION/`, by default a folder that TensorFlow Serving loads.

    A SavedModel has the signatures `serving_default`, `images`, `crops`, `features`, `classify`,
    and with localisation nets `localise`. The other formats have one file for `images` and one
    for `crops`. See docs/serving.md.

    Args:
        net: classification net, from `TrainedNet.load` or `TrainedNet.of_model`.
        out: folder that a server watches. Its last part is the name of the model.
        format: "saved_model", "onnx" for ONNX Runtime, or "litert" for LiteRT (TensorFlow Lite).
            Only `version`, `flip` and `map_average` can be given for ONNX and LiteRT.
        version: number of the version; by default one more than the greatest in `out`.
        top: number of classes that `serving_default` and `classify` name for an image.
        precision: "float32", or "bfloat16" for half the size. It is the dtype of the variables
            and of the computation. The class scores are float32 in both cases.
        test_scales, multi_scale, flip, map_average: dense protocol, see `Procedure`.
        limits: which images are refused; by default those beyond `Limits()`.
        localisers: localisation nets for the signature `localise`.

    Returns:
        The folder of the version.

    Raises:
        ExportError: the version exists already, or a class name is not one line.
        ArgumentError: an argument has a value that is not allowed, or the format does not take it.
        MissingPackageError: ONNX is wanted and the package tf2onnx is not installed.
        OSError: the folder cannot be written.

    Example:
        path = export(TrainedNet.load("runs/d"), "exports/vgg16", test_scales=256)
        path = export(TrainedNet.load("runs/d"), "onnx/vgg16", format="onnx")
    """
    _check(out, version, format, precision, top)
    if format == "saved_model":
        procedure = Procedure("dense", as_scales(test_scales), multi_scale, flip, map_average)
        passes, limits = procedure.passes(net), limits or Limits()
        return _write_saved_model(net, out, version, passes, localisers, top, precision, limits)
    scales = {"test_scales": test_scales, "multi_scale": multi_scale}
    others = {"top": top, "precision": precision, "limits": limits, "localisers": localisers}
    check_portable(format, Path(out), _given(scales | others))
    return write_portable(net, out, format, flip, map_average, version)


def _check(
    out: str | os.PathLike, version: int | None, format: str, precision: str, top: int
) -> None:
    check_tensorflow("An export")
    check_choice("format", format, EXPORT_FORMATS)
    check_choice("precision", precision, SERVING_PRECISIONS)
    check_at_least("top", top, 1)
    check_version(Path(out), version)


def _given(options: dict[str, Any]) -> list[str]:
    """Names of the arguments of `export` that do not have their default value."""
    defaults = inspect.signature(export).parameters
    return [name for name, value in options.items() if value != defaults[name].default]


def _write_saved_model(
    net: TrainedNet,
    out: str | os.PathLike,
    version: int | None,
    passes: Sequence[Pass],
    localisers: Localisers | None,
    top: int,
    precision: str,
    limits: Limits,
) -> Path:
    if localisers:
        localisers.check(net)
        localisers = localisers.in_precision(precision)
    net = net.in_precision(precision)
    with tempfile.TemporaryDirectory() as folder:
        table = class_name_table(Path(folder), [label(name) for name in net.class_names])
        top = min(top, len(net.class_names))
        signatures = Signatures(net, passes, table, top, limits)
        endpoints = signatures.endpoints()
        if localisers:
            endpoints["localise"] = localise_endpoint(localisers, signatures)
        metadata = _metadata(signatures, localisers)
        return write_version(out, endpoints, version=version, resources=[table], metadata=metadata)


def _metadata(signatures: Signatures, localisers: Localisers | None) -> dict[str, Any]:
    """The contents of `export.json`."""
    net = signatures.net
    return {
        "vgg_keras": __version__,
        "tensorflow": tf.__version__,
        **describe_source(net),
        "test_scales": signatures.test_scales,
        "flip": signatures.flip,
        "map_average": signatures.map_average,
        "mean": list(net.mean),
        "top": signatures.top,
        "limits": asdict(signatures.limits),
        **(describe_localisers(localisers) if localisers else {}),
        "class_names": list(net.class_names),
    }
