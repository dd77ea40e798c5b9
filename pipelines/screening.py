"""Finding pictures that cannot be read, and naming them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import tensorflow as tf
from vgg_keras.pipelines.errors import BadImageError
from vgg_keras.pipelines.images import decode, no_autograph
from vgg_keras.pipelines.sources import Split

log = logging.getLogger(__name__)

# What reading and decoding raise for a truncated file, another kind of file, one that is gone.
_READ_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.DataLossError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnknownError,
)


def find_bad_images(split: Split, most: int | None = None) -> list[str]:
    """Names of the pictures in `split` that cannot be decoded in full, in order.

    Reads and decodes every picture once.

    Args:
        split: where to look.
        most: stop after that many.
    """

    @no_autograph
    def readable(example):
        pixels = decode(split.read(example))
        return tf.cast(example["index"], tf.int64), tf.size(pixels) > 0

    dataset = split.in_order().map(readable, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.ignore_errors()
    bad: list[int] = []
    expected = 0
    for index, has_pixels in dataset.as_numpy_iterator():
        bad.extend(range(expected, index + (not has_pixels)))
        expected = index + 1
        if most is not None and len(bad) >= most:
            break
    else:
        bad.extend(range(expected, len(split)))
    return split.names_of(bad[:most])


def without_bad_images(split: Split) -> tuple[Split, list[str]]:
    """`split` less the pictures that cannot be read, and their names. Each is logged."""
    bad = find_bad_images(split)
    for name in bad:
        log.warning("skipped, cannot be read: %s", name)
    return split.without(bad), bad


@contextlib.contextmanager
def naming_bad_images(*splits: Split) -> Iterator[None]:
    """Turns a decoding error inside the block into a `BadImageError` that names the picture.

    The error that `tf.data` raises does not say which element failed, so the splits are read
    again to find it.
    """
    try:
        yield
    except _READ_ERRORS as error:
        for split in splits:
            log.warning("a picture of the %r split cannot be read; looking for it", split.name)
            for name in find_bad_images(split, most=1):
                raise BadImageError(
                    f"This picture cannot be read: {name}. Mend or remove it, or leave out such "
                    f"pictures with --on-bad-image skip."
                ) from error
        raise
