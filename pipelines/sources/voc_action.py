"""The action classification task of PASCAL VOC 2012, from its archives, packed or unpacked.

    VOCdevkit/VOC2012/ImageSets/Action/{train,val,test}.txt   each line: image name, object number
    VOCdevkit/VOC2012/Annotations/NAME.xml                    objects with boxes and actions
    VOCdevkit/VOC2012/JPEGImages/NAME.jpg

An item of a split is a person: an image with several people appears several times, each time with
another box. The format is that of the development kit's documentation (Everingham & Winn, 2012,
§2.3 and §2.8).
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Iterable

import numpy as np

from vgg_keras.pipelines.box_sources import float_or_nan
from vgg_keras.pipelines.checks import first_few
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.annotations import annotated_objects, stated_box
from vgg_keras.pipelines.sources.archives import Archive, ArchiveSplit
from vgg_keras.pipelines.sources.listing import text_of_path
from vgg_keras.pipelines.sources.packed import PackedStrings
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source, StatedBoxes

# The ten actions of the task, and `other`, whose people are distractors.
ACTIONS = (
    "jumping",
    "phoning",
    "playinginstrument",
    "reading",
    "ridingbike",
    "ridinghorse",
    "running",
    "takingphoto",
    "usingcomputer",
    "walking",
    "other",
)
_EXPECTED = "VOCtrainval_11-May-2012.tar or VOC2012test.tar of PASCAL VOC 2012, or their folder"
_SETS = (TRAIN, VALIDATION, "test")
_SUFFIXES = (".jpg", ".JPG", ".jpeg", ".JPEG")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PeopleSplit(ArchiveSplit):
    """People in images.

    Attributes:
        objects: int64 `(N,)`, number of the person among the image's objects, from 1.
        boxes: float64 `(N, 4)`, x_min, y_min, x_max, y_max in pixels from 0, all inside the box.
        targets: int8 `(N, 11)`, see `Split.all_targets`.
    """

    objects: np.ndarray = dataclasses.field(kw_only=True)
    boxes: np.ndarray = dataclasses.field(kw_only=True)
    targets: np.ndarray = dataclasses.field(kw_only=True)

    _PER_IMAGE = ("paths", "labels", "objects", "boxes", "targets")

    def all_targets(self, num_classes: int) -> np.ndarray:
        return self.targets

    def names_of(self, indices: Iterable[int]) -> list[str]:
        indices = list(indices)
        files = super().names_of(indices)
        return [f"{file}#{self.objects[i]}" for i, file in zip(indices, files, strict=True)]

    def stated_boxes(self) -> StatedBoxes:
        return StatedBoxes(self.boxes[:, None].tolist(), True)


def open_voc_action(
    spec: str,
    location: str,
    *,
    data_dir: str | os.PathLike | None,
    several_labels: bool,
    **unused: object,
) -> Source:
    """Opens those of the sets train, val and test that exist. Labels are -1; targets hold actions.

    The people of the test set have boxes and no actions: all targets are -1.

    Raises:
        SourceError: images with several labels are not accepted; there is no folder or archive; or
            a file of it is missing or damaged; or there are the sets of several data sets.
    """
    if not several_labels:
        raise SourceError(f"{spec} has no single label an image, which classification needs.")
    archive = Archive.open(location, _EXPECTED, data_dir)
    lists = {name: f"ImageSets/Action/{name}.txt" for name in _SETS}
    suffixes = tuple(lists.values())
    tops = {
        file.removesuffix(suffix)
        for file in archive.files
        for suffix in suffixes
        if file.endswith(suffix)
    }
    if len(tops) != 1:
        found = first_few(sorted(tops)) or "none"
        raise SourceError(
            f"{archive.root} must hold one folder with ImageSets/Action/train.txt, val.txt or "
            f"test.txt. Received: {found}. Expected: {_EXPECTED}."
        )
    (top,) = tops
    splits = {
        name: _open_split(name, archive, top, posixpath.join(top, file))
        for name, file in lists.items()
        if posixpath.join(top, file) in archive.files
    }
    return Source(spec, ACTIONS, splits)


def _open_split(name: str, archive: Archive, top: str, file: str) -> PeopleSplit:
    text = archive.read(file).decode("utf-8-sig", "surrogateescape")  # as os.fsdecode
    shown = text_of_path(archive.path_of(file))
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or any(len(line) < 2 or not line[1].isdecimal() for line in lines):
        raise SourceError(f"Each line of {shown} must have an image name and an object number.")
    listed = [(image, int(number)) for image, number, *_ in lines]
    annotations = {image: _objects(archive, top, image) for image, _ in listed}
    for image, number in listed:
        if not 1 <= number <= len(annotations[image]):
            raise SourceError(
                f"{shown} names object {number} of {image}, whose annotation has "
                f"{len(annotations[image])}."
            )
    people = [annotations[image][number - 1] for image, number in listed]
    images = [_image_file(archive, top, image) for image, _ in listed]
    return PeopleSplit(
        name,
        PackedStrings.of(archive.path_of(image) for image in images),
        np.full(len(listed), -1, np.int64),
        str(archive.root),
        ACTIONS,
        archive=archive,
        objects=np.array([number for _, number in listed], np.int64),
        boxes=np.array([box for box, _ in people]),
        targets=np.array([targets for _, targets in people], np.int8),
    )


def _objects(archive: Archive, top: str, image: str) -> list[tuple[list[float], list[int]]]:
    """Box and targets of each object of an image."""
    file = posixpath.join(top, f"Annotations/{image}.xml")
    return [
        (
            [edge - 1 for edge in stated_box(found)],  # VOC counts pixels from 1
            [1 if float_or_nan(found.findtext(f"actions/{a}")) == 1 else -1 for a in ACTIONS],
        )
        for found in annotated_objects(archive.read(file), archive.path_of(file))
    ]


def _image_file(archive: Archive, top: str, image: str) -> str:
    """Name of an image's file; the published one if there is no such file."""
    names = [posixpath.join(top, "JPEGImages", image + suffix) for suffix in _SUFFIXES]
    return next((name for name in names if name in archive.files), names[0])
