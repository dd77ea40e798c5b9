"""Finding images that cannot be read, and naming them."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.errors import BadImageError, SourceError
from vgg_keras.pipelines.images import decode, no_autograph
from vgg_keras.pipelines.splits import Split

log = logging.getLogger(__name__)

# Raised by reading and decoding a truncated file, a file of another format, or a missing file.
_READ_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.DataLossError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnknownError,
)
# What TensorFlow writes into the message of an error that arose in a data set. A loss that refuses
# a label raises errors of the same types.
_IN_A_DATA_SET = re.compile("IteratorGetNext|ReduceDataset")


def find_bad_images(split: Split, limit: int | None = None) -> list[str]:
    """Finds the images in `split` that cannot be decoded in full. Returns their names in order.

    Every image is read and decoded once.

    ```python
    find_bad_images(open_source("folder:photos")["all"])  # ['photos/cat/broken.jpg']
    ```

    Args:
        split: the images.
        limit: stop after this many bad images; by default all are found.
    """

    @no_autograph
    def readable(example: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = decode(split.read(example))
        return tf.cast(example["index"], tf.int64), tf.size(pixels) > 0

    dataset = split.in_order().map(readable, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.ignore_errors()
    bad: list[int] = []
    expected = 0
    for index, has_pixels in dataset.as_numpy_iterator():
        bad.extend(range(expected, index + (not has_pixels)))
        expected = index + 1
        if limit is not None and len(bad) >= limit:
            break
    else:
        bad.extend(range(expected, len(split)))
    return split.names_of(bad[:limit])


def without_bad_images(split: Split) -> tuple[Split, list[str]]:
    """Removes the images that cannot be read. Returns the split without them, and their names.

    ```python
    train, names = without_bad_images(open_source("folder:photos")["train"])
    print("skipped:", *names)
    ```
    """
    bad = find_bad_images(split)
    for name in bad:
        log.warning("skipped, cannot be read: %s", name)
    return split.without(bad), bad


def check_labels(split: Split, class_names: Sequence[str], origin: str) -> None:
    """Checks that every image of a split has one of the classes. A TFDS split is read in full.

    Args:
        split: the images.
        class_names: names of the classes; labels are their indices.
        origin: name of the data, for the message.

    Raises:
        SourceError: an image has another label. The message names the first one.
    """
    labels = split.all_labels()
    outside = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(outside):
        raise SourceError(
            f"The labels of {origin} must be from 0 to {len(class_names) - 1}, one for each of its "
            f"classes. The split {split.name!r} has {len(outside)} images without a class, as test "
            f"sets have. Received: label {labels[outside[0]]} for "
            f"{split.names_of(outside[:1])[0]}"
        )


@contextlib.contextmanager
def naming_bad_images(*splits: Split) -> Iterator[None]:
    """Turns a decoding error inside the block into a `BadImageError` that names the image.

    The error that `tf.data` raises does not state which element failed, so the splits are read
    again to find it. Errors that arose elsewhere, such as in a net, are not changed.
    """
    try:
        yield
    except _READ_ERRORS as error:
        if not _IN_A_DATA_SET.search(str(error)):
            raise
        for split in splits:
            log.warning("an image of the %r split cannot be read; looking for it", split.name)
            for name in find_bad_images(split, limit=1):
                raise BadImageError(
                    f"This image cannot be read: {name}. Repair or remove it, or skip such images "
                    f'with on_bad_image="skip".'
                ) from error
        raise
