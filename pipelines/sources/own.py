"""Splits of a caller's own data: arrays and encoded images in memory, files, `tf.data` datasets."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.checks import check_at_least, first_few
from vgg_keras.pipelines.errors import ArgumentError, SourceError
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.sources.listing import list_files, text_of_path
from vgg_keras.pipelines.sources.orders import IndexedSplit, StreamedSplit
from vgg_keras.pipelines.sources.packed import PackedStrings
from vgg_keras.pipelines.splits import Split

_NAME = "own"
_RULE = (
    "images must be a uint8 RGB array (N, H, W, 3) of values from 0 to 255, or a list of such "
    "arrays (H, W, 3)"
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ArraySplit(IndexedSplit):
    """Images in memory: uint8 arrays `(H, W, 3)`, or encoded images.

    `read` gives an array as PNG, which loses nothing, so that everything that reads a split can
    read this one. Images stay in Python and never become constants of a graph.

    Attributes:
        name: name of the split.
        images: all images, by number.
        numbers: numbers of the images of this split, int64 `(N,)`.
        labels: int64 `(N,)`, -1 if unknown.
        class_names: names of the classes.
    """

    name: str
    images: np.ndarray | Sequence[np.ndarray] | Sequence[bytes]
    numbers: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] | None = None

    _PER_IMAGE = ("numbers", "labels")

    def _columns(self) -> Mapping[str, np.ndarray | PackedStrings]:
        return {"number": self.numbers}

    def read(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        is_encoded = isinstance(self.images[0], bytes)
        image = tf.numpy_function(
            lambda number: self.images[int(number)],
            [example["number"]],
            tf.string if is_encoded else tf.uint8,
            stateful=False,
        )
        if is_encoded:
            return tf.ensure_shape(image, ())
        return tf.io.encode_png(tf.ensure_shape(image, (None, None, 3)), compression=1)

    def names_of(self, indices: Iterable[int]) -> list[str]:
        return [f"image {self.numbers[i]}" for i in indices]

    def identities(self) -> list[str]:
        # "image 0" names another image in another split, so contents identify images in memory.
        return [_digest(self.images[i]) for i in self.numbers]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DatasetSplit(StreamedSplit):
    """Elements (encoded image, label) of a `tf.data.Dataset` whose order is fixed.

    Attributes:
        name: name of the split.
        dataset: the dataset.
        labels: labels of all its elements, int64.
        class_names: names of the classes.
        ignored: see `StreamedSplit`.
    """

    name: str
    dataset: tf.data.Dataset
    labels: np.ndarray
    class_names: tuple[str, ...] | None = None
    ignored: tuple[int, ...] = ()

    def _size(self) -> int:
        return len(self.labels)

    def _elements(self) -> tf.data.Dataset:
        return self.dataset

    def _example(self, index: tf.Tensor, element: tuple) -> dict[str, tf.Tensor]:
        image, label = element
        return {"index": index, "label": tf.cast(label, tf.int64), "image": image}

    def _names(self) -> Sequence[str]:
        return [f"image {i}" for i in self._kept(range(self._size()))]

    def identities(self) -> list[str]:
        images = self.in_order().map(self.read)
        return [_digest(image) for image in images.as_numpy_iterator()]

    def all_labels(self) -> np.ndarray:
        return np.array(self._kept(self.labels), np.int64)


def _digest(image: bytes | np.ndarray) -> str:
    """A hash of an image's shape and contents."""
    header = "" if isinstance(image, bytes) else f"{image.shape}"
    content = image if isinstance(image, bytes) else np.ascontiguousarray(image).tobytes()
    return hashlib.blake2b(header.encode() + content, digest_size=16).hexdigest()


def from_arrays(images: Any, labels: Any = None, class_names: Sequence[str] | None = None) -> Split:
    """See `Split.from_arrays`."""
    images = _checked_arrays(images)
    checked, names = _checked_labels(labels, len(images), class_names)
    return ArraySplit(_NAME, images, np.arange(len(images)), checked, names)


def from_paths(
    paths: Sequence[str | os.PathLike],
    labels: Any = None,
    class_names: Sequence[str] | None = None,
) -> Split:
    """See `Split.from_paths`."""
    files = [os.fspath(path) for path in paths]
    if not files:
        raise SourceError("No image is given.")
    folders = [file for file in files if Path(file).is_dir()]
    if folders:
        raise SourceError(
            f"Images must be given as files, those of a folder as {Path(folders[0]) / '*'}. "
            f"Received a folder: {first_few(folders)}"
        )
    missing = [file for file in files if not Path(file).is_file()]
    special = [file for file in missing if Path(file).exists()]
    if special:
        raise SourceError(f"Images must be regular files. Received: {first_few(special)}")
    if missing:
        raise SourceError(f"There is no such file: {first_few(missing)}")
    checked, names = _checked_labels(labels, len(files), class_names)
    return FolderSplit(_NAME, PackedStrings.of(files), checked, class_names=names)


def from_dataset(
    dataset: tf.data.Dataset, count: int, class_names: Sequence[str] | None = None
) -> Split:
    """See `Split.from_dataset`."""
    check_at_least("count", count, 1)
    spec = dataset.element_spec
    if not (
        isinstance(spec, tuple)
        and len(spec) == 2
        and all(isinstance(part, tf.TensorSpec) and part.shape.rank == 0 for part in spec)
        and spec[0].dtype == tf.string
        and spec[1].dtype.is_integer
    ):
        raise ArgumentError(
            "dataset must have elements (encoded image, scalar string; label, scalar integer). "
            f"Received: {spec}",
            "dataset",
        )
    # One element more than there should be, so that an infinite dataset ends too.
    labels = list(dataset.take(count + 1).map(lambda _, label: label).as_numpy_iterator())
    if len(labels) != count:
        raise ArgumentError(
            f"count must be the number of elements of the dataset. Received: count={count}, but "
            f"the dataset has {'more' if len(labels) > count else len(labels)}",
            "count",
        )
    checked, names = _checked_labels(np.array(labels), count, class_names)
    return DatasetSplit(_NAME, dataset, checked, names)


def as_split(images: Any) -> Split:
    """Makes a split of unlabelled images from whatever form the images have.

    ```python
    split = as_split("cat.jpg")
    split = as_split(np.zeros((4, 64, 64, 3), np.uint8))
    ```

    Args:
        images: a path or several, a folder, whose files are all taken, the bytes of an encoded
            image or several, a uint8 RGB array `(H, W, 3)` or `(N, H, W, 3)`, or a list of arrays
            `(H, W, 3)`. An RGB image of Pillow counts as an array. The formats of files and bytes
            (JPEG, PNG, GIF, BMP) are recognised by content. A split is returned as it is.

    Raises:
        SourceError: there is no image, or a file is missing or a folder. The message names it.
        ArgumentError: images of two forms, or arrays that are not uint8 RGB.
    """
    if isinstance(images, Split):
        return images
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        images = _files_in(images)
    if isinstance(images, str | os.PathLike | bytes) or not isinstance(images, Iterable):
        images = [images]  # one path, one file, or one image of Pillow
    if getattr(images, "ndim", None) == 3:
        images = images[None]
    if getattr(images, "ndim", 1) == 1:  # a list, or an array of paths
        images = list(images)
        forms = {_form_of(image) for image in images}
        if len(forms) > 1:
            raise ArgumentError(
                f"images must all have the same form. Received: {' and '.join(sorted(forms))}",
                "images",
            )
        if forms <= {"paths"}:
            return from_paths(images)
        if forms == {"bytes"}:
            unlabelled, _ = _checked_labels(None, len(images), None)
            return ArraySplit(_NAME, images, np.arange(len(images)), unlabelled)
    return from_arrays(images)


def _files_in(folder: str | os.PathLike) -> list[str]:
    """The paths of all files in a folder and its folders, sorted; hidden ones are ignored."""
    files = [os.path.join(folder, file) for file in list_files(folder)]
    if not files:
        raise SourceError(f"The folder {text_of_path(folder)} holds no images.")
    return files


def _form_of(image: Any) -> str:
    if isinstance(image, str | os.PathLike):
        return "paths"
    return "bytes" if isinstance(image, bytes) else "arrays"


def _checked_arrays(images: Any) -> np.ndarray | list[np.ndarray]:
    """The images, not copied, if all are uint8 `(H, W, 3)`."""
    arrays: np.ndarray | list[np.ndarray]
    if getattr(images, "ndim", 1) == 1:
        arrays = [np.asarray(image) for image in images]
        for i, array in enumerate(arrays):
            _check_array(array, f"for image {i}", rank=3)
    else:
        arrays = np.asarray(images)
        _check_array(arrays, "", rank=4)
    if not len(arrays):
        raise ArgumentError(f"{_RULE}. Received: no image", "images")
    return arrays


def _check_array(array: Any, which: str, rank: int) -> None:
    if (
        array.dtype == np.uint8
        and array.ndim == rank
        and array.shape[-1] == 3
        and 0 not in array.shape[-3:]
    ):
        return
    advice = ""
    if array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1:
        advice = ". Values from 0 to 1 become uint8 by (255 * images).round().astype('uint8')"
    raise ArgumentError(
        f"{_RULE}. Received: {array.dtype} of shape {array.shape} {which}".rstrip() + advice,
        "images",
    )


def _checked_labels(
    labels: Any, count: int, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as int64 `(count,)`, -1 if there are none; and the names of the classes."""
    names = None if class_names is None else tuple(class_names)
    if labels is None:
        return np.full(count, -1, np.int64), names
    values = np.asarray(labels)
    if values.ndim == 2 and values.shape[1] == 1:  # as keras.datasets gives them
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ArgumentError(
            f"labels must be integers, one for each image. Received: {values.dtype} of shape "
            f"{values.shape}",
            "labels",
        )
    if len(values) != count:
        raise ArgumentError(
            f"labels must be as many as the images, {count}. Received: {len(values)}", "labels"
        )
    if names is None:
        names = tuple(map(str, range(int(values.max()) + 1)))
    wrong = np.flatnonzero((values < 0) | (values >= len(names)))
    if len(wrong):
        i = wrong[0]
        limit = f"from 0 to {len(names) - 1}" if names else "0 or more"
        raise ArgumentError(
            f"labels must be {limit}. Received: {values[i]} for image {i}", "labels"
        )
    return values.astype(np.int64), names
