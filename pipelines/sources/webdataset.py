"""WebDataset shards: tar archives in which the files of one image follow each other.

    KEY.jpg  or .jpeg, .png, .gif, .bmp: the image
    KEY.cls  the label as text, from 0
    KEY.json an object whose `label` is the label, or the name of the class

KEY is everything before the first dot of the file's name. Other files are ignored.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

from vgg_keras.pipelines.contents import parse_json
from vgg_keras.pipelines.sources.image_index import Entry
from vgg_keras.pipelines.sources.listing import text_of_path
from vgg_keras.pipelines.sources.tar_files import Member, tar_members

_IMAGES = ("jpg", "jpeg", "png", "gif", "bmp")
_DECISIVE = {*_IMAGES, "cls"}
_LARGEST_LABEL = 2**20  # bytes of a .cls or .json file


def scan_webdataset(path: str, *unused: object) -> Iterator[Entry]:
    """Finds the images of a shard.

    Raises:
        ValueError: the archive is damaged or cut short, an image has no file or several, or a label
            is not one. The message names the image.
    """
    with open(path, "rb") as shard:
        for key, sample in itertools.groupby(_visible_files(path), lambda file: file[0]):
            parts: dict[str, Member] = {}
            for _, suffix, member in sample:
                if suffix in parts:
                    raise ValueError(f"{text_of_path(key)} has two files .{suffix}")
                parts[suffix] = member
            if not parts.keys().isdisjoint(_DECISIVE):  # else they are notes
                yield _entry(text_of_path(key), parts, shard.fileno())


def _visible_files(path: str) -> Iterator[tuple[str, str, Member]]:
    """Key, suffix in lower case, and member of the files that are not hidden."""
    for member in tar_members(path):
        if member.is_file and "/." not in f"/{member.name}":
            start = member.name.rfind("/") + 1
            stop = member.name.find(".", start) % (len(member.name) + 1)  # -1: no suffix
            yield member.name[:stop], member.name[stop + 1 :].lower(), member


def _entry(key: str, parts: Mapping[str, Member], shard: int) -> Entry:
    images = [suffix for suffix in _IMAGES if suffix in parts]
    if len(images) != 1:
        raise ValueError(
            f"{key} must have one image, .{', .'.join(_IMAGES)}. Received: "
            f"{', '.join('.' + suffix for suffix in parts)}"
        )
    image = parts[images[0]]
    label: Any = -1
    if "cls" in parts:
        text = _content(parts["cls"], shard).strip()
        label = int(text) if text.isdigit() else text
        if not isinstance(label, int):
            raise ValueError(f"{key}.cls must be a label from 0. Received: {text[:40]!r}")
    elif "json" in parts:
        try:
            label = parse_json(_content(parts["json"], shard), dict[str, Any]).get("label", -1)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{key}.json: {error}") from error
        if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
            raise ValueError(
                f"label in {key}.json must be an integer or text. Received: {label!r:.40}"
            )
    name = f"{key}.{images[0]}"
    if isinstance(label, str):
        return Entry(image.offset, image.size, -1, label, name)
    if not -1 <= label < 2**31:
        raise ValueError(f"the label of {key} must be from 0. Received: {label}")
    return Entry(image.offset, image.size, label, "", name)


def _content(member: Member, shard: int) -> bytes:
    if member.size > _LARGEST_LABEL:
        raise ValueError(f"{text_of_path(member.name)} has {member.size} bytes")
    return os.pread(shard, member.size, member.offset)
