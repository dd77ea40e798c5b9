"""What the bytes of image files state: EXIF orientation, BMP palette, PNG size.

TensorFlow decodes pixels, but it ignores the orientation of a JPEG and the palette of a BMP, and
it reads no header of a PNG. All functions are pure, and the same eagerly and inside `tf.data`.
"""

from __future__ import annotations

import tensorflow as tf

# Settings of tf.functions that are called rarely and have many operations: if they are not inlined,
# they are skipped as one operation where they are not needed.
NOT_INLINED = {"autograph": False, "experimental_attributes": {"_noinline": True}}
# Traced once a process and not once a stream, since a stream has thirty branches.
function_of_bytes = tf.function(input_signature=[tf.TensorSpec((), tf.string)], **NOT_INLINED)


def is_png(image_bytes: tf.Tensor) -> tf.Tensor:
    """Whether the bytes begin with a PNG's signature and the head of its first chunk."""
    return tf.equal(tf.strings.substr(image_bytes, 0, 16), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")


def png_size(image_bytes: tf.Tensor) -> tf.Tensor:
    """`[height, width]` of a PNG from its header, int32 (PNG specification, §11.2.2).

    Raises:
        tf.errors.InvalidArgumentError: the header states a side of 0 or less.
    """
    header = tf.strings.substr(image_bytes, 16, 8)  # width, height
    size = tf.io.decode_raw(header, tf.int32, little_endian=False)[::-1]
    with tf.control_dependencies([tf.debugging.assert_positive(size)]):
        return tf.ensure_shape(tf.identity(size), (2,))


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


def orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """EXIF orientation of a JPEG, 1 to 8; 1 if it states none, 0 if the file is not a JPEG.

    The APP1 segment is the first one, or comes after a JFIF segment of 18 bytes (Exif 2.32, §4.5).
    """
    found = tf.strings.substr(image_bytes, (0, 6, 24), (3, 4, 4))
    jpeg, first, second = tf.unstack(tf.equal(found, (b"\xff\xd8\xff", b"Exif", b"Exif")))
    return tf.cond(
        tf.logical_and(jpeg, tf.logical_or(first, second)),
        lambda: _read_orientation(tf.strings.substr(image_bytes, tf.where(first, 12, 30), 4096)),
        lambda: tf.cast(jpeg, tf.int32),
    )


@function_of_bytes
def _read_orientation(tiff_bytes: tf.Tensor) -> tf.Tensor:
    """Orientation (tag 0x0112) in the first directory of a TIFF header; 1 if it is missing."""
    data = tf.cast(tf.io.decode_raw(tiff_bytes, tf.uint8), tf.int32)
    data = tf.pad(data, [[0, 64]])
    little_endian = tf.equal(data[0], 0x49)

    def unsigned(two_bytes: tf.Tensor) -> tf.Tensor:  # (..., 2)
        low, high = two_bytes[..., 0], two_bytes[..., 1]
        return tf.where(little_endian, low + 256 * high, 256 * low + high)

    # The directory's offset has four bytes. A directory beyond 4 KiB counts as missing.
    offset = unsigned(tf.where(little_endian, data[4:6], data[6:8]))
    offset = tf.minimum(offset, tf.size(data) - 2)
    most = (tf.size(data) - offset - 2) // 12
    count = tf.minimum(unsigned(data[offset : offset + 2]), most)
    entries = tf.reshape(data[offset + 2 : offset + 2 + 12 * count], (count, 12))
    found = tf.boolean_mask(unsigned(entries[:, 8:10]), tf.equal(unsigned(entries[:, :2]), 0x0112))
    value = tf.reduce_max(tf.concat([found[:1], [1]], 0))
    return tf.where(tf.logical_and(value >= 1, value <= 8), value, 1)
