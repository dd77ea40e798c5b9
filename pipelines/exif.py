"""EXIF orientation of JPEG files: TensorFlow decodes their pixels, but ignores the orientation.

All functions are pure, and the same eagerly and inside `tf.data`. References: ITU-T T.81, §B.1
(segments of a JPEG); Exif 2.32, §4.5 (APP1 segment); TIFF 6.0, §2 (directories).
"""

from __future__ import annotations

import tensorflow as tf

from vgg_keras.pipelines.formats import NOT_INLINED, function_of_bytes

_SOS, _APP1, _EXIF = 0xFFDA, 0xFFE1, b"Exif\0\0"
# First and last of the markers that have a segment. Other bytes before the first scan (fill bytes,
# markers without a segment, bytes between segments) are skipped one by one, as decoders do.
_FIRST, _LAST = (0xFFC0, 0xFFDA), (0xFFCF, 0xFFFE)
# Limits for hostile files. Usual files have 30 segments at most, and the orientation stands at the
# beginning of the Exif data.
_MOST_STEPS = 4096
_MOST_EXIF_BYTES = 2**16
_ORIENTATION, _SHORT, _LONG = 0x0112, 3, 4


def orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """EXIF orientation of a JPEG, int32 1 to 8; 1 if it states none, 0 if the file is not a JPEG.

    The Exif segments may stand anywhere before the first scan.
    """

    def orientation_of_jpeg() -> tf.Tensor:
        # Most files have no Exif data. To find that out takes less time than to read the segments.
        without = tf.strings.regex_replace(image_bytes, r"Exif\x00\x00", "")
        missing = tf.strings.length(image_bytes) - tf.strings.length(without)
        return tf.cond(
            tf.equal(missing, 0),
            lambda: 1,
            lambda: _orientation_of_exif(_read_exif(image_bytes, missing // len(_EXIF))),
        )

    is_jpeg = tf.equal(tf.strings.substr(image_bytes, 0, 3), b"\xff\xd8\xff")
    return tf.cond(is_jpeg, orientation_of_jpeg, lambda: 0)


@tf.function(
    input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int32)], **NOT_INLINED
)
def _read_exif(jpeg_bytes: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
    """Data of the Exif segments before the first scan, one after the other, scalar string.

    Args:
        jpeg_bytes: the file.
        most: the number of Exif segments is not larger than this.
    """
    size = tf.strings.length(jpeg_bytes)
    jpeg_bytes = tf.strings.join([jpeg_bytes, b"\xff\xda\0\0"])  # the first scan at the latest

    def head_at(position: tf.Tensor) -> tf.Tensor:
        """Marker and length of a segment."""
        head = tf.strings.substr(jpeg_bytes, position, 4)
        return tf.cast(tf.io.decode_raw(head, tf.uint16, little_endian=False), tf.int32)

    def read_segment(
        position: tf.Tensor, head: tf.Tensor, left: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        marker, length = head[0], head[1]
        start = tf.minimum(position + 4, size)
        is_exif = (
            tf.equal(marker, _APP1)
            & (length >= 2 + len(_EXIF))
            & tf.equal(tf.strings.substr(jpeg_bytes, start, len(_EXIF)), _EXIF)
        )
        begin = tf.where(is_exif, start + len(_EXIF), 0)
        count = tf.where(is_exif, length - 2 - len(_EXIF), 0)
        data = tf.strings.substr(jpeg_bytes, begin, count)
        exif = tf.strings.substr(tf.strings.join([exif, data]), 0, _MOST_EXIF_BYTES)
        has_segment = tf.reduce_any((marker >= _FIRST) & (marker <= _LAST))
        position = tf.minimum(position + tf.where(has_segment, 2 + length, 1), size)
        return position, head_at(position), left - tf.cast(is_exif, tf.int32), exif

    first = tf.constant(2)
    *_, exif = tf.while_loop(
        lambda position, head, left, exif: tf.not_equal(head[0], _SOS) & (left > 0),
        read_segment,
        (first, head_at(first), most, ""),
        parallel_iterations=1,
        maximum_iterations=_MOST_STEPS,
    )
    return exif


@function_of_bytes
def _orientation_of_exif(exif: tf.Tensor) -> tf.Tensor:
    """Orientation in the first directory of Exif data, a TIFF file; int32, 1 if it is missing."""
    size = tf.cast(tf.strings.length(exif), tf.int64)
    data = tf.pad(tf.cast(tf.io.decode_raw(exif, tf.uint8), tf.int64), [[0, 8]])
    is_little_endian = tf.equal(data[0], ord("I"))

    def unsigned(digits: tf.Tensor, width: int) -> tf.Tensor:  # (..., width) to (...)
        weights = tf.constant([256**i for i in range(width)], tf.int64)
        return tf.reduce_sum(digits * tf.where(is_little_endian, weights, weights[::-1]), -1)

    start = tf.minimum(unsigned(data[4:8], 4) + 2, tf.maximum(size, 2))
    most = tf.maximum(size - start, 0) // 12
    count = tf.minimum(unsigned(data[start - 2 : start], 2), most)
    entries = tf.reshape(data[start : start + 12 * count], (count, 12))
    tag, kind = unsigned(entries[:, :2], 2), unsigned(entries[:, 2:4], 2)
    is_short, is_long = tf.equal(kind, _SHORT), tf.equal(kind, _LONG)
    values = tf.where(is_short, unsigned(entries[:, 8:10], 2), unsigned(entries[:, 8:12], 4))
    values = values[tf.equal(tag, _ORIENTATION) & (is_short | is_long)]
    value = tf.concat([values, [1]], 0)[0]
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)
