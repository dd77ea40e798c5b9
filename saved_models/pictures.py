"""Encoded pictures inside a graph: each is refused, or decoded and shown to a net.

A request is a batch of pictures of any sizes. What cannot be read or is too large gets a message
and a row of zeros, and the others of its batch are as they would be alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf
from vgg_keras.pipelines.formats import is_png
from vgg_keras.pipelines.images import (
    decode,
    no_autograph,
    rescale,
    rescaled_size,
    upright_size,
)

UNREADABLE = "cannot be read as a JPEG or PNG picture"
BROKEN = "is broken: its header can be read, its pixels cannot"

_DECODERS = 16  # pictures decoded at once, at most


@dataclass(frozen=True)
class Limits:
    """What is refused by its header, before anything is decoded.

    Attributes:
        pixels: of a picture; 64 million take 192 MB decoded.
        aspect: longer over shorter side, which a rescaled picture keeps.
        scans: of a progressive JPEG. Decoding one takes as long as the picture is large, however
            few its bytes are; usual files have about ten.
        texts: compressed ones in a PNG, each of which may hold 8 MB.

    Raises:
        ValueError: a limit that no picture keeps, or that is no limit.
    """

    pixels: int = 64_000_000
    aspect: float = 8.0
    scans: int = 100
    texts: int = 8

    def __post_init__(self):
        if not 1 <= self.pixels < 2**62:
            raise ValueError(f"pixels must be from 1 to 2**62. Received: {self.pixels}")
        if not 1 <= self.aspect < 1e6:
            raise ValueError(f"aspect must be from 1 to 1e6. Received: {self.aspect}")


def measure(image_bytes: tf.Tensor, limits: Limits) -> tuple[tf.Tensor, tf.Tensor]:
    """Sizes of pictures by their headers, and what is wrong with them.

    Args:
        image_bytes: JPEG or PNG files, string `(B,)`.
        limits: what to refuse.

    Returns:
        `[height, width]` upright, int32 `(B, 2)`, zeros where refused; messages, string `(B,)`,
        empty for a good picture.
    """

    @no_autograph
    def size_and_error(place, encoded):
        tf.debugging.Assert(tf.io.is_jpeg(encoded) | is_png(encoded), [UNREADABLE])
        size = upright_size(encoded)
        error = _beyond(limits, size, encoded)
        return place, tf.where(tf.equal(error, ""), size, 0), error

    count = tf.size(image_bytes)
    places, sizes, errors = _those_that_work(
        tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes)).map(size_and_error),
        (tf.constant(0), tf.zeros(2, tf.int32), tf.constant("")),
    )
    places = places[:-1, None]
    errors = tf.tensor_scatter_nd_update(tf.fill((count,), UNREADABLE), places, errors[:-1])
    return tf.scatter_nd(places, sizes[:-1], (count, 2)), errors


def show(
    look: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    image_bytes: tf.Tensor,
    sizes: tf.Tensor,
    errors: tf.Tensor,
    *,
    test_scale: int,
    outputs: int | tf.Tensor,
    group_pixels: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """What a net makes of each picture at one scale.

    Pictures that rescale to one size go through the net together, so no pixel is padding.

    Args:
        look: from float32 `(G, H, W, 3)`, RGB in 0..255, and the pictures' places in
            `image_bytes`, int32 `(G,)`, to float32 `(G, outputs)`.
        image_bytes: files, string `(B,)`.
        sizes, errors: from `measure`.
        test_scale: smaller side that pictures are rescaled to.
        outputs: of `look`.
        group_pixels: that go through `look` at once, at most, but one picture at least.

    Returns:
        float32 `(B, outputs)`, zeros where there is an error, and the errors, to which those of
        pictures that could not be decoded are added.
    """
    count = tf.size(image_bytes)
    scaled = tf.map_fn(lambda size: rescaled_size(size, test_scale), sizes)  # 0 / 0 where refused

    def one_group(left, results, errors):
        first = tf.argmax(left)
        height, width = tf.unstack(scaled[first])
        alike = left & tf.reduce_all(tf.equal(scaled, scaled[first]), 1)
        most = tf.maximum(group_pixels // (height * width), 1)
        group = tf.cast(tf.where(alike)[:most], tf.int32)  # (G, 1)

        @no_autograph
        def load(place, encoded):
            return place, tf.ensure_shape(rescale(decode(encoded), test_scale), (None, None, 3))

        read, pixels = _those_that_work(
            tf.data.Dataset.from_tensor_slices((group, tf.gather_nd(image_bytes, group))).map(
                load, num_parallel_calls=_DECODERS
            ),
            (tf.constant([0]), tf.zeros((height, width, 3))),
        )
        read = read[:-1]
        # oneDNN's fused convolutions fail on a batch of none, so the filling goes in then.
        looked_at = tf.concat([read[:, 0], [0]], 0)[: tf.maximum(tf.size(read), 1)]
        found = look(pixels[: tf.size(looked_at)], looked_at)[: tf.size(read)]
        left = tf.tensor_scatter_nd_update(left, group, tf.zeros_like(group[:, 0], tf.bool))
        results = tf.tensor_scatter_nd_update(results, read, found)
        broken = tf.tensor_scatter_nd_update(
            tf.tensor_scatter_nd_update(errors, group, tf.fill(tf.shape(group)[:1], BROKEN)),
            read,
            tf.fill(tf.shape(read)[:1], ""),
        )
        return left, results, broken

    _, results, errors = tf.while_loop(
        lambda left, *_: tf.reduce_any(left),
        one_group,
        (tf.equal(errors, ""), tf.zeros((count, outputs)), errors),
        parallel_iterations=1,
    )
    return results, errors


def pictures_of_examples(serialised: tf.Tensor, feature: str) -> tf.Tensor:
    """Encoded pictures in `tf.train.Example`s, string `(B,)`; "" where there is not just one."""

    @no_autograph
    def parse(place, example):
        wanted = {feature: tf.io.FixedLenFeature((), tf.string)}
        return place, tf.io.parse_single_example(example, wanted)[feature]

    count = tf.size(serialised)
    places, pictures = _those_that_work(
        tf.data.Dataset.from_tensor_slices((tf.range(count), serialised)).map(parse),
        (tf.constant(0), tf.constant("")),
    )
    return tf.tensor_scatter_nd_update(tf.fill((count,), ""), places[:-1, None], pictures[:-1])


def _beyond(limits: Limits, size: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """The limit that a picture exceeds, as a message; empty if none."""
    is_jpeg = tf.io.is_jpeg(encoded)
    scans = tf.cond(is_jpeg, lambda: _scans(encoded), lambda: 0)
    texts = tf.cond(is_jpeg, lambda: 0, lambda: _compressed_texts(encoded))
    short, long = tf.reduce_min(size), tf.reduce_max(size)
    pixels = tf.cast(short, tf.int64) * tf.cast(long, tf.int64)
    size_text = tf.strings.reduce_join(tf.as_string(size), separator=" x ")

    def too(text, received=size_text, unit="pixels"):
        message = [f"is refused: {text} Received: ", tf.as_string(received), f" {unit}"]
        return lambda: tf.strings.join(message)

    return tf.case(
        [
            (pixels > limits.pixels, too(f"it may have {limits.pixels} pixels.")),
            (
                tf.cast(long, tf.float32) > limits.aspect * tf.cast(short, tf.float32),
                too(f"its longer side may be {limits.aspect:g} times its shorter one."),
            ),
            (
                scans > limits.scans,
                too(f"a progressive JPEG may have {limits.scans} scans.", scans, "scans"),
            ),
            (
                texts > limits.texts,
                too(f"a PNG may have {limits.texts} compressed texts.", texts, "texts"),
            ),
        ],
        default=lambda: tf.constant(""),
    )


def _scans(image_bytes: tf.Tensor) -> tf.Tensor:
    """Scan headers in a JPEG, int32: marker, length 6 + 2n, n components (ITU-T T.81, B.2.3).

    Five bytes in a row, so that other data, which may follow the picture, hardly ever count.
    """
    data = tf.pad(tf.io.decode_raw(image_bytes, tf.uint8), [[0, 4]])
    marker, components = (data[:-4] == 0xFF) & (data[1:-3] == 0xDA), data[4:]
    length = (data[2:-2] == 0) & (data[3:-1] == 6 + 2 * components)
    found = marker & length & (components >= 1) & (components <= 4)
    return tf.reduce_sum(tf.cast(found, tf.int32))


def _compressed_texts(image_bytes: tf.Tensor) -> tf.Tensor:
    """Chunks of a PNG that are inflated and not pixels, int32, by their names."""
    data = tf.pad(tf.io.decode_raw(image_bytes, tf.uint8), [[0, 3]])
    count = tf.constant(0)
    for name in (b"zTXt", b"iTXt", b"iCCP"):
        here = [data[i : tf.size(data) - 3 + i] == byte for i, byte in enumerate(name)]
        count += tf.reduce_sum(tf.cast(tf.reduce_all(tf.stack(here), 0), tf.int32))
    return count


def _those_that_work(dataset: tf.data.Dataset, filling: tuple) -> tuple[tf.Tensor, ...]:
    """The elements of a dataset that can be made, each component stacked.

    `filling` is an element of the same shapes, which stands at the end: something must, where no
    element works.
    """
    options = tf.data.Options()
    # Neither pays for one short request, and each starts threads or rewrites the graph anew.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return (
        dataset.ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors(filling))
        .batch(tf.int64.max)
        .with_options(options)
        .get_single_element()
    )
