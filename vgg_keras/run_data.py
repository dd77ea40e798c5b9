"""What a run is trained on, as its folder records it: the images and the colour statistics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from vgg_keras.errors import RunError
from vgg_keras.pipelines.contents import read_json
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.pipelines.statistics import Statistics
from vgg_keras.run_files import DATA, STATISTICS

if TYPE_CHECKING:  # reading weights needs no TensorFlow
    from vgg_keras.pipelines.splits import Split


class _ImagesOfSplit(TypedDict):
    images: int
    fingerprint: str


class _Statistics(TypedDict):
    mean: list[float]


class _Record(TypedDict):
    splits: dict[str, _ImagesOfSplit]
    statistics: _Statistics


Images = dict[str, _ImagesOfSplit]


def describe_images(splits: Sequence[Split]) -> Images:
    """The numbers of images and the fingerprints of splits; can be written as JSON."""
    return {s.name: {"images": len(s), "fingerprint": s.fingerprint()} for s in splits}


def record_data(folder: Path, images: Images, statistics: Statistics) -> None:
    """Records what a run is begun with. A record that exists is not changed.

    Raises:
        WriteError: the file cannot be written.
    """
    if not (folder / DATA).exists():
        record = {"splits": images, "statistics": asdict(statistics)}
        atomic_write(folder / DATA, json.dumps(record, indent=2) + "\n")


def changed_images(folder: Path, images: Images) -> str:
    """How the images differ from those that a run was begun with, in words; "" if they do not.

    Earlier versions recorded nothing, so nothing can be said of their runs.

    Raises:
        RunError: the record is damaged.
    """
    record = _read_record(folder)
    begun = record["splits"] if record else {}
    return "; ".join(
        f"{name}: {begun[name]['images']} images then, {now['images']} now"
        if begun[name]["images"] != now["images"]
        else f"{name}: other files, or files of another size or time of modification"
        for name, now in images.items()
        if begun.get(name, now) != now
    )


def load_statistics(folder: Path) -> Statistics:
    """The colour statistics of a run.

    Raises:
        RunError: they are not those that the run was begun with.
        SourceError: the file has other contents.
    """
    found = Statistics.load(folder / STATISTICS)
    record = _read_record(folder)
    if record and record["statistics"] != json.loads(json.dumps(asdict(found))):
        raise RunError(
            f"{folder / STATISTICS} has changed since the run was begun. The weights belong to the "
            f"statistics in {folder / DATA}, with mean {record['statistics']['mean']}: restore "
            f"them. Received: mean {list(found.mean)}"
        )
    return found


def _read_record(folder: Path) -> _Record | None:
    """The record of a run; None if an earlier version made the run."""
    file = folder / DATA
    return read_json(file, _Record, RunError) if file.exists() else None
