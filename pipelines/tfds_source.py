"""TFDS data sets as sources, with decoding skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import TRAIN, VALIDATION, Source, Split

# TFDS gives examples in the order of its files, so they are shuffled through a buffer. TFDS
# shuffles once when it writes; sets no larger than this are shuffled in full at every epoch.
_SHUFFLE_BUFFER = 16_384

# Splits that people validate on; the first that a data set has is called `val`.
_VALIDATION_NAMES = (VALIDATION, "validation", "test")

# All classes of a picture, and those that are not just difficult to see, as TFDS names them.
_SEVERAL, _CLEAR = "labels", "labels_no_difficult"


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSplit(Split):
    """A split of a prepared TFDS data set; `left_out` are places in its own order."""

    name: str
    builder: tfds.core.DatasetBuilder
    tfds_split: str
    image_key: str
    label_key: str
    left_out: tuple[int, ...] = ()

    def __len__(self):
        return self.builder.info.splits[self.tfds_split].num_examples - len(self.left_out)

    def _all(self) -> tf.data.Dataset:
        return self.builder.as_dataset(
            split=self.tfds_split,
            decoders={self.image_key: tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(
                add_tfds_id=True, try_autocache=False, interleave_cycle_length=1
            ),
        )

    def in_order(self):
        dataset = self._all().enumerate()
        if self.left_out:
            left_out = tf.constant(self.left_out, tf.int64)
            dataset = dataset.filter(lambda i, _: tf.reduce_all(left_out != i))
        return dataset.map(lambda _, example: example).enumerate().map(self._example)

    def _example(self, index, example):
        return {
            "index": index,
            "label": self._label(example),
            "image": example[self.image_key],
        }

    def _label(self, example) -> tf.Tensor:
        return tf.cast(example[self.label_key], tf.int64)

    def shuffled(self, seed):
        examples, buffer = self.in_order(), min(len(self), _SHUFFLE_BUFFER)

        def shuffle(mixed):
            # Dataset.shuffle takes TensorFlow's global seed into its own: here it is a constant.
            tf.compat.v1.get_default_graph().seed = 1
            return examples.shuffle(buffer, seed=mixed, reshuffle_each_iteration=False)

        # Mixed, because it is cut to 31 bits.
        key = tf.stack([seed // 2**32, seed % 2**32])
        mixed = tf.random.stateless_uniform((), key, 0, 2**31 - 1, tf.int64)
        return tf.data.Dataset.from_tensors(mixed).flat_map(shuffle)

    def read(self, example):
        return example["image"]

    @functools.cached_property
    def _index(self) -> tuple[list[str], np.ndarray]:
        """TFDS ids and labels in order; one pass over the records."""
        pairs = self._all().map(lambda e: (e["tfds_id"], self._label(e)))
        left_out = set(self.left_out)
        kept = [pair for i, pair in enumerate(pairs.as_numpy_iterator()) if i not in left_out]
        # TFDS's own ids do not say of which configuration and version they are.
        origin = self.builder.info.full_name
        names = [f"{origin}/{name.decode()}" for name, _ in kept]
        return names, np.array([label for _, label in kept], np.int64)

    def all_labels(self):
        return self._index[1]

    def names_of(self, indices):
        places = list(indices)
        return [self._index[0][i] for i in places] if places else []

    def without(self, names):
        if not names:
            return self
        whole = dataclasses.replace(self, left_out=())
        places = {name: i for i, name in enumerate(whole._index[0])}
        left_out = {*self.left_out, *(places[name] for name in names)}
        return dataclasses.replace(self, left_out=tuple(sorted(left_out)))


@dataclasses.dataclass(frozen=True, eq=False)
class SeveralLabelsSplit(TfdsSplit):
    """A split whose pictures have a sequence of labels under `label_key`, as those of `voc`.

    Where there are `labels_no_difficult` too, a class is difficult in a picture if it is in the
    one sequence only: all its objects are marked so.
    """

    def _label(self, example):
        return tf.constant(-1, tf.int64)

    def all_targets(self, num_classes):
        keys = (self.label_key, _CLEAR if _CLEAR in self.builder.info.features else self.label_key)

        def there(example):
            each = [tf.one_hot(example[key], num_classes, dtype=tf.int8) for key in keys]
            return [tf.reduce_max(tf.pad(one, [[0, 1], [0, 0]]), 0) for one in each]

        left_out = set(self.left_out)
        rows = [
            np.where(clear, 1, np.where(any_there, 0, -1)).astype(np.int8)
            for i, (any_there, clear) in enumerate(self._all().map(there).as_numpy_iterator())
            if i not in left_out
        ]
        return np.array(rows, np.int8).reshape(len(self), num_classes)


def open_tfds(
    spec: str,
    name: str,
    data_dir: str | os.PathLike | None,
    prepare: bool,
    several_labels: bool = False,
) -> Source:
    """A data set of TFDS's catalogue, prepared if it is not yet.

    Raises:
        SourceError: TFDS has none of that name, or it needs files that must be fetched by hand
            (the message says from where), or it has no image with one label, or with several
            where they may be.
    """
    try:
        builder = tfds.builder(name, data_dir=_expanded(data_dir))
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise SourceError(f"TFDS has no data set {name!r}: {error}") from error
    return _open_builder(spec, builder, prepare, several_labels)


def open_shapes(spec: str, data_dir: str | os.PathLike | None, prepare: bool) -> Source:
    """The embedded set of drawn shapes, made on first use."""
    from vgg_keras.pipelines.shapes import Shapes

    return _open_builder(spec, Shapes(data_dir=_expanded(data_dir)), prepare)


def read_tfds_boxes(spec: str, split: TfdsSplit) -> list[list[list[float]]]:
    """Boxes of the pictures, in shares, those of the picture's class where boxes have one.

    Raises:
        SourceError: the data set has no boxes.
    """
    found = _box_feature(split.builder.info.features)
    if found is None:
        raise SourceError(
            f"{spec} has no boxes. Its features: {', '.join(split.builder.info.features)}."
        )
    outer, inner, has_labels = found
    if isinstance(split, SeveralLabelsSplit):
        raise SourceError(f"{spec} has several labels an image, so no box is the image's own.")

    def boxes(example):
        values = example[outer][inner] if inner else example[outer][None]
        if has_labels:
            values = tf.boolean_mask(
                values, tf.equal(example[outer]["label"], example[split.label_key])
            )
        return tf.gather(values, (1, 0, 3, 2), axis=-1)  # TFDS has y before x

    every = split._all().map(boxes).as_numpy_iterator()
    left_out = set(split.left_out)
    return [values.tolist() for i, values in enumerate(every) if i not in left_out]


def _box_feature(features) -> tuple[str, str | None, bool] | None:
    """Name of the feature with boxes, of the boxes in it, and whether they have labels."""
    for name, feature in features.items():
        if isinstance(feature, tfds.features.BBoxFeature):
            return name, None, False
        inner = getattr(feature, "feature", None)
        if isinstance(inner, tfds.features.FeaturesDict):
            for key, value in inner.items():
                if isinstance(value, tfds.features.BBoxFeature):
                    return name, key, "label" in inner
    return None


def _expanded(data_dir):
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
    splits: dict[str, Split] = {}
    validation = next((name for name in _VALIDATION_NAMES if name in sizes), None)
    for tfds_split in sizes:
        name = VALIDATION if tfds_split == validation else tfds_split
        splits[name] = split_type(name, builder, tfds_split, image_key, label_key)
    labels = features[label_key].feature if is_several else features[label_key]
    return Source(spec, tuple(labels.names), _train_first(splits))


def _is_sequence_of_labels(feature) -> bool:
    return isinstance(getattr(feature, "feature", None), tfds.features.ClassLabel)


def _train_first(splits: dict[str, Split]) -> dict[str, Split]:
    order: Sequence[str] = sorted(splits, key=lambda name: (name != TRAIN, name != VALIDATION))
    return {name: splits[name] for name in order}


def _keys(spec: str, builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
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
    by_hand = getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None)
    lines = [f"{spec} could not be prepared in {builder.data_dir}: {error}"]
    if by_hand:
        folder = os.path.join(builder._data_dir_root, "downloads", "manual")
        lines.append(f"It needs files that are fetched by hand and put in {folder}:")
        lines.append(" ".join(by_hand.split()))
    return "\n".join(lines)
