"""ILSVRC-2012 CLS-LOC as it is distributed: images, and one XML file of object boxes for each.

    DIR/Data/CLS-LOC/train/WNID/NAME.JPEG     DIR/Annotations/CLS-LOC/train/WNID/NAME.xml
    DIR/Data/CLS-LOC/val/NAME.JPEG            DIR/Annotations/CLS-LOC/val/NAME.xml

The user downloads the files: the archive of Kaggle's "ImageNet Object Localization Challenge" has
exactly these folders. About half a million of the training images have boxes; the others are
ignored.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from vgg_keras.pipelines.box_sources import float_or_nan
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source, StatedBoxes

_DATA, _ANNOTATIONS = Path("Data/CLS-LOC"), Path("Annotations/CLS-LOC")


@dataclasses.dataclass(frozen=True, eq=False)
class ClsLocSplit(FolderSplit):
    """Images with annotation files. The boxes of an image are those of its class."""

    def stated_boxes(self) -> StatedBoxes:
        names = self.class_names or ()
        classes = [names[label] if label >= 0 else None for label in self.labels]
        boxes = [
            [box for name, box in _objects(_annotation_of(Path(path))) if name == class_name]
            for path, class_name in zip(self.paths, classes, strict=True)
        ]
        return StatedBoxes(boxes, True)


def open_cls_loc(spec: str, location: str, **unused: object) -> Source:
    """Opens the images that have an annotation. The annotation states a validation image's class.

    Raises:
        SourceError: a folder is missing, or a validation image has no annotation.
    """
    root = Path(location).expanduser().absolute()
    for part in [kind / name for kind in (_DATA, _ANNOTATIONS) for name in (TRAIN, VALIDATION)]:
        if not (root / part).is_dir():
            raise SourceError(
                f"{spec} needs the folder {root / part}. It is in the archive of Kaggle's "
                f"'ImageNet Object Localization Challenge', which you must download yourself."
            )
    train = sorted((root / _DATA / TRAIN).glob("*/*"))
    train = [path for path in train if _annotation_of(path).is_file()]
    class_names = tuple(sorted({path.parent.name for path in train}))
    labels = {name: i for i, name in enumerate(class_names)}
    validation = sorted(path for path in (root / _DATA / VALIDATION).iterdir() if path.is_file())
    files = {
        TRAIN: (train, [labels[path.parent.name] for path in train]),
        VALIDATION: (validation, [labels.get(_class_of(path), -1) for path in validation]),
    }
    splits = {
        name: ClsLocSplit(
            name,
            np.array([os.fspath(path) for path in paths]),
            np.array(of_paths, np.int64),
            str(root),
            class_names,
        )
        for name, (paths, of_paths) in files.items()
    }
    return Source(spec, class_names, splits)


def _annotation_of(image: Path) -> Path:
    """The XML file of an image."""
    parts = list(image.parts)
    index = len(parts) - 1 - parts[::-1].index("Data")
    parts[index] = "Annotations"
    return Path(*parts).with_suffix(".xml")


def _objects(annotation: Path) -> list[tuple[str | None, list[float]]]:
    """Class name and box of each object, as stated; NaN for an edge that is not a number."""
    try:
        objects = ElementTree.parse(annotation).getroot().findall("object")
    except (ElementTree.ParseError, OSError) as error:
        raise SourceError(f"{annotation} cannot be read: {error}") from error
    sides = ("xmin", "ymin", "xmax", "ymax")
    return [
        (found.findtext("name"), [float_or_nan(found.findtext(f"bndbox/{side}")) for side in sides])
        for found in objects
    ]


def _class_of(image: Path) -> str:
    """Class name of an image's first object; "" if there is none."""
    found = _objects(_annotation_of(image))
    return (found[0][0] or "") if found else ""
