"""The action classification task of PASCAL VOC 2012, as its archives have it, packed or unpacked.

    VOCdevkit/VOC2012/ImageSets/Action/{train,val,test}.txt   lines of a picture and an object
    VOCdevkit/VOC2012/Annotations/NAME.xml                    objects with boxes and actions
    VOCdevkit/VOC2012/JPEGImages/NAME.jpg

An item is a person: a picture with several is there several times, each time with another box. The
format is that of the development kit's documentation (Everingham & Winn, 2012, §2.3 and §2.8).
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
from xml.etree import ElementTree

import numpy as np
from vgg_keras.pipelines.cls_loc_source import number
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import TRAIN, VALIDATION, Source
from vgg_keras.pipelines.trees import Tree, TreeSplit

# Ten to be told apart, and `other`, whose people are distractors.
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
_ARCHIVE = "VOCtrainval_11-May-2012.tar of PASCAL VOC 2012, or its folder"
_SETS = (TRAIN, VALIDATION, "test")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclasses.dataclass(frozen=True, eq=False)
class PeopleSplit(TreeSplit):
    """People in pictures.

    Attributes:
        objects: int64 `(N,)`, the person's number among the picture's objects, from 1.
        stated: float64 `(N, 4)`, x_min, y_min, x_max, y_max in pixels from 0, all included.
        targets: int8 `(N, 11)`, see `Split.all_targets`.
    """

    objects: np.ndarray = dataclasses.field(kw_only=True)
    stated: np.ndarray = dataclasses.field(kw_only=True)
    targets: np.ndarray = dataclasses.field(kw_only=True)

    def all_targets(self, num_classes):
        return self.targets

    def names_of(self, indices):
        return [f"{self.paths[i]}#{self.objects[i]}" for i in indices]

    def without(self, names):
        kept = ~np.isin(self.names_of(range(len(self))), list(names))
        of_people = ("paths", "labels", "objects", "stated", "targets")
        return dataclasses.replace(self, **{key: getattr(self, key)[kept] for key in of_people})


def open_voc_action(spec: str, root: str | os.PathLike) -> Source:
    """The sets that are there, of train, val and test; labels are -1, for the targets have them.

    Raises:
        SourceError: no folder or archive is there, or a file of it is missing or damaged.
    """
    tree = Tree.open(root, _ARCHIVE)
    suffix = "ImageSets/Action/train.txt"
    tops = [name.removesuffix(suffix) for name in tree.places if name.endswith(suffix)]
    if not tops:
        raise SourceError(f"{tree.root} holds no {suffix}. Expected: {_ARCHIVE}.")
    lists = {name: posixpath.join(tops[0], f"ImageSets/Action/{name}.txt") for name in _SETS}
    splits = {
        name: _split(name, tree, tops[0], file)
        for name, file in lists.items()
        if file in tree.places
    }
    return Source(spec, ACTIONS, splits)


def _split(name: str, tree: Tree, top: str, file: str) -> PeopleSplit:
    lines = [line.split() for line in tree.read(file).decode().splitlines() if line.strip()]
    if not lines or any(len(line) < 2 or not line[1].isdigit() for line in lines):
        raise SourceError(
            f"{tree.path_of(file)} must have lines of a picture's name and an object's number."
        )
    annotations = {picture: _objects(tree, top, picture) for picture, *_ in lines}
    people = []
    for picture, place, *_ in lines:
        objects = annotations[picture]
        if not 1 <= int(place) <= len(objects):
            raise SourceError(
                f"{tree.path_of(file)} names object {place} of {picture}, whose annotation has "
                f"{len(objects)}."
            )
        people.append(objects[int(place) - 1])
    paths = [
        tree.path_of(posixpath.join(top, f"JPEGImages/{picture}.jpg")) for picture, *_ in lines
    ]
    return PeopleSplit(
        name,
        np.array(paths),
        np.full(len(lines), -1, np.int64),
        str(tree.root),
        tree=tree,
        objects=np.array([int(place) for _, place, *_ in lines], np.int64),
        stated=np.array([box for box, _ in people]),
        targets=np.array([targets for _, targets in people], np.int8),
    )


def _objects(tree: Tree, top: str, picture: str) -> list[tuple[list[float], list[int]]]:
    """Box and targets of each object of a picture."""
    file = posixpath.join(top, f"Annotations/{picture}.xml")
    try:
        found = ElementTree.fromstring(tree.read(file)).findall("object")
    except (ElementTree.ParseError, OSError) as error:
        raise SourceError(f"{tree.path_of(file)} cannot be read: {error}") from error
    return [
        (
            # VOC counts pixels from 1.
            [number(one.findtext(f"bndbox/{side}")) - 1 for side in _SIDES],
            [1 if number(one.findtext(f"actions/{a}")) == 1 else -1 for a in ACTIONS],
        )
        for one in found
    ]
