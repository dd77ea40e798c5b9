"""Image files in class folders, read in place."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.box_sources import BOXES_FILE, read_boxes_file
from vgg_keras.pipelines.checks import first_few, normal_form
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.files import file_state
from vgg_keras.pipelines.sources.label_files import (
    LABEL_FILES,
    find_label_file,
    labelled_images,
    read_labels,
)
from vgg_keras.pipelines.sources.listing import list_files, list_folders, text_of_path
from vgg_keras.pipelines.sources.orders import IndexedSplit
from vgg_keras.pipelines.sources.packed import PackedStrings
from vgg_keras.pipelines.splits import (
    TRAIN,
    VALIDATION,
    VALIDATION_NAMES,
    Source,
    Split,
    StatedBoxes,
)

log = logging.getLogger(__name__)

_IMAGES = "images"  # Tiny ImageNet's folder inside each class folder, and inside val


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FolderSplit(IndexedSplit):
    """Image files that are read in place. Their formats are recognised by content, not by name.

    `tfds.ImageFolder` reads such folders too. It does not read by index, which a full shuffle by
    seed and the continuation of a killed run need; it does not read a single split; and it ignores
    an empty class without a message.

    Attributes:
        name: name of the split.
        paths: the files, with surrogates for bytes that are not UTF-8. Any sequence or array of str
            may be given; it is packed.
        labels: int64 `(N,)`, -1 if unknown.
        root: folder of the data set; "" if the files have none.
        class_names: names of the classes.
        origin: see `Split`.
    """

    name: str
    paths: PackedStrings
    labels: np.ndarray
    root: str = ""
    class_names: tuple[str, ...] | None = None
    origin: str = dataclasses.field(default="", kw_only=True)

    _PER_IMAGE: ClassVar[tuple[str, ...]] = ("paths", "labels")

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", PackedStrings.of(self.paths))  # splits are frozen

    def _columns(self) -> Mapping[str, np.ndarray | PackedStrings]:
        return {"path": self.paths}

    def read(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.io.read_file(example["path"])

    def names_of(self, indices: Iterable[int]) -> list[str]:
        return [text_of_path(self.paths[i]) for i in indices]

    def ids_of(self, indices: Iterable[int]) -> list[str]:
        root = text_of_path(os.path.join(self.root, "")) if self.root else ""
        return [name.removeprefix(root) for name in self.names_of(indices)]

    def identities(self) -> list[str]:
        names = self.names_of(range(len(self)))
        return [
            f"{os.path.abspath(name)} {state}"
            for name, state in zip(names, self._states(), strict=True)
        ]

    def _states(self) -> Iterable[str]:
        """The state of the file that holds each image."""
        return map(file_state, self.paths)

    def selected(self, is_selected: np.ndarray, name: str) -> Split:
        selected: Any = super().selected(is_selected, name)
        return dataclasses.replace(selected, origin=self.origin or self.name)

    def stated_boxes(self) -> StatedBoxes:
        if not self.root:
            return super().stated_boxes()
        return StatedBoxes(read_boxes_file(Path(self.root) / BOXES_FILE, self), True)


def open_folder(spec: str, location: str, **unused: object) -> Source:
    """Opens class folders: `train` and `val`, or a single split named `all`.

    `validation` and `valid` are read as `val`, and the location may choose other folders, as in
    `DIR?train=Training&val=Testing`. A class folder may hold further folders, whose
    images are of its class. Validation images may be in no class folders if a label file states
    their classes.

    Raises:
        SourceError: a folder is missing or empty, the splits have different classes, or a label
            file does not fit the images.
    """
    root, chosen = _chosen_folders(spec, location)
    if not root.is_dir():
        raise SourceError(f"There is no folder {text_of_path(root)}.")
    folders = _split_folders(root, chosen)
    flat = _flat_validation(root, folders)
    classes = {name: _class_folders(folder) for name, folder in folders.items() if name not in flat}
    if len(classes) == 2 and set(classes[TRAIN]) != set(classes[VALIDATION]):
        only = [
            f"only in {folders[name].name}: {', '.join(map(repr, names))}"
            for name, other in ((TRAIN, VALIDATION), (VALIDATION, TRAIN))
            if (names := sorted(set(classes[name]) - set(classes[other])))
        ]
        raise SourceError(
            f"{text_of_path(root)}: train and val must have the same classes; {'; '.join(only)}."
        )
    class_names = tuple(next(iter(classes.values())))
    splits = {
        name: _list_labelled(name, folder, class_names, flat[name], root)
        if name in flat
        else _list_split(name, folder, class_names, classes[name], root)
        for name, folder in folders.items()
    }
    return Source(spec, class_names, splits, _advice(root, folders))


def _chosen_folders(spec: str, location: str) -> tuple[Path, dict[str, str]]:
    """The folder of the data set, and those of its splits that the location chooses."""
    root = Path(location).expanduser().absolute()
    name, mark, query = location.rpartition("?")
    if not mark or root.is_dir():
        return root, {}
    root, parts = Path(name).expanduser().absolute(), query.split("&")
    chosen = {part.partition("=")[0]: part.partition("=")[2] for part in parts}
    if len(chosen) < len(parts) or not chosen.keys() <= {TRAIN, VALIDATION}:
        raise SourceError(
            f"Folders of splits must be chosen as folder:DIR?train=FOLDER&val=FOLDER. Received: "
            f"{spec!r}"
        )
    for split, folder in chosen.items():
        if not folder or not (root / folder).is_dir():
            raise SourceError(
                f"{split} must be a folder in {text_of_path(root)}, or for val, a fraction above 0 "
                f"and below 1. Received: {folder!a} in {spec!r}"
            )
    return root, chosen


def _split_folders(root: Path, chosen: Mapping[str, str]) -> dict[str, Path]:
    """The folder of each split. A class of flat class folders may be named like a split."""
    names = list_folders(root)
    found = {
        split: root / chosen.get(split, next(filter(names.__contains__, candidates), ""))
        for split, candidates in ((TRAIN, (TRAIN,)), (VALIDATION, VALIDATION_NAMES))
        if split in chosen or set(candidates) & set(names)
    }
    if chosen:
        return found
    classes = set(names) - {TRAIN, *VALIDATION_NAMES, "test"}
    is_class = len(found) == 1 and classes and not any(map(list_folders, found.values()))
    if not found or is_class:
        return {"all": root}
    if ignored := _others(root, found):
        log.info("%s: ignored beside the splits: %s", text_of_path(root), _first_texts(ignored))
    return found


def _others(root: Path, folders: Mapping[str, Path]) -> list[str]:
    """Names of the folders beside those of the splits."""
    return [name for name in list_folders(root) if root / name not in folders.values()]


def _advice(root: Path, folders: Mapping[str, Path]) -> str:
    """Which folders may be a split that is missing; "" if the folders in `root` are classes."""
    others = [] if root in folders.values() else _others(root, folders)
    if not others:
        return ""
    return (
        f"{text_of_path(root)} also holds {_first_texts(others)}: folder:DIR?val=NAME takes such a "
        f"folder as val, and folder:DIR/NAME opens it alone, as the split all."
    )


def _flat_validation(root: Path, folders: Mapping[str, Path]) -> dict[str, Path]:
    """The label file of validation images in no class folders, by `val`; else nothing.

    A label file beside class folders is ignored.
    """
    if len(folders) < 2:
        return {}
    train, validation = folders[TRAIN], folders[VALIDATION]
    inside = list_folders(validation)
    if set(_class_folders(train)) & {normal_form(text_of_path(name)) for name in inside}:
        return {}
    label_file = find_label_file(root, validation)
    if label_file:
        return {VALIDATION: label_file}
    if set(inside) <= {_IMAGES}:
        found = _first_texts(inside or list_files(validation)) or "nothing"
        raise SourceError(
            f"{text_of_path(validation)} holds no class folders. It must hold the class folders of "
            f"train, or one of the label files {LABEL_FILES} must be in it or in "
            f"{text_of_path(root)}. It holds: {found}."
        )
    return {}


def _class_folders(folder: Path) -> dict[str, str]:
    """The folder of each class. Names are in NFC, since systems differ in their Unicode forms."""
    folders: dict[str, str] = {}
    for name in list_folders(folder):
        class_name = normal_form(text_of_path(name))
        if class_name in folders:
            raise SourceError(
                f"{text_of_path(folder)} must not hold two class folders of the same name in two "
                f"Unicode forms. Received: {folders[class_name]!a} and {name!a}"
            )
        folders[class_name] = name
    if not folders:
        found = _first_texts(list_files(folder)) or "nothing"
        raise SourceError(
            f"{text_of_path(folder)} holds no class folders. It must hold one folder per class. "
            f"It holds: {found}."
        )
    return folders


def _list_split(
    name: str, folder: Path, class_names: tuple[str, ...], classes: Mapping[str, str], root: Path
) -> FolderSplit:
    files: dict[str, list[str]] = {classes[class_name]: [] for class_name in class_names}
    beside: list[str] = []
    for file in list_files(folder):
        first, separator, _ = file.partition("/")
        (files[first] if separator else beside).append(file)
    is_tiny = name != "all" and all(
        file.startswith(f"{class_folder}/{_IMAGES}/") or file == _boxes_of(class_folder)
        for class_folder, found in files.items()
        for file in found
    )
    for class_folder, found in files.items():
        is_nested = not is_tiny and all(file.count("/") > 1 for file in found)
        if _boxes_of(class_folder) in found:
            found.remove(_boxes_of(class_folder))
            beside.append(_boxes_of(class_folder))
        if is_nested or not found:
            raise _without_images(name, folder / class_folder)
    ignored = [file for file in beside if file != BOXES_FILE]
    if ignored:
        log.info(
            "%s: ignored beside the class folders: %s", text_of_path(folder), _first_texts(ignored)
        )
    return FolderSplit(
        name,
        PackedStrings.of(f"{folder}/{file}" for found in files.values() for file in found),
        np.repeat(np.arange(len(files)), [len(found) for found in files.values()]),
        str(root),
        class_names,
    )


def _list_labelled(
    name: str, folder: Path, class_names: tuple[str, ...], label_file: Path, root: Path
) -> FolderSplit:
    labels = read_labels(label_file, class_names)
    files, labels_of_files = labelled_images(folder, list_files(folder), labels, label_file)
    log.info("%s: classes from %s", text_of_path(folder), text_of_path(label_file))
    paths = PackedStrings.of(f"{folder}/{file}" for file in files)
    return FolderSplit(name, paths, labels_of_files, str(root), class_names)


def _boxes_of(class_folder: str) -> str:
    """Tiny ImageNet's file of boxes in a class folder, which is no image."""
    return f"{class_folder}/{class_folder}_boxes.txt"


def _without_images(name: str, class_folder: Path) -> SourceError:
    """The error about a class folder that holds no images itself."""
    inner = list_folders(class_folder)
    found = f"only folders: {_first_texts(inner)}" if inner else "no images"
    if name == "all":
        root = class_folder.parent
        return SourceError(
            f"{text_of_path(root)} holds no folders train and val, so each folder in it is a "
            f"class, but {text_of_path(class_folder.name)} holds {found}. Remove it, or give the "
            f"folder that holds the class folders. folder:DIR?train=FOLDER&val=FOLDER takes "
            f"folders of any name as the splits."
        )
    return SourceError(
        f"The class folder {text_of_path(class_folder)} holds {found}. A class folder "
        f"must hold images itself: fill it or remove it."
    )


def _first_texts(names: Sequence[str]) -> str:
    return first_few([text_of_path(name) for name in names])
