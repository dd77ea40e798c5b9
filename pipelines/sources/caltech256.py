"""Caltech-256 as it is distributed: 256_ObjectCategories.tar, packed or unpacked.

    256_ObjectCategories/001.ak47/001_0001.jpg ... 257.clutter/257_0827.jpg

The 257th class, clutter, is one of the paper's 257 (§B). Some class folders hold other files, such
as `198.spider/RENAME2` and `056.dog/greg/`. Files that are not named like an image are ignored.
Images may end in `.JPG` and `.jpeg` too.
"""

from __future__ import annotations

import logging
import os
import re

import numpy as np

from vgg_keras.pipelines.checks import first_few
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.archives import Archive, ArchiveSplit
from vgg_keras.pipelines.sources.listing import text_of_path
from vgg_keras.pipelines.sources.packed import PackedStrings
from vgg_keras.pipelines.splits import Source

log = logging.getLogger(__name__)

_EXPECTED = "256_ObjectCategories.tar of Caltech-256 (Griffin et al., 2007), or its folder"
_IMAGE = re.compile(r"(?:.*/)?(?P<folder>\d{3}\.[^/]+)/\d{3}_\d{4}\.jpe?g", re.IGNORECASE)


def open_caltech256(
    spec: str, location: str, *, data_dir: str | os.PathLike | None, **unused: object
) -> Source:
    """Opens all images as one split, `all`. Classes are named as the folders are, 001.ak47.

    Raises:
        SourceError: there is no folder or archive, or it has other contents.
    """
    archive = Archive.open(location, _EXPECTED, data_dir)
    found = {name: match["folder"] for name in archive.files if (match := _IMAGE.fullmatch(name))}
    if not found:
        raise SourceError(
            f"{archive.root} holds no images like 001.ak47/001_0001.jpg. Expected: {_EXPECTED}."
        )
    others = [text_of_path(name) for name in archive.files if name not in found]
    if others:
        log.info("%s: %d other files ignored: %s", archive.root, len(others), first_few(others))
    folders, labels = np.unique(list(found.values()), return_inverse=True)
    class_names = tuple(map(text_of_path, folders.tolist()))
    split = ArchiveSplit(
        "all",
        PackedStrings.of(archive.path_of(name) for name in found),
        labels.astype(np.int64),
        str(archive.root),
        class_names,
        archive=archive,
    )
    return Source(spec, class_names, {"all": split})
