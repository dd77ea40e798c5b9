"""ILSVRC-2012 CLS-LOC as it is distributed: images, and one XML file of object boxes for each.

    DIR/Data/CLS-LOC/train/WNID/NAME.JPEG     DIR/Annotations/CLS-LOC/train/WNID/NAME.xml
    DIR/Data/CLS-LOC/val/NAME.JPEG            DIR/Annotations/CLS-LOC/val/NAME.xml

The user downloads the files: the archive of Kaggle's "ImageNet Object Localization Challenge" has
exactly these folders. About half a million of the training images have boxes; the others are
ignored. Validation images may be sorted into class folders, `val/WNID/NAME.JPEG`, as many scripts
do; their annotations may be in such folders too.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vgg_keras.pipelines.checks import first_few, normal_form
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.annotations import annotated_objects, stated_box
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.sources.listing import list_files, text_of_path
from vgg_keras.pipelines.sources.packed import PackedStrings
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source, StatedBoxes

log = logging.getLogger(__name__)

_DATA, _ANNOTATIONS = Path("Data/CLS-LOC"), Path("Annotations/CLS-LOC")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ClsLocSplit(FolderSplit):
    """Images with annotation files. The boxes of an image are those of its class.

    Attributes:
        annotations: the annotation file of each image, by the path of the image.
    """

    annotations: Mapping[str, str] = dataclasses.field(kw_only=True)

    def stated_boxes(self) -> StatedBoxes:
        names = self.class_names or ()
        classes = [names[label] if label >= 0 else None for label in self.labels]
        boxes = [
            [box for name, box in _objects(self.annotations[path]) if name == class_name]
            for path, class_name in zip(self.paths, classes, strict=True)
        ]
        return StatedBoxes(boxes, True)


def open_cls_loc(spec: str, location: str, **unused: object) -> Source:
    """Opens the images that have an annotation.

    The class of an image is its folder. If a validation image is in no class folder, the first
    object of its annotation states the class.

    Raises:
        SourceError: a folder is missing or empty, or a validation image has no annotation.
    """
    root = Path(location).expanduser().absolute()
    for part in [kind / name for kind in (_DATA, _ANNOTATIONS) for name in (TRAIN, VALIDATION)]:
        if not (root / part).is_dir():
            raise SourceError(
                f"{spec} needs the folder {root / part}. It is in the archive of Kaggle's "
                f"'ImageNet Object Localization Challenge', which you must download yourself."
            )
    files = {name: _annotated_files(root, name) for name in (TRAIN, VALIDATION)}
    class_names = tuple(sorted({_folder_of(file) for file in files[TRAIN]}))
    splits = {
        name: _open_split(name, root, class_names, of_split) for name, of_split in files.items()
    }
    return Source(spec, class_names, splits)


def _open_split(
    name: str, root: Path, class_names: tuple[str, ...], files: Mapping[str, str]
) -> ClsLocSplit:
    annotations = {
        os.path.join(root, _DATA, name, file): os.path.join(root, _ANNOTATIONS, name, annotation)
        for file, annotation in files.items()
    }
    labels = {class_name: i for i, class_name in enumerate(class_names)}
    return ClsLocSplit(
        name,
        PackedStrings.of(annotations),
        np.array(
            [
                labels[_folder_of(file)]
                if _folder_of(file) in labels
                else labels.get(_first_class(annotation), -1)
                for file, annotation in zip(files, annotations.values(), strict=True)
            ],
            np.int64,
        ),
        str(root),
        class_names,
        annotations=annotations,
    )


def _annotated_files(root: Path, split: str) -> dict[str, str]:
    """The annotation file of each image of a split, in the order of the images.

    Both are relative to the split's folders. Training images must be in class folders.

    Raises:
        SourceError: a folder is empty or not unpacked, or a validation image has no annotation.
    """
    images, annotations = root / _DATA / split, root / _ANNOTATIONS / split
    listed = list_files(annotations)
    stems = {file.removesuffix(".xml"): file for file in listed if file.endswith(".xml")}
    if not stems:
        raise _unusable(f"{annotations} must hold annotations, NAME.xml", listed)
    listed = list_files(images)
    found, others = {}, []
    for file in sorted(listed, key=lambda file: file.split("/")):
        stem, _ = os.path.splitext(file)
        annotation = stems.get(stem, stems.get(os.path.basename(stem)))
        if annotation is None or (split == TRAIN and not _folder_of(file)):
            others.append(text_of_path(file))
        else:
            found[file] = annotation
    if not found:
        rule = f"{images} must hold images that have annotations in {annotations}"
        raise _unusable(rule, listed, list(stems.values()))
    suffixes = tuple({os.path.splitext(file)[1] for file in found})
    missing = [file for file in others if file.endswith(suffixes)]
    if missing and split == VALIDATION:
        raise SourceError(
            f"Each image in {images} must have an annotation in {annotations}. Unpack all "
            f"annotations, or remove the images without one. Received: {len(missing)} of "
            f"{len(listed)} without one, {first_few(missing)}"
        )
    if others:
        log.info(
            "%s: %d files without annotation ignored: %s", images, len(others), first_few(others)
        )
    return found


def _unusable(rule: str, *listings: list[str]) -> SourceError:
    """The error about folders that hold nothing of use, with what they hold."""
    found = [first_few([text_of_path(file) for file in files]) or "no file" for files in listings]
    return SourceError(f"{rule}. Unpack any archives. Received: {' and '.join(found)}")


def _objects(file: str) -> list[tuple[str, list[float]]]:
    """Class name and box of each object of an annotation file."""
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise SourceError(f"{text_of_path(file)} cannot be read: {error.strerror}") from error
    return [
        (normal_form(found.findtext("name") or ""), stated_box(found))
        for found in annotated_objects(content, file)
    ]


def _folder_of(file: str) -> str:
    """Name of the class folder of an image; "" if it is in none."""
    folder, is_inside, _ = file.partition("/")
    return normal_form(text_of_path(folder)) if is_inside else ""


def _first_class(annotation: str) -> str:
    """Class name of an image's first object; "" if there is none."""
    found = _objects(annotation)
    return found[0][0] if found else ""
