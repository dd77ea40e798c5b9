"""Pixels of encoded images: decode, rescale, crop. All functions are pure, also inside `tf.data`.

A *window* is a square of `crop_size` pixels of a rescaled image. `window` decodes and samples only
the part of the file that the window needs. The result equals rescaling the whole image (bilinear,
half-pixel centres, no antialiasing, as `tf.image.resize`) and then cropping it. Sizes are
`[height, width]`; pixels are RGB in 0..255.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from vgg_keras.pipelines.exif import orientation
from vgg_keras.pipelines.formats import (
    NOT_INLINED,
    apply_bmp_palette,
    check_png,
    function_of_bytes,
    is_bmp,
    is_png,
    png_size,
)

# For functions that `tf.data` maps: AutoGraph has nothing to convert in them, and finding that out
# takes longer than tracing.
no_autograph = tf.autograph.experimental.do_not_convert
# Pixels decoded around the window: at a cut the decoder has no neighbour for its chroma upsampling,
# and the last column would differ.
_MARGIN = 2
_WINDOW_MULTIPLE = 48  # windows are padded to a multiple of this: few shapes to compile


@function_of_bytes
def decode(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes a whole image, upright: uint8 `(H, W, 3)`.

    ```python
    image = decode(Path("cat.jpg").read_bytes())
    ```

    Args:
        image_bytes: a JPEG (grey, RGB, CMYK), PNG, GIF (first frame) or BMP file; the format is
            recognised by content. Transparency is dropped. Of 16 bits a channel the upper 8 are
            used. A JPEG is turned according to its EXIF orientation.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not such an image, or a broken one.
    """
    image = _decode_pixels(image_bytes)
    image = tf.cond(
        is_bmp(image_bytes), lambda: apply_bmp_palette(image_bytes, image), lambda: image
    )
    turn = orientation(image_bytes)
    image = tf.cond(turn >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    upside_down = tf.reduce_any(tf.equal(turn, (3, 4, 7, 8)))
    mirrored = tf.reduce_any(tf.equal(turn, (2, 3, 6, 7)))
    image = tf.cond(upside_down, lambda: tf.reverse(image, (0,)), lambda: image)
    return tf.cond(mirrored, lambda: tf.reverse(image, (1,)), lambda: image)


@function_of_bytes
def upright_size(image_bytes: tf.Tensor) -> tf.Tensor:
    """`[height, width]` of the decoded image, int32. Of a JPEG or PNG only the header is read.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not an image.
    """

    def size_of_jpeg() -> tf.Tensor:
        size = tf.io.extract_jpeg_shape(image_bytes)[:2]
        return tf.cond(orientation(image_bytes) >= 5, lambda: size[::-1], lambda: size)

    def size_of_others() -> tf.Tensor:  # these formats have no orientation
        return tf.shape(_decode_pixels(image_bytes))[:2]

    return tf.case(
        [
            (tf.io.is_jpeg(image_bytes), size_of_jpeg),
            (is_png(image_bytes), lambda: png_size(image_bytes)),
        ],
        default=size_of_others,
    )


def _decode_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    """Pixels as they are stored, uint8 `(H, W, 3)`. Every format goes through this function.

    Without `channels=3` TensorFlow's decoder writes outside its memory for an animated WebP.
    """
    image_bytes = tf.cond(is_png(image_bytes), lambda: check_png(image_bytes), lambda: image_bytes)
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def rescaled_size(size: tf.Tensor, scale: tf.Tensor | int) -> tf.Tensor:
    """The size after isotropic rescaling, int32 `(2,)`.

    The smaller side becomes `scale`, the other one is rounded.
    """
    size = tf.cast(size, tf.float32)
    return tf.cast(tf.round(size * (tf.cast(scale, tf.float32) / tf.reduce_min(size))), tf.int32)


def rescale(image: tf.Tensor, scale: tf.Tensor | int) -> tf.Tensor:
    """Rescales an image `(H, W, 3)` so that its smaller side has `scale` pixels, float32.

    ```python
    image = rescale(decode(Path("photo.jpg").read_bytes()), 256)
    min(image.shape[:2])  # 256
    ```
    """
    return tf.image.resize(image, rescaled_size(tf.shape(image)[:2], scale))


def window_origin(
    scaled: tf.Tensor, crop_size: int, position: tf.Tensor | Sequence[float]
) -> tf.Tensor:
    """First row and first column of a window in the rescaled image, int32 `(2,)`.

    Args:
        scaled: `rescaled_size` of the image.
        crop_size: side of the window.
        position: `(2,)` in 0..1, from top to bottom and from left to right. 0.5 is the centre;
            uniform draws in [0, 1) make all windows equally likely.
    """
    count = tf.cast(scaled - (crop_size - 1), tf.float32)
    return tf.cast(tf.minimum(tf.floor(position * count), count - 1.0), tf.int32)


@tf.function(autograph=False)
def window(
    image_bytes: tf.Tensor,
    scale: tf.Tensor,
    crop_size: int,
    position: tf.Tensor,
    flip: tf.Tensor,
    plus: tf.Tensor,
) -> tf.Tensor:
    """Crops the rescaled image. Only the pixels that the crop needs are decoded.

    ```python
    centre = window(image_bytes, 256, 224, (0.5, 0.5), False, (0.0, 0.0, 0.0))
    ```

    Args:
        image_bytes: an encoded image, scalar string.
        scale: smaller side of the rescaled image, at least `crop_size`.
        crop_size: side of the crop.
        position: see `window_origin`.
        flip: whether to mirror left and right.
        plus: a colour, float32 `(3,)`, that is added to every pixel.

    Returns:
        float32 `(crop_size, crop_size, 3)` in 0..255, plus the colour.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not an image, or a broken one.
    """
    where = scale, crop_size, position
    image, size, first, step = tf.cond(
        tf.equal(orientation(image_bytes), 1),
        lambda: _cut_out_of_jpeg(image_bytes, *where),
        lambda: _cut_out(image_bytes, *where),
    )
    # XLA compiles for each shape that it meets: few, because windows are nearly square.
    side = tf.reduce_max(size)
    missing = side + -side % _WINDOW_MULTIPLE - size
    rows = tf.pad(tf.reshape(image, (size[0], -1)), missing[:, None] * [[0, 1], [0, 3]])
    return _samples(rows, size, first, step, crop_size, flip, plus)


_Cut = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


def _cut_out_of_jpeg(
    image_bytes: tf.Tensor, scale: tf.Tensor, crop_size: int, position: tf.Tensor
) -> _Cut:
    """The pixels that a window of a JPEG needs; their size, and first and step as in `_box`."""
    size = tf.io.extract_jpeg_shape(image_bytes)[:2]
    start, size, first, step = _box(size, scale, crop_size, position)
    box = tf.concat([start, size], 0)
    return tf.io.decode_and_crop_jpeg(image_bytes, box, channels=3), size, first, step


@tf.function(**NOT_INLINED)
def _cut_out(image_bytes: tf.Tensor, scale: tf.Tensor, crop_size: int, position: tf.Tensor) -> _Cut:
    """The same of an image of any format, which is decoded as a whole."""
    image = decode(image_bytes)
    start, size, first, step = _box(tf.shape(image)[:2], scale, crop_size, position)
    stop = start + size
    return image[start[0] : stop[0], start[1] : stop[1]], size, first, step


def _box(size: tf.Tensor, scale: tf.Tensor, crop_size: int, position: tf.Tensor) -> _Cut:
    """The box of pixels that a window needs.

    Returns:
        start and size of the box; coordinates in it of the window's first sample; distance from one
        sample to the next. Each is `(2,)`, down and across.
    """
    scaled = rescaled_size(size, scale)
    step = tf.cast(size, tf.float32) / tf.cast(scaled, tf.float32)
    origin = tf.cast(window_origin(scaled, crop_size, position), tf.float32)
    ends = (origin + [[0.5], [crop_size - 0.5]]) * step - 0.5
    corners = tf.cast(ends + [[-_MARGIN], [_MARGIN + 2.0]], tf.int32)
    start, stop = tf.unstack(tf.minimum(tf.maximum(corners, 0), size))
    return start, stop - start, ends[0] - tf.cast(start, tf.float32), step


# Compiled, because no operation of TensorFlow samples at given coordinates in less than twice the
# time.
@tf.function(autograph=False, jit_compile=True)
def _samples(
    rows: tf.Tensor,
    size: tf.Tensor,
    first: tf.Tensor,
    step: tf.Tensor,
    crop_size: int,
    flip: tf.Tensor,
    plus: tf.Tensor,
) -> tf.Tensor:
    """Bilinear samples at `first`, `first + step`, ...

    Args:
        rows: padded pixels; each row holds RGB of its pixels one after the other.
        size: number of pixels down and across that are the image's.
        first, step: see `_box`.
        crop_size, flip, plus: see `window`.
    """
    counted = tf.range(crop_size, dtype=tf.float32)

    def neighbours(
        coordinates: tf.Tensor, last: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The two pixels on both sides of each sample, and the weight of the second one."""
        coordinates = tf.maximum(coordinates, 0.0)  # half a pixel outside: the border is repeated
        before = tf.floor(coordinates)
        index = tf.minimum(tf.cast(before, tf.int32), last)
        return index, tf.minimum(index + 1, last), coordinates - before

    above, below, weight = neighbours(first[0] + counted * step[0], size[0] - 1)
    above, below = (tf.cast(tf.gather(rows, i), tf.float32) for i in (above, below))
    rows = above + (below - above) * weight[:, None]

    counted = tf.where(flip, counted[::-1], counted)
    left, right, weight = neighbours(first[1] + counted * step[1], size[1] - 1)
    rows = tf.reshape(rows, (crop_size, -1, 3))
    left, right = (tf.gather(rows, i, axis=1) for i in (left, right))
    return left + (right - left) * weight[:, None] + plus
