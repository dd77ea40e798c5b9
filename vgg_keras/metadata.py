"""What results, exports and caches say of the nets that made them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Required, TypedDict

import msgspec

Metadata = Mapping[str, Any]
MAX_SCALE = 2**15  # greatest side of a rescaled image in pixels

# Key of the answers for each image in a localisation result: the file format has this name.
ANSWERS_KEY = "pictures"
RECOGNISED_KEY = "recognised"  # of the recognised test images in a transfer result

# Key of how a result came about: version, commit, command, date, hardware, seconds.
PROVENANCE_KEY = "provenance"

_Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SCALE)]
_Percentage = Annotated[float, msgspec.Meta(ge=0, le=100.001)]  # rounding may exceed 100
_Fraction = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]  # of the side of an image
_Box = tuple[_Fraction, _Fraction, _Fraction, _Fraction]
_Colour = tuple[float, float, float]


class NetInFile(TypedDict, total=False):
    """Types of what a file says of a net and its test; other keys may have any value."""

    run: str
    weights: str
    model: str
    net: str
    train_scale: tuple[_Side, _Side] | None
    test_scales: list[_Side]
    crop_size: _Side
    width: Annotated[float, msgspec.Meta(gt=0)]
    precision: str
    seed: int  # that the net was trained with
    pool_rounding: str
    head: str | None
    preprocessing: str | None
    input: str
    source_mean: _Colour | None
    mean: _Colour
    data: str
    split: str | None
    skipped: list[str]
    flip: bool
    map_average: str
    regression: str | None
    tuned: str | None
    layer: str
    aggregate: str
    region: str
    digest: str


class MetadataInFile(NetInFile, total=False):
    """Types of the metadata of a net or, under `members`, of several nets."""

    members: Annotated[list[NetInFile], msgspec.Meta(min_length=1)]


class PredictionsInFile(MetadataInFile, total=False):
    """Types of the file beside a table of predictions."""

    protocol: str
    class_names: Required[Annotated[list[str], msgspec.Meta(min_length=1)]]


_Answer = TypedDict("_Answer", {"class": str, "box": _Box, "right": bool})
_Answered = TypedDict(
    "_Answered",
    {
        "image": str,
        "class": str,
        "boxes": list[_Box],
        "answers": Annotated[list[_Answer], msgspec.Meta(min_length=1)],
    },
)


_Marks = Annotated[str, msgspec.Meta(pattern="^[-01]*$")]


class _Recognised(TypedDict):
    images: list[str]
    labels: list[int]
    splits: Annotated[list[_Marks], msgspec.Meta(min_length=1)]


class _Provenance(TypedDict, total=False):
    date: str
    hardware: str


class ResultInFile(MetadataInFile, total=False):
    """Types of a result."""

    protocol: Required[str]
    images: Required[Annotated[int, msgspec.Meta(ge=0)]]
    top1_error: _Percentage
    top5_error: _Percentage
    top1_localisation_error: _Percentage
    top5_localisation_error: _Percentage
    gt_class_localisation_error: _Percentage
    mean_ap: _Percentage
    mean_class_recall: _Percentage
    spread: float | None
    train_per_class: int | None
    features: MetadataInFile
    predictions: Annotated[str, msgspec.Meta(pattern="^[^/]+$")]  # name of a file
    pictures: list[_Answered]
    recognised: _Recognised
    provenance: _Provenance


def rounded(value: Any) -> Any:
    """JSON data whose floats have six significant digits, as they are printed and compared.

    Example:
        >>> rounded({"top1_error": 29.473684210526315})
        {'top1_error': 29.4737}
    """
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def members(metadata: Metadata) -> Sequence[dict[str, Any]]:
    """The metadata of each net that took part; a single net is its own only member."""
    return metadata.get("members", [metadata])


def join(of_nets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The metadata of several nets as one dictionary, with their seed if it is the same.

    The metadata of a single net are its own.
    """
    if len(of_nets) == 1:
        return of_nets[0]
    return {"members": list(of_nets), **shared(of_nets, ("seed",))}


def shared(of_nets: Sequence[Metadata], keys: Collection[str]) -> dict[str, Any]:
    """Those of the keys that all nets have with the same value."""
    first = of_nets[0]
    return {
        key: first[key]
        for key in first
        if key in keys and all(key in net and net[key] == first[key] for net in of_nets)
    }


def net_name(metadata: Metadata) -> str:
    """The path or name by which people know the net that `metadata` describes."""
    return str(next((metadata[key] for key in ("run", "weights", "model") if key in metadata), "?"))
