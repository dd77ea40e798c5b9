"""TensorFlow data sets (TFDS), whose images are passed on encoded."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.files import file_state
from vgg_keras.pipelines.sources.orders import StreamedSplit
from vgg_keras.pipelines.sources.tfds_features import (
    chosen_features,
    find_box_features,
    image_and_label,
)
from vgg_keras.pipelines.splits import (
    TRAIN,
    VALIDATION,
    VALIDATION_NAMES,
    Source,
    Split,
    StatedBoxes,
)

# Splits that people validate on; the first that a data set has is called `val`.
_VALIDATION_NAMES = (*VALIDATION_NAMES, "test")

# TFDS's name for the classes of an image that are not only difficult to see.
_CLEAR = "labels_no_difficult"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TfdsSplit(StreamedSplit):
    """A split of a prepared TFDS data set.

    Attributes:
        name: name of the split.
        builder: the data set.
        tfds_split: TFDS's name of the split.
        image_key, label_key: names of the features.
        class_names: names of the classes.
        ignored: see `StreamedSplit`.
    """

    name: str
    builder: tfds.core.DatasetBuilder
    tfds_split: str
    image_key: str
    label_key: str
    class_names: tuple[str, ...] | None = None
    ignored: tuple[int, ...] = ()

    def _size(self) -> int:
        return self.builder.info.splits[self.tfds_split].num_examples

    def _elements(self) -> tf.data.Dataset:
        return self.builder.as_dataset(
            split=self.tfds_split,
            decoders={self.image_key: tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(
                add_tfds_id=True, try_autocache=False, interleave_cycle_length=1
            ),
        )

    def _example(self, index: tf.Tensor, element: dict[str, Any]) -> dict[str, tf.Tensor]:
        return {"index": index, "label": self._label(element), "image": element[self.image_key]}

    def _label(self, element: dict[str, Any]) -> tf.Tensor:
        return tf.cast(element[self.label_key], tf.int64)

    @functools.cached_property
    def _index(self) -> tuple[list[str], np.ndarray]:
        """TFDS ids and labels in order. This reads all records once."""
        pairs = self._elements().map(lambda e: (e["tfds_id"], self._label(e)))
        kept = self._kept(pairs.as_numpy_iterator())
        # TFDS's own ids do not name their configuration and version.
        origin = self.builder.info.full_name
        names = [f"{origin}/{name.decode()}" for name, _ in kept]
        return names, np.array([label for _, label in kept], np.int64)

    def _names(self) -> Sequence[str]:
        return self._index[0]

    def identities(self) -> list[str]:
        # Without reading the records: the files, and the index in their order, which is fixed.
        files = self.builder.info.splits[self.tfds_split].filepaths
        states = [f"{os.path.abspath(file)} {file_state(file)}" for file in files]
        origin = hashlib.blake2b("\0".join(states).encode(), digest_size=16).hexdigest()
        return [f"{origin} {self.image_key} {i}" for i in self._kept(range(self._size()))]

    def all_labels(self) -> np.ndarray:
        return self._index[1]

    def stated_boxes(self) -> StatedBoxes:
        return self._boxes

    @functools.cached_property
    def _boxes(self) -> StatedBoxes:
        """Boxes as shares; if boxes have classes, those of the image's class. Reads all records."""
        outer, inner, has_labels = self._box_feature()

        def boxes(element: dict[str, Any]) -> tf.Tensor:
            values = element[outer][inner] if inner else element[outer][None]
            if has_labels:
                values = tf.boolean_mask(
                    values, tf.equal(element[outer]["label"], element[self.label_key])
                )
            return tf.gather(values, (1, 0, 3, 2), axis=-1)  # TFDS has y before x

        every = self._kept(self._elements().map(boxes).as_numpy_iterator())
        return StatedBoxes([values.tolist() for values in every], False)

    def _box_feature(self) -> tuple[str, str | None, bool]:
        """See `find_box_features`.

        Raises:
            SourceError: there is no such feature, or there are several.
        """
        features = self.builder.info.features
        found = find_box_features(features)
        if not found:
            raise SourceError(
                f"{self.builder.info.full_name} has no boxes. Its features: "
                f"{', '.join(sorted(features))}."
            )
        if len(found) > 1:
            names = [f"{outer}/{inner}" if inner else outer for outer, inner, _ in found]
            raise SourceError(
                f"{self.builder.info.full_name} must have one feature with boxes. Received: "
                f"{', '.join(sorted(names))}"
            )
        return found[0]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SeveralLabelsSplit(TfdsSplit):
    """A split whose images have a sequence of labels under `label_key`, such as TFDS's `voc`.

    If there are `labels_no_difficult` too, a class that is in the first sequence only is difficult
    in that image: all its objects are marked so.
    """

    def _label(self, element: dict[str, Any]) -> tf.Tensor:
        return tf.constant(-1, tf.int64)

    def all_targets(self, num_classes: int) -> np.ndarray:
        keys = (self.label_key, _CLEAR if _CLEAR in self.builder.info.features else self.label_key)

        def presence(element: dict[str, Any]) -> list[tf.Tensor]:
            each = [tf.one_hot(element[key], num_classes, dtype=tf.int8) for key in keys]
            return [tf.reduce_max(tf.pad(one, [[0, 1], [0, 0]]), 0) for one in each]

        rows = [
            np.where(is_clear, 1, np.where(is_present, 0, -1)).astype(np.int8)
            for is_present, is_clear in self._kept(
                self._elements().map(presence).as_numpy_iterator()
            )
        ]
        return np.array(rows, np.int8).reshape(len(self), num_classes)

    def stated_boxes(self) -> StatedBoxes:
        self._box_feature()  # data without boxes have an error of their own
        raise SourceError(
            f"{self.builder.info.full_name} has several labels an image, so no box is the image's "
            f"own."
        )


def open_tfds(
    spec: str,
    location: str,
    *,
    data_dir: str | os.PathLike | None,
    prepare: bool,
    several_labels: bool,
) -> Source:
    """Opens a data set of TFDS's catalogue, and prepares it if it is not prepared yet.

    Raises:
        SourceError: TFDS has no data set of that name; or it needs files that the user must
            download (the message names the site); or it does not have one image and one label an
            example, or several labels if these are accepted, and the spec does not choose.
    """
    name, _, query = location.partition("?")
    chosen = chosen_features(spec, query)
    try:
        builder = tfds.builder(name, data_dir=_expanded(data_dir))
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise SourceError(f"TFDS has no data set {name!r}: {error}") from error
    return _open_builder(spec, builder, prepare, several_labels, chosen)


def open_shapes(
    spec: str, location: str, *, data_dir: str | os.PathLike | None, prepare: bool, **unused: object
) -> Source:
    """Opens the embedded data set of drawn shapes, which is made on first use."""
    from vgg_keras.pipelines.sources.shapes import Shapes  # draws with Pillow

    return _open_builder(spec, Shapes(data_dir=_expanded(data_dir)), prepare)


def _expanded(data_dir: str | os.PathLike | None) -> str | None:
    return os.path.expanduser(data_dir) if data_dir is not None else None


def _open_builder(
    spec: str,
    builder: tfds.core.DatasetBuilder,
    prepare: bool,
    several_labels: bool = False,
    chosen: Mapping[str, str] | None = None,
) -> Source:
    features = builder.info.features
    image_key, label_key = image_and_label(spec, builder, several_labels, chosen or {})
    _check_pixels(spec, image_key, features[image_key])
    is_several = not isinstance(features[label_key], tfds.features.ClassLabel)
    split_type = SeveralLabelsSplit if is_several else TfdsSplit
    if not prepare and not builder.is_prepared():
        raise SourceError(f"{spec} is not prepared in {builder.data_dir}.")
    _prepare(spec, builder)
    sizes = builder.info.splits
    labels = features[label_key].feature if is_several else features[label_key]
    class_names = tuple(labels.names)
    splits: dict[str, Split] = {}
    validation = next((name for name in _VALIDATION_NAMES if name in sizes), None)
    for tfds_split in sizes:
        name = VALIDATION if tfds_split == validation else tfds_split
        splits[name] = split_type(name, builder, tfds_split, image_key, label_key, class_names)
    return Source(spec, class_names, _train_first(splits))


def _check_pixels(spec: str, image_key: str, feature: tfds.features.Image) -> None:
    """Raises a SourceError if the pixels are no intensities of 8 or 16 bits.

    TFDS stores the bits of float32 pixels as the bytes of an RGBA image.
    """
    dtype = np.dtype(feature.np_dtype)
    if dtype not in (np.uint8, np.uint16):
        raise SourceError(
            f"The images of {spec} must be uint8 or uint16. Received: feature {image_key!r} of "
            f"{dtype}"
        )


def _train_first(splits: dict[str, Split]) -> dict[str, Split]:
    order: Sequence[str] = sorted(splits, key=lambda name: (name != TRAIN, name != VALIDATION))
    return {name: splits[name] for name in order}


def _prepare(spec: str, builder: tfds.core.DatasetBuilder) -> None:
    if builder.is_prepared():
        return
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # TFDS prints; stdout is for results
            builder.download_and_prepare()
    except Exception as error:
        raise SourceError(_advice(spec, builder, error)) from error


def _advice(spec: str, builder: tfds.core.DatasetBuilder, error: Exception) -> str:
    instructions = getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None)
    lines = [f"{spec} could not be prepared in {builder.data_dir}: {error}"]
    if instructions:
        folder = os.path.join(builder._data_dir_root, "downloads", "manual")
        lines.append(f"Download the files that it needs yourself and put them into {folder}:")
        lines.append(" ".join(instructions.split()))
    return "\n".join(lines)
