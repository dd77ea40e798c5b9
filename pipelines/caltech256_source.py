"""Caltech-256 as its archive has it: 256_ObjectCategories.tar, packed or unpacked.

    256_ObjectCategories/001.ak47/001_0001.jpg ... 257.clutter/257_0827.jpg

The 257th class, clutter, is one of the paper's 257 (§B). Some class folders hold more than their
pictures, `198.spider/RENAME2` and `056.dog/greg/`; what is not named as a picture is passed over.
"""

from __future__ import annotations

import logging
import os
import re

import numpy as np
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import Source
from vgg_keras.pipelines.trees import Tree, TreeSplit

log = logging.getLogger(__name__)

_ARCHIVE = "256_ObjectCategories.tar of Caltech-256 (Griffin et al., 2007), or its folder"
_PICTURE = re.compile(r"(?:.*/)?(?P<folder>\d{3}\.[^/]+)/\d{3}_\d{4}\.jpg")


def open_caltech256(spec: str, root: str | os.PathLike) -> Source:
    """All pictures as one split, `all`; classes are named as the folders are, 001.ak47.

    Raises:
        SourceError: no folder or archive is there, or it has other contents.
    """
    tree = Tree.open(root, _ARCHIVE)
    found = {name: match["folder"] for name in tree.places if (match := _PICTURE.fullmatch(name))}
    if not found:
        raise SourceError(
            f"{tree.root} holds no pictures like 001.ak47/001_0001.jpg. Expected: {_ARCHIVE}."
        )
    if len(found) < len(tree.places):
        log.info("%s: %d other files passed over", tree.root, len(tree.places) - len(found))
    class_names = sorted(set(found.values()))
    numbers = {name: i for i, name in enumerate(class_names)}
    split = TreeSplit(
        "all",
        np.array([tree.path_of(name) for name in found]),
        np.array([numbers[folder] for folder in found.values()], np.int64),
        str(tree.root),
        tree=tree,
    )
    return Source(spec, tuple(class_names), {"all": split})
