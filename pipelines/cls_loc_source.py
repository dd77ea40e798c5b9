"""ILSVRC-2012 CLS-LOC as it comes from the archives: pictures, and an XML file of boxes for each.

    DIR/Data/CLS-LOC/train/WNID/NAME.JPEG     DIR/Annotations/CLS-LOC/train/WNID/NAME.xml
    DIR/Data/CLS-LOC/val/NAME.JPEG            DIR/Annotations/CLS-LOC/val/NAME.xml

The files are fetched by hand: the archive of Kaggle's "ImageNet Object Localization Challenge" has
just these folders. About half a million of the training pictures have boxes; the others are left
out.
"""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import TRAIN, VALIDATION, FolderSplit, Source

_DATA, _ANNOTATIONS = Path("Data/CLS-LOC"), Path("Annotations/CLS-LOC")


def open_cls_loc(spec: str, root: Path) -> Source:
    """The pictures that have an annotation; of the validation set its class too.

    Raises:
        SourceError: the folders are not there, or a validation picture has no annotation.
    """
    for part in [kind / name for kind in (_DATA, _ANNOTATIONS) for name in (TRAIN, VALIDATION)]:
        if not (root / part).is_dir():
            raise SourceError(
                f"{spec} needs the folder {root / part}. It comes with the archive of Kaggle's "
                f"'ImageNet Object Localization Challenge', which is fetched by hand."
            )
    train = sorted((root / _DATA / TRAIN).glob("*/*"))
    train = [path for path in train if annotation_of(path).is_file()]
    class_names = sorted({path.parent.name for path in train})
    labels = {name: i for i, name in enumerate(class_names)}
    validation = sorted(path for path in (root / _DATA / VALIDATION).iterdir() if path.is_file())
    splits = {
        TRAIN: _split(TRAIN, root, train, [labels[path.parent.name] for path in train]),
        VALIDATION: _split(
            VALIDATION, root, validation, [labels.get(_class_of(path), -1) for path in validation]
        ),
    }
    return Source(spec, tuple(class_names), splits)


def annotation_of(picture: Path) -> Path:
    """The XML file of a picture."""
    parts = list(picture.parts)
    place = len(parts) - 1 - parts[::-1].index("Data")
    parts[place] = "Annotations"
    return Path(*parts).with_suffix(".xml")


def objects_of(annotation: Path, class_name: str | None = None) -> list[list[float]]:
    """Boxes of the objects of a class, as they are stated; NaN for what is no number.

    Raises:
        SourceError: the file is no XML.
    """
    return [box for name, box in _objects(annotation) if name == class_name]


def _objects(annotation: Path) -> list[tuple[str | None, list[float]]]:
    try:
        objects = ElementTree.parse(annotation).getroot().findall("object")
    except (ElementTree.ParseError, OSError) as error:
        raise SourceError(f"{annotation} cannot be read: {error}") from error
    sides = ("xmin", "ymin", "xmax", "ymax")
    return [
        (found.findtext("name"), [number(found.findtext(f"bndbox/{side}")) for side in sides])
        for found in objects
    ]


def number(text: str | None) -> float:
    """A number as it is written; NaN for what is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _class_of(picture: Path) -> str:
    found = _objects(annotation_of(picture))
    return (found[0][0] or "") if found else ""


def _split(name: str, root: Path, paths: list[Path], labels: list[int]) -> FolderSplit:
    files = np.array([os.fspath(path) for path in paths])
    return FolderSplit(name, files, np.array(labels, np.int64), str(root))
