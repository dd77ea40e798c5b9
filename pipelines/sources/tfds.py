"""TensorFlow data sets (TFDS), whose images are passed on encoded."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.orders import StreamedSplit
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source, Split, StatedBoxes

# Splits that people validate on; the first that a data set has is called `val`.
_VALIDATION_NAMES = (VALIDATION, "validation", "test")

# TFDS's names for all classes of an image, and for those that are not only difficult to see.
_SEVERAL, _CLEAR = "labels", "labels_no_difficult"


@dataclasses.dataclass(frozen=True, eq=False)
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

    def all_labels(self) -> np.ndarray:
        return self._index[1]

    def stated_boxes(self) -> StatedBoxes:
        """Boxes as shares; if boxes have classes, those of the image's class."""
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
        """See `_find_box_feature`.

        Raises:
            SourceError: there is no such feature.
        """
        features = self.builder.info.features
        found = _find_box_feature(features)
        if found is None:
            raise SourceError(
                f"{self.builder.info.full_name} has no boxes. Its features: {', '.join(features)}."
            )
        return found


@dataclasses.dataclass(frozen=True, eq=False)
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
            download (the message names the site); or its images do not have one label, or
            several labels if these are accepted.
    """
    try:
        builder = tfds.builder(location, data_dir=_expanded(data_dir))
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise SourceError(f"TFDS has no data set {location!r}: {error}") from error
    return _open_builder(spec, builder, prepare, several_labels)


def open_shapes(
    spec: str, location: str, *, data_dir: str | os.PathLike | None, prepare: bool, **unused: object
) -> Source:
    """Opens the embedded data set of drawn shapes, which is made on first use."""
    from vgg_keras.pipelines.sources.shapes import Shapes  # draws with Pillow

    return _open_builder(spec, Shapes(data_dir=_expanded(data_dir)), prepare)


def _find_box_feature(features: tfds.features.FeaturesDict) -> tuple[str, str | None, bool] | None:
    """Name of the feature with boxes, name of the boxes in it, and whether they have labels."""
    for name, feature in features.items():
        if isinstance(feature, tfds.features.BBoxFeature):
            return name, None, False
        inner = getattr(feature, "feature", None)
        if isinstance(inner, tfds.features.FeaturesDict):
            for key, value in inner.items():
                if isinstance(value, tfds.features.BBoxFeature):
                    return name, key, "label" in inner
    return None


def _expanded(data_dir: str | os.PathLike | None) -> str | None:
    return os.path.expanduser(data_dir) if data_dir is not None else None


def _open_builder(
    spec: str, builder: tfds.core.DatasetBuilder, prepare: bool, several_labels: bool = False
) -> Source:
    features = builder.info.features
    is_several = several_labels and _is_sequence_of_labels(dict(features).get(_SEVERAL))
    split_type = SeveralLabelsSplit if is_several else TfdsSplit
    image_key, label_key = ("image", _SEVERAL) if is_several else _keys(spec, builder)
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


def _is_sequence_of_labels(feature: tfds.features.FeatureConnector | None) -> bool:
    return isinstance(getattr(feature, "feature", None), tfds.features.ClassLabel)


def _train_first(splits: dict[str, Split]) -> dict[str, Split]:
    order: Sequence[str] = sorted(splits, key=lambda name: (name != TRAIN, name != VALIDATION))
    return {name: splits[name] for name in order}


def _keys(spec: str, builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Names of the features that hold the image and its label."""
    features = builder.info.features
    images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if not images or not labels:
        raise SourceError(
            f"{spec} has no single label an image, which classification needs. "
            f"Its features: {', '.join(features)}."
        )
    label = "label" if "label" in labels else labels[0]
    return ("image" if "image" in images else images[0]), label


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
