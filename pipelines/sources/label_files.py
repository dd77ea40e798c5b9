"""Validation images in no class folders, whose classes a label file states.

A label file is known by its name:

- `val_annotations.txt` of Tiny ImageNet: NAME, CLASS and a box, between tabs;
- `LOC_val_solution.csv` of Kaggle's "ImageNet Object Localization Challenge": NAME,CLASS BOX;
- `val.txt`, as Caffe has it for ILSVRC: NAME LABEL.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vgg_keras.pipelines.checks import first_few, normal_form
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.listing import text_of_path

log = logging.getLogger(__name__)

# A line of each file: the name of an image, and its class. Those that state names come first.
_LINES = {
    "val_annotations.txt": re.compile(r"([^\t]+)\t([^\t]+)(?:\t.*)?"),
    "LOC_val_solution.csv": re.compile(r"([^,]+),\s*(\S+)(?:\s.*)?"),
    "val.txt": re.compile(r"(.+?)\s+(\S+)"),
}
_HEADER = ("ImageId", "PredictionString")
_KAGGLE = ("Data", "CLS-LOC")  # the last folders of Kaggle's images, three below its label file

LABEL_FILES = ", ".join(_LINES)


def find_label_file(root: Path, validation: Path) -> Path | None:
    """The label file in the folder of the validation images, or in that of the data set."""
    folders = [validation, root]
    if root.parts[-2:] == _KAGGLE:
        folders.extend(root.parents[2:3])
    return next(
        (folder / name for name in _LINES for folder in folders if (folder / name).is_file()), None
    )


def read_labels(file: Path, class_names: Sequence[str]) -> dict[str, int]:
    """Labels of images by file name, without folders, in NFC.

    The file states each class by its name, or by its index in the sorted class names, from 0.

    Raises:
        SourceError: a line has another form, names another class, or contradicts an earlier one.
    """
    stated: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(_read(file).splitlines(), 1):
        found = _LINES[file.name].fullmatch(line.strip())
        if not found and line.strip():
            raise SourceError(
                f"{text_of_path(file)}, line {number}, must have the name of an image and its "
                f"class. Received: {line!a}"
            )
        if not found or found.groups() == _HEADER:
            continue
        name = normal_form(os.path.basename(found[1]))
        class_name = normal_form(found[2])
        first_class, first = stated.setdefault(name, (class_name, number))
        if first_class != class_name:
            raise SourceError(
                f"{text_of_path(file)} must state one class for an image. Received: {name!a} in "
                f"the lines {first} and {number}"
            )
    names = {class_name: i for i, class_name in enumerate(class_names)}
    indices = {str(i): i for i in range(len(class_names))}
    is_by_name = any(class_name in names for class_name, _ in stated.values())
    labels = names if is_by_name else indices
    for name, (class_name, number) in stated.items():
        if class_name not in labels:
            raise SourceError(
                f"{text_of_path(file)}, line {number}: the class of {name!a} must be the name of a "
                f"class folder of train, or its index in their sorted names, from 0 to "
                f"{len(class_names) - 1}. Received: {class_name!a}"
            )
    return {name: labels[class_name] for name, (class_name, _) in stated.items()}


def labelled_images(
    folder: Path, files: Iterable[str], labels: Mapping[str, int], label_file: Path
) -> tuple[list[str], np.ndarray]:
    """The images of a folder and their labels, int64 `(N,)`, in the order of label and path.

    A label file may name an image without its suffix. Files with other suffixes than the labelled
    images are ignored.

    Args:
        folder: where the images are.
        files: the files in it, relative to it.
        labels: from `read_labels`.
        label_file: where they were read.

    Raises:
        SourceError: no image has a label, or one has none.
    """
    found: dict[str, str] = {}
    others = []
    for file in files:
        name = normal_form(os.path.basename(file))
        key = name if name in labels else os.path.splitext(name)[0]
        if key in labels:
            found[file] = key
        else:
            others.append(file)
    suffixes = {os.path.splitext(file)[1] for file in found}
    missing = [file for file in others if os.path.splitext(file)[1] in suffixes]
    if missing or not found:
        raise SourceError(
            f"{text_of_path(label_file)} must state the class of each image in "
            f"{text_of_path(folder)}. Received: {len(missing or others)} files without a class, "
            f"{_first_texts(missing or others)}"
        )
    others = [file for file in others if not label_file.samefile(folder / file)]
    if others:
        log.info("%s: ignored, without a class: %s", text_of_path(folder), _first_texts(others))
    unused = len(labels) - len(set(found.values()))
    if unused:
        log.warning("%s names %d images that do not exist", text_of_path(label_file), unused)
    ordered = sorted(found, key=lambda file: (labels[found[file]], file))
    return ordered, np.array([labels[found[file]] for file in ordered], np.int64)


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise SourceError(f"{text_of_path(file)} cannot be read: {error.strerror}.") from error


def _first_texts(files: Sequence[str]) -> str:
    return first_few([text_of_path(file) for file in files]) or "no file"
