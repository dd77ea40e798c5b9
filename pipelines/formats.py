"""What the bytes of image files state: size and chunks of a PNG, palette of a BMP.

TensorFlow decodes pixels, but it ignores the palette of a BMP, it cannot read the header of a PNG
alone, and it trusts the lengths that a PNG states. All functions are pure, and the same eagerly and
inside `tf.data`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# Settings of tf.functions that are called rarely and have many operations: if they are not inlined,
# they are skipped as one operation where they are not needed.
NOT_INLINED = {"autograph": False, "experimental_attributes": {"_noinline": True}}
# Traced once a process and not once a stream, since a stream has thirty branches.
function_of_bytes = tf.function(input_signature=[tf.TensorSpec((), tf.string)], **NOT_INLINED)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK_FRAME = 12  # bytes of a chunk that are not data: length, name, checksum
# Reading the head of a chunk takes 30 us. Usual files have chunks of at least 4 KiB.
_SMALL_CHUNKS, _MEAN_CHUNK = 4096, 1024


def is_png(image_bytes: tf.Tensor) -> tf.Tensor:
    """Whether the bytes begin with a PNG's signature."""
    return tf.equal(tf.strings.substr(image_bytes, 0, len(_PNG_SIGNATURE)), _PNG_SIGNATURE)


def png_size(png_bytes: tf.Tensor) -> tf.Tensor:
    """`[height, width]` of a PNG from its header, int32 (PNG specification, §11.2.2).

    Raises:
        tf.errors.InvalidArgumentError: the file does not begin with a header, or the header states
            a side of 0 or less.
    """
    header = tf.strings.substr(png_bytes, len(_PNG_SIGNATURE), 16)  # length, name, width, height
    numbers = tf.io.decode_raw(header, tf.int32, little_endian=False)
    numbers = tf.ensure_shape(numbers, (4,))
    head, size = numbers[:2], numbers[:1:-1]
    is_header = tf.reduce_all(tf.equal(head, (13, _number(b"IHDR"))))
    check = tf.debugging.Assert(is_header & tf.reduce_all(size > 0), ["Not a header:", numbers])
    with tf.control_dependencies([check]):
        return tf.identity(size)


class PngMetadata(NamedTuple):
    """What a PNG holds besides pixels.

    Attributes:
        texts: number of chunks that are inflated and are not pixels, int64.
        size: bytes of all chunks that are not pixels, int64.
    """

    texts: tf.Tensor
    size: tf.Tensor


@function_of_bytes
def png_metadata(png_bytes: tf.Tensor) -> PngMetadata:
    """Reads the heads of all chunks of a PNG (PNG specification, §5.3).

    Libpng allocates the length that a chunk states before it reads the chunk: 2 GiB for a file of
    41 bytes. It must not see a file that does not pass this check.

    Raises:
        tf.errors.InvalidArgumentError: a chunk is longer than the rest of the file, the last chunk
            is missing, or there are too many chunks for the length of the file.
    """
    size = tf.cast(tf.strings.length(png_bytes), tf.int64)
    zero, low = tf.constant(0, tf.int64), tf.constant(2**32 - 1, tf.int64)
    inflated = tf.constant([_number(name) for name in (b"zTXt", b"iTXt", b"iCCP")], tf.int64)
    pixels, last = tf.constant(_number(b"IDAT"), tf.int64), tf.constant(_number(b"IEND"), tf.int64)

    def read_chunk(
        start: tf.Tensor, name: tf.Tensor, texts: tf.Tensor, others: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        head = tf.io.decode_raw(
            tf.strings.substr(png_bytes, start, 8), tf.int64, little_endian=False
        )[0]
        name = tf.bitwise.bitwise_and(head, low)
        length = tf.bitwise.bitwise_and(tf.bitwise.right_shift(head, 32), low)
        texts += tf.cast(tf.reduce_any(tf.equal(name, inflated)), tf.int64)
        others += tf.where(tf.equal(name, pixels), zero, length)
        return start + length + _CHUNK_FRAME, name, texts, others

    end, name, texts, others = tf.while_loop(
        lambda start, name, *_: tf.not_equal(name, last) & (start + _CHUNK_FRAME <= size),
        read_chunk,
        (zero + len(_PNG_SIGNATURE), zero, zero, zero),
        parallel_iterations=1,
        maximum_iterations=_SMALL_CHUNKS + tf.strings.length(png_bytes) // _MEAN_CHUNK,
    )
    is_complete = tf.equal(name, last) & (end <= size)
    check = tf.debugging.Assert(is_complete, ["The PNG has no last chunk within its length."])
    with tf.control_dependencies([check]):
        return PngMetadata(tf.identity(texts), tf.identity(others))


def _number(name: bytes) -> int:
    """The name of a chunk as a number."""
    return int.from_bytes(name, "big")


def is_bmp(image_bytes: tf.Tensor) -> tf.Tensor:
    """Whether the bytes begin with a BMP's signature."""
    return tf.equal(tf.strings.substr(image_bytes, 0, 2), b"BM")


@tf.function(**NOT_INLINED)
def apply_bmp_palette(bmp_bytes: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Applies the palette of a BMP, if it has one: TensorFlow decodes its indices as grey.

    Offsets are those of Microsoft's BITMAPFILEHEADER and BITMAPINFOHEADER: offset of the pixels at
    10, size of the second header at 14, bits a pixel at 28. The palette, blue first, is between the
    second header and the pixels.

    Args:
        bmp_bytes: the file.
        image: what TensorFlow decodes from it, uint8 `(H, W, 3)`.
    """

    def colours_of_indices() -> tf.Tensor:
        start = 14 + integers[1]
        palette = tf.io.decode_raw(
            tf.strings.substr(bmp_bytes, start, integers[0] - start), tf.uint8
        )
        colours = tf.reshape(palette, (-1, 4))[:, 2::-1]
        return tf.gather(colours, tf.cast(image[..., 0], tf.int32))

    integers = tf.io.decode_raw(tf.strings.substr(bmp_bytes, 10, 20), tf.int32)
    bits = integers[-1] // 2**16
    return tf.cond(tf.equal(bits, 8), colours_of_indices, lambda: image)
