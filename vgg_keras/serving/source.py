"""The nets that an export was made of: written into its metadata, and loaded from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Required, TypedDict

import msgspec

from vgg_keras.facts import NetFacts
from vgg_keras.metadata import NetInFile
from vgg_keras.net_files import READ_WITH, load_weights_file
from vgg_keras.pipelines.contents import naming_file
from vgg_keras.pipelines.statistics import Statistics
from vgg_keras.pretrained import find_release
from vgg_keras.saved_models.errors import ExportError
from vgg_keras.saved_models.export import ASSETS_EXTRA, METADATA, read_metadata
from vgg_keras.saved_models.images import Limits
from vgg_keras.serving.localise import Localisers
from vgg_keras.trained import TrainedNet

_PATHS = ("run", "weights")  # keys of an origin that hold a path, or the name of a release


def describe_source(net: NetFacts) -> dict[str, Any]:
    """The metadata of a net, with its origin under `source` and absolute paths."""
    # Both have a net: that of the origin is the argument that the weights were read with.
    of_origin = set(net.origin) - {"net"}
    facts = {key: value for key, value in net.metadata().items() if key not in of_origin}
    return {"source": _absolute(net.origin), **facts}


def describe_localisers(localisers: Localisers) -> dict[str, Any]:
    """The metadata of the localisation nets of an export.

    A run is described by its path alone, another net by its origin.
    """
    origins = [_absolute(net.origin) for net in localisers.nets]
    return {
        "localisers": [origin.get("run", origin) for origin in origins],
        "localiser_scales": [list(scales) for scales in localisers.scales()],
        "merge_threshold": localisers.threshold,
    }


def _absolute(origin: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: str(Path(value).absolute()) if key in _PATHS and not find_release(value) else value
        for key, value in origin.items()
    }


class _Source(NetInFile, total=False):
    statistics: str


class _ExportInFile(TypedDict, total=False):
    """Types of the metadata that `export` writes."""

    source: Required[_Source]
    net: Required[str]
    crop_size: Required[int]
    width: Required[float]
    pool_rounding: Required[str]
    precision: Required[Literal["float32", "bfloat16"]]
    class_names: Required[list[str]]
    train_scale: tuple[int, int] | None
    test_scales: Required[Annotated[list[int], msgspec.Meta(min_length=1)]]
    flip: Required[bool]
    map_average: Required[str]
    top: Required[Annotated[int, msgspec.Meta(ge=1)]]
    mean: Required[tuple[float, float, float]]
    limits: Required[Limits]
    localisers: list[str | dict[str, Any]]
    localiser_scales: list[list[int]]
    merge_threshold: float


def read_export(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata of an export of a net.

    Args:
        path: folder of the version.

    Raises:
        ExportError: the folder is not an export of a net, or its metadata are damaged.

    Example:
        net = load_source(read_export("exports/vgg16/1"))
    """
    metadata = read_metadata(path)
    file = Path(path) / ASSETS_EXTRA / METADATA
    with naming_file(file, ExportError, "does not describe an export of a net"):
        msgspec.convert(metadata, _ExportInFile)
        if metadata.keys() & _OF_LOCALISERS not in (set(), _OF_LOCALISERS):
            raise ValueError(f"it must have all or none of {', '.join(sorted(_OF_LOCALISERS))}")
    return metadata


_OF_LOCALISERS = {"localisers", "localiser_scales", "merge_threshold"}


def load_source(metadata: Mapping[str, Any]) -> TrainedNet:
    """Loads the net that an export was made of, in float32.

    Args:
        metadata: of the export, from `read_export`.

    Raises:
        ExportError: the export was made of a model in memory.
        RunError, WeightsError: the run or the weights file cannot be read.

    Example:
        net = load_source(read_export("exports/vgg16/1"))
    """
    source = metadata["source"]
    if "run" in source:
        return _load_run(source["run"], metadata)
    if "weights" not in source:
        raise ExportError(
            f"net must be given (`net=`), because the export was made of a model in memory, "
            f"{source.get('model')!r}, which cannot be loaded. Received: net=None"
        )
    source_mean = source.get("source_mean")
    if "statistics" in source:  # exports of version 0.1 name a file
        source_mean = Statistics.load(source["statistics"]).mean
    given = {
        **{key: source[key] for key in READ_WITH if key in source},
        "mean": source_mean,
        "class_names": metadata["class_names"],
        "train_scale": metadata.get("train_scale") or source.get("train_scale"),
    }
    facts, model = load_weights_file(
        Path(source["weights"]),
        {key: value for key, value in given.items() if value is not None},
        pool_rounding=metadata["pool_rounding"],
        mean=metadata["mean"],  # earlier versions took that of ILSVRC for every file
    )
    return TrainedNet(**vars(facts), model=model)


def load_localisers(metadata: Mapping[str, Any]) -> Localisers | None:
    """Loads the localisation nets of an export, in float32; None if it has none.

    Args:
        metadata: of the export, from `read_export`.

    Raises:
        ExportError: the export was made of a model in memory.
        RunError: a run cannot be read.

    Example:
        localisers = load_localisers(read_export("exports/vgg16/1"))
    """
    if "localisers" not in metadata:
        return None
    for origin in metadata["localisers"]:
        if not isinstance(origin, str):
            raise ExportError(
                f"localisers must be given (`localisers=`), because the export was made of a model "
                f"in memory, {origin.get('model')!r}, which cannot be loaded. "
                f"Received: localisers=None"
            )
    return Localisers(
        [_load_run(folder, metadata) for folder in metadata["localisers"]],
        metadata["localiser_scales"],
        metadata["merge_threshold"],
    )


def _load_run(folder: str, metadata: Mapping[str, Any]) -> TrainedNet:
    return TrainedNet.load(folder, precision="float32", pool_rounding=metadata["pool_rounding"])
