"""Encoded images inside a graph: each one is refused, or decoded and given to a net.

A request is a batch of images of any sizes. An image that cannot be read or is too large gets a
message and a row of zeros. The other images of the batch get the same results as alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.pipelines.formats import is_png, png_metadata
from vgg_keras.pipelines.images import (
    decode,
    no_autograph,
    rescale,
    rescaled_size,
    upright_size,
)

UNREADABLE = "cannot be read as a JPEG or PNG image"
BROKEN = "is broken: its header can be read, its pixels cannot"

_DECODERS = 16  # images that are decoded at once, at most
_BLOCK = 2**20  # bytes of a file that are compared at once


@dataclass(frozen=True)
class Limits:
    """Limits of an image. They are checked before the pixels are decoded.

        export(net, "exports/vgg16", limits=Limits(pixels=10_000_000))

    Attributes:
        pixels: greatest number of pixels; 64 million take 192 MB decoded.
        aspect: greatest ratio of the longer to the shorter side. Rescaling does not change it.
        scans: greatest number of scans of a progressive JPEG. The time to decode a scan depends on
            the size of the image, however few bytes the scan has. Usual files have about ten scans.
        texts: greatest number of compressed texts in a PNG, each of which may inflate to 8 MB.
        metadata: greatest number of bytes of a PNG that are not pixels.

    Raises:
        ArgumentError: `pixels` or `aspect` is out of its range.
    """

    pixels: int = 64_000_000
    aspect: float = 8.0
    scans: int = 100
    texts: int = 8
    metadata: int = 8_000_000

    def __post_init__(self) -> None:
        if not 1 <= self.pixels < 2**62:
            raise ArgumentError(
                f"pixels must be from 1 to 2**62. Received: {self.pixels}", "pixels"
            )
        if not 1 <= self.aspect < 1e6:
            raise ArgumentError(f"aspect must be from 1 to 1e6. Received: {self.aspect}", "aspect")


def read_sizes(image_bytes: tf.Tensor, limits: Limits) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads the sizes of images from their headers, and checks them against the limits.

        sizes, errors = read_sizes(image_bytes, Limits(pixels=2**22))

    Args:
        image_bytes: JPEG or PNG files, string `(B,)`.
        limits: limits of the images.

    Returns:
        Upright sizes `[height, width]`, int32 `(B, 2)`, zeros for a refused image; and error
        messages, string `(B,)`, empty for a good image.
    """

    @no_autograph
    def read_size(index: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        check = tf.debugging.Assert(tf.io.is_jpeg(encoded) | is_png(encoded), [UNREADABLE])
        with tf.control_dependencies([check]):  # other files cost nothing
            encoded = tf.identity(encoded)
        size = upright_size(encoded)
        error = _exceeded_limit(limits, size, encoded)
        return index, tf.where(tf.equal(error, ""), size, 0), error

    count = tf.size(image_bytes)
    indices, sizes, errors = _ignoring_errors(
        tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes)).map(read_size),
        (tf.constant(0), tf.zeros(2, tf.int32), tf.constant("")),
    )
    indices = indices[:-1, None]
    errors = tf.tensor_scatter_nd_update(tf.fill((count,), UNREADABLE), indices, errors[:-1])
    return tf.scatter_nd(indices, sizes[:-1], (count, 2)), errors


def apply_by_size(
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    image_bytes: tf.Tensor,
    sizes: tf.Tensor,
    errors: tf.Tensor,
    *,
    test_scale: int,
    outputs: int | tf.Tensor,
    group_pixels: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies a function to images at one scale, in groups of the same size.

    Images that are rescaled to the same size go through the function together, so that no image is
    padded.

        outputs, errors = apply_by_size(score, files, sizes, errors, test_scale=256, **options)

    Args:
        function: function from images, float32 `(G, H, W, 3)`, RGB in 0..255, and their indices in
            `image_bytes`, int32 `(G,)`, to float32 `(G, outputs)`.
        image_bytes: files, string `(B,)`.
        sizes, errors: from `read_sizes`.
        test_scale: smaller side that images are rescaled to.
        outputs: number of outputs of `function` for an image.
        group_pixels: greatest number of pixels that go through `function` at once. A group has one
            image at least.

    Returns:
        Outputs, float32 `(B, outputs)`, zeros for a refused image; and `errors`, to which the
        errors of images that could not be decoded are added.
    """
    count = tf.size(image_bytes)
    scaled = tf.map_fn(lambda size: rescaled_size(size, test_scale), sizes)  # 0 x 0 where refused

    def apply_to_group(
        left: tf.Tensor, results: tf.Tensor, errors: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        size = scaled[tf.argmax(left)]
        same_size = left & tf.reduce_all(tf.equal(scaled, size), 1)
        most = tf.maximum(group_pixels // tf.reduce_prod(size), 1)
        group = tf.cast(tf.where(same_size)[:most], tf.int32)  # (G, 1)
        read, images = _decode_group(image_bytes, group, size, test_scale)
        indices = read[:-1]
        # oneDNN's fused convolutions fail on an empty batch: an empty group keeps the filler.
        shown = read[: tf.maximum(tf.size(indices), 1), 0]
        found = function(images[: tf.size(shown)], shown)[: tf.size(indices)]
        left = tf.tensor_scatter_nd_update(left, group, tf.zeros_like(group[:, 0], tf.bool))
        results = tf.tensor_scatter_nd_update(results, indices, found)
        errors = tf.tensor_scatter_nd_update(errors, group, tf.fill(tf.shape(group)[:1], BROKEN))
        good = tf.fill(tf.shape(indices)[:1], "")
        return left, results, tf.tensor_scatter_nd_update(errors, indices, good)

    _, results, errors = tf.while_loop(
        lambda left, *_: tf.reduce_any(left),
        apply_to_group,
        (tf.equal(errors, ""), tf.zeros((count, outputs)), errors),
        parallel_iterations=1,
    )
    return results, errors


def _decode_group(
    image_bytes: tf.Tensor, group: tf.Tensor, size: tf.Tensor, test_scale: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and rescales the images of a group that can be decoded; at the end stands a filler.

    Args:
        image_bytes: files, string `(B,)`.
        group: indices in `image_bytes`, int32 `(G, 1)`.
        size: `[height, width]` of these images after rescaling.
        test_scale: smaller side after rescaling.

    Returns:
        Indices, int32 `(N + 1, 1)`, and images, float32 `(N + 1, height, width, 3)`.
    """

    @no_autograph
    def load(index: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return index, tf.ensure_shape(rescale(decode(encoded), test_scale), (None, None, 3))

    return _ignoring_errors(
        tf.data.Dataset.from_tensor_slices((group, tf.gather_nd(image_bytes, group))).map(
            load, num_parallel_calls=_DECODERS
        ),
        (tf.constant([0]), tf.zeros((size[0], size[1], 3))),
    )


def images_of_examples(serialised: tf.Tensor, feature: str) -> tf.Tensor:
    """Extracts the encoded images from serialised `tf.train.Example`s.

        image_bytes = images_of_examples(serialised, "image/encoded")

    Args:
        serialised: examples, string `(B,)`.
        feature: name of the feature that holds the file.

    Returns:
        Files, string `(B,)`; "" for an example without exactly one value of the feature.
    """

    @no_autograph
    def parse(index: tf.Tensor, example: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        wanted = {feature: tf.io.FixedLenFeature((), tf.string)}
        return index, tf.io.parse_single_example(example, wanted)[feature]

    count = tf.size(serialised)
    indices, images = _ignoring_errors(
        tf.data.Dataset.from_tensor_slices((tf.range(count), serialised)).map(parse),
        (tf.constant(0), tf.constant("")),
    )
    return tf.tensor_scatter_nd_update(tf.fill((count,), ""), indices[:-1, None], images[:-1])


def _exceeded_limit(limits: Limits, size: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Message about the first limit that an image exceeds; empty if it exceeds none."""
    short, long = tf.reduce_min(size), tf.reduce_max(size)
    pixels = tf.cast(short, tf.int64) * tf.cast(long, tf.int64)
    size_text = tf.strings.reduce_join(tf.as_string(size), separator=" x ")

    def refusal(
        rule: str, received: tf.Tensor = size_text, unit: str = "pixels"
    ) -> Callable[[], tf.Tensor]:
        message = [f"is refused: {rule} Received: ", tf.as_string(received), f" {unit}"]
        return lambda: tf.strings.join(message)

    def refusal_of_jpeg() -> tf.Tensor:
        scans = _count_scans(encoded, limits.scans)
        rule = f"a progressive JPEG may have {limits.scans} scans."
        return tf.cond(scans > limits.scans, refusal(rule, scans, "scans"), lambda: "")

    def refusal_of_png() -> tf.Tensor:
        is_whole, texts, metadata = png_metadata(encoded)
        return tf.case(
            [
                (~is_whole, lambda: tf.constant(BROKEN)),
                (
                    texts > limits.texts,
                    refusal(f"a PNG may have {limits.texts} compressed texts.", texts, "texts"),
                ),
                (
                    metadata > limits.metadata,
                    refusal(
                        f"a PNG may have {limits.metadata} bytes besides pixels.", metadata, "bytes"
                    ),
                ),
            ],
            default=lambda: tf.constant(""),
        )

    return tf.case(
        [
            (pixels > limits.pixels, refusal(f"it may have {limits.pixels} pixels.")),
            (
                tf.cast(long, tf.float32) > limits.aspect * tf.cast(short, tf.float32),
                refusal(f"its longer side may be {limits.aspect:g} times its shorter one."),
            ),
            (tf.io.is_jpeg(encoded), refusal_of_jpeg),
        ],
        default=refusal_of_png,
    )


def _count_scans(image_bytes: tf.Tensor, limit: int) -> tf.Tensor:
    """Number of scan headers in a JPEG, int32. Counting stops soon after the limit.

    A scan header is a marker, the length 6 + 2n, and n components (ITU-T T.81, B.2.3). All five
    bytes are checked, so that other data, which may follow the image, are hardly ever counted.
    The file is read in blocks, because the comparisons take several times the memory of a block.
    """

    def count_in_block(start: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        block = tf.io.decode_raw(tf.strings.substr(image_bytes, start, _BLOCK + 4), tf.uint8)
        data = tf.pad(block, [[0, tf.maximum(_BLOCK + 4 - tf.size(block), 0)]])
        marker, components = (data[:-4] == 0xFF) & (data[1:-3] == 0xDA), data[4:]
        length = (data[2:-2] == 0) & (data[3:-1] == 6 + 2 * components)
        found = marker & length & (components >= 1) & (components <= 4)
        return start + _BLOCK, count + tf.reduce_sum(tf.cast(found, tf.int32))

    size = tf.strings.length(image_bytes)
    _, count = tf.while_loop(
        lambda start, count: (start < size) & (count <= limit), count_in_block, (0, 0)
    )
    return count


def _ignoring_errors(
    dataset: tf.data.Dataset, filler: tuple[tf.Tensor, ...]
) -> tuple[tf.Tensor, ...]:
    """Stacks the elements of a dataset that do not raise an error, and then the filler.

    Args:
        dataset: dataset of tuples of tensors.
        filler: element of the same shapes. It stands at the end, because a batch cannot be empty.
    """
    options = tf.data.Options()
    # For one short request these do not pay: each starts threads or rewrites the graph again.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return (
        dataset.ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors(filler))
        .batch(tf.int64.max)
        .with_options(options)
        .get_single_element()
    )
