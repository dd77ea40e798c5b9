"""What the bytes of image files state: size and chunks of a PNG, palette of a BMP.

TensorFlow decodes pixels, but it ignores the palette of a BMP, it cannot read the header of a PNG
alone, and it trusts the lengths that a PNG states. All functions are pure, and the same eagerly and
inside `tf.data`.
"""

from __future__ import annotations

from collections.abc import Callable
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
_SMALL_CHUNKS, _MEAN_CHUNK = 1024, 4096


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


@function_of_bytes
def check_png(png_bytes: tf.Tensor) -> tf.Tensor:
    """Returns the file if its chunks end within it.

    Libpng allocates the length that a chunk states before it reads the chunk: 2 GiB for a file of
    41 bytes. It must not see a file that does not pass this check.

    Raises:
        tf.errors.InvalidArgumentError: a chunk is longer than the rest of the file, the last chunk
            is missing, or there are too many chunks for the length of the file.
    """
    is_whole, _ = _read_chunks(png_bytes, lambda name, length: ())
    check = tf.debugging.Assert(is_whole, ["The chunks of a PNG do not end within the file."])
    with tf.control_dependencies([check]):
        return tf.identity(png_bytes)


class PngMetadata(NamedTuple):
    """What a PNG holds besides pixels.

    Attributes:
        is_whole: whether the file passes `check_png`; the other attributes are defined if it does.
        texts: number of compressed chunks that are not pixels, int64.
        size: bytes of all chunks that are not pixels, int64.
    """

    is_whole: tf.Tensor
    texts: tf.Tensor
    size: tf.Tensor


@function_of_bytes
def png_metadata(png_bytes: tf.Tensor) -> PngMetadata:
    """Reads the heads of all chunks."""
    compressed = tf.constant([_number(name) for name in (b"zTXt", b"iTXt", b"iCCP")], tf.int64)
    pixels, none = tf.constant(_number(b"IDAT"), tf.int64), tf.constant(0, tf.int64)

    def values(name: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_compressed = tf.reduce_any(tf.equal(name, compressed))
        return tf.cast(is_compressed, tf.int64), tf.where(tf.equal(name, pixels), none, length)

    is_whole, sums = _read_chunks(png_bytes, values)
    return PngMetadata(is_whole, *sums)


def _read_chunks(
    png_bytes: tf.Tensor, values: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]]
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """Reads the heads of the chunks of a PNG one after the other (PNG specification, §5.3).

    Args:
        png_bytes: the file.
        values: function from name and length of a chunk, int64, to int64 values.

    Returns:
        Whether the file passes `check_png`, and the sums of the values over all chunks but the
        last, int64.
    """
    size = tf.cast(tf.strings.length(png_bytes), tf.int64)
    # Outside the loop, where constants are made once.
    first, frame, head_size, shift, low, last = (
        tf.constant(n, tf.int64)
        for n in (len(_PNG_SIGNATURE), _CHUNK_FRAME, 8, 32, 2**32 - 1, _number(b"IEND"))
    )
    none, scalar = tf.constant(0, tf.int64), tf.constant((), tf.int32)
    final = tf.maximum(size - frame, none)  # a chunk that starts later does not end in the file

    def head_at(start: tf.Tensor) -> tf.Tensor:
        """Length and name of a chunk, in one number."""
        head = tf.strings.substr(png_bytes, tf.minimum(start, final), head_size)
        return tf.reshape(tf.io.decode_raw(head, tf.int64, little_endian=False), scalar)

    def name_of(head: tf.Tensor) -> tf.Tensor:
        return tf.bitwise.bitwise_and(head, low)

    def end_of(start: tf.Tensor, head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = tf.bitwise.bitwise_and(tf.bitwise.right_shift(head, shift), low)
        return start + length + frame, length

    def next_chunk(start: tf.Tensor, head: tf.Tensor, sums: tuple) -> tuple:
        end, length = end_of(start, head)
        added = values(name_of(head), length)
        sums = tuple(total + value for total, value in zip(sums, added, strict=True))
        return end, head_at(end), sums

    start, head, sums = tf.while_loop(
        lambda start, head, sums: tf.not_equal(name_of(head), last) & (start <= final),
        next_chunk,
        (first, head_at(first), tuple(none for _ in values(none, none))),
        parallel_iterations=1,
        maximum_iterations=_SMALL_CHUNKS + tf.strings.length(png_bytes) // _MEAN_CHUNK,
    )
    is_last = tf.equal(name_of(head), last) & (start <= final)
    return is_last & (end_of(start, head)[0] <= size), sums


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
