"""Results read from files, and how they were measured in words.

A result is a dictionary like that of `Predictions.result()`: one net by one protocol, or a fusion,
which has `members`, one dictionary for each net, instead of the keys of a net. This module does not
import TensorFlow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import msgspec

from vgg_keras.errors import ArgumentError, PredictionsError
from vgg_keras.evaluation.procedure import CROP_OF_PAPER
from vgg_keras.metadata import (
    ANSWERS_KEY,
    PROVENANCE_KEY,
    RECOGNISED_KEY,
    ResultInFile,
    members,
    rounded,
)
from vgg_keras.pipelines.contents import naming_file, parse_json
from vgg_keras.pipelines.files import DIGEST_KEY
from vgg_keras.report.appendices import PAPER_TABLES
from vgg_keras.report.generalisation import TRANSFER_MEASURES
from vgg_keras.report.paper import Tested

Result = dict[str, Any]

PREDICTIONS_KEY = "predictions"  # name of the prediction file beside the result
# Keys that name or hold what was found for each image.
OUTCOME_KEYS = {PREDICTIONS_KEY, ANSWERS_KEY, RECOGNISED_KEY}
_REQUIRED_KEYS = {"protocol", "images"}
MEASURES = TRANSFER_MEASURES | {key for t in PAPER_TABLES.values() for _, key in t.measures}
# Keys that say how a result is stored. Results that differ only in these are the same.
STORAGE_KEYS = {"file", "class_names", DIGEST_KEY, PROVENANCE_KEY, *OUTCOME_KEYS}
# Settings of a result: key, default, and the words for any other value.
_OTHER_SETTINGS = (
    ("flip", True, "no flip"),
    ("precision", "float32", "mixed precision"),
    ("map_average", "scores", "posteriors averaged over the map"),
    ("pool_rounding", "down", "pooling rounded up"),
)


def read_results(results: str | os.PathLike) -> list[Result]:
    """Reads all results in the JSON files of a folder and its subfolders.

    JSON files with other content are ignored.

    Args:
        results: folder with files that `Predictions.save`, `Localised.save` or the command line's
            JSON output wrote.

    Returns:
        Results in the order of their paths; the path of each is in `file`. If a result is found
        several times, the copy with the outcomes of images is used, else the first.

    Raises:
        ArgumentError: the folder does not exist.
        PredictionsError: a file does not hold JSON, or a result in it has values of other types.

    Example:
        table = build_table(4, read_results("results"))
    """
    folder = Path(results)
    if not folder.is_dir():
        raise ArgumentError(f"results must be a folder that exists. Received: {folder}", "results")
    paths = sorted(path for path in folder.rglob("[!.]*.json") if path.is_file())
    return _distinct(result for path in paths for result in _results_in(path))


def _results_in(path: Path) -> Iterator[Result]:
    with naming_file(path, PredictionsError, "must hold JSON"):
        content: Any = parse_json(path.read_bytes(), Any)
    if isinstance(content, dict) and isinstance(content.get("results"), list):
        content = content["results"]  # what `--json` prints
    for item in content if isinstance(content, list) else [content]:
        if isinstance(item, dict) and item.keys() >= _REQUIRED_KEYS and item.keys() & MEASURES:
            with naming_file(path, PredictionsError, "holds a result with wrong values"):
                msgspec.convert(item, ResultInFile)
            yield item | {"file": str(path)}


def _distinct(found: Iterable[Result]) -> list[Result]:
    """Each result once; of several copies the first with outcomes of images, or the first."""
    distinct: dict[str, Result] = {}
    for result in found:
        # Files have all digits, and what is printed six.
        measured = rounded({key: result[key] for key in result.keys() - STORAGE_KEYS})
        key = json.dumps(measured, sort_keys=True)
        stored = result.keys() & OUTCOME_KEYS
        if key not in distinct or (stored and not stored & distinct[key].keys()):
            distinct[key] = result
    return list(distinct.values())


def prediction_file(result: Result) -> Path:
    """The file of a result's predictions: the one beside it, also after both were renamed."""
    file = Path(result["file"])
    beside = file.with_suffix("")  # of NAME.parquet.json
    return beside if beside.is_file() else file.with_name(result[PREDICTIONS_KEY])


def nets_of(result: Result) -> list[tuple[str, str, str]]:
    """Net, S and Q of each member, printed as in the paper; "?" if unknown."""
    return [
        Tested(
            member.get("net", "?"),
            tuple(member.get("train_scale") or "??"),
            tuple(member.get("test_scales", ())),
        ).cells
        for member in members(result)
    ]


def seeds_of(result: Result) -> str:
    """The seeds of the nets, each once: 0, or 0, 1; "" if unknown."""
    return ", ".join(dict.fromkeys(str(m["seed"]) for m in members(result) if "seed" in m))


def circumstances(result: Result) -> str:
    """The data, and what differs from the paper: imagenette160, 1982 images, crop 64, width 1/4."""
    nets = members(result)
    parts = [data_name(result), f"{result['images']} images"]
    if "skipped" in result:
        parts.append(f"{len(result['skipped'])} unreadable")
    parts += _geometry(result)
    for key, default, text in _OTHER_SETTINGS:
        if any(one.get(key, default) != default for one in (result, *nets)):
            parts.append(text)
    return ", ".join(filter(None, parts))


def summary(result: Result) -> dict[str, Any]:
    """What the page says of a result of classification."""
    return {
        "nets": nets_of(result),
        "protocol": result["protocol"].replace("+", " & "),
        "top1": result["top1_error"],
        "top5": result["top5_error"],
        "seeds": seeds_of(result),
        "measured_on": circumstances(result),
        "file": Path(result["file"]).stem,
    }


def by_data(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by the name of the data set and split, in the order of the first results."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(data_name(result) or "unnamed data", []).append(result)
    return groups


def setting(result: Result) -> str:
    """Data, crop size and width, without the paper's: imagenette160, crop 64, width 1/4."""
    return ", ".join(filter(None, [data_name(result), *_geometry(result)]))


def _geometry(result: Result) -> list[str]:
    """Crop size and width of the nets, in words, where they differ from the paper's."""
    nets = members(result)
    crops = dict.fromkeys(str(net.get("crop_size", CROP_OF_PAPER)) for net in nets)
    widths = dict.fromkeys(str(Fraction(m.get("width", 1)).limit_denominator(1000)) for m in nets)
    parts = []
    if list(crops) != [str(CROP_OF_PAPER)]:
        parts.append(f"crop {' and '.join(crops)}")
    if list(widths) != ["1"]:
        parts.append(f"width {' and '.join(widths)}")
    return parts


def data_name(result: Result) -> str:
    """Name of the data set without its kind and folder, and the split unless it is "val"."""
    kind, _, name = result.get("data", "").partition(":")
    name = PurePath(name).name if kind == "folder" else name or kind
    return f"{name} {result.get('split', 'val')}".removesuffix(" val").strip()
