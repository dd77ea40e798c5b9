"""Image operations on encoded bytes; pure, and the same eagerly and inside `tf.data`.

An image's *window* is the crop-size square that a rescaled image would be cropped to. Only the
part of the file that the window needs is decoded and sampled, and the result equals rescaling
the whole image (bilinear, half-pixel centres, no antialiasing, as `tf.image.resize`) and
cropping it. Sizes are `[height, width]`; pixels are RGB in 0..255.
"""

from __future__ import annotations

import tensorflow as tf

# For what `tf.data` maps: AutoGraph has nothing to convert, and looking for it takes longer than
# tracing.
as_it_is = tf.autograph.experimental.do_not_convert
# Pixels decoded around the window: at a cut the decoder has no neighbour for its chroma
# upsampling, and the last column would differ.
_MARGIN = 2
# Traced once a process, and not once a stream: a stream of ours has thirty branches.
_of_bytes = tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


@_of_bytes
def decode(image_bytes: tf.Tensor) -> tf.Tensor:
    """A whole picture, upright: uint8 `(H, W, 3)`.

    Takes JPEG (grey, RGB, CMYK), PNG, GIF (first frame) and BMP, told by content and not by
    name. Transparency is dropped. A JPEG is turned as its EXIF orientation says.

    Raises:
        tf.errors.InvalidArgumentError: no such picture, or a broken one.
    """
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    image = tf.ensure_shape(image, (None, None, 3))
    turn = _orientation(image_bytes)
    image = tf.cond(turn >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    upside_down = tf.reduce_any(tf.equal(turn, (3, 4, 7, 8)))
    mirrored = tf.reduce_any(tf.equal(turn, (2, 3, 6, 7)))
    image = tf.cond(upside_down, lambda: tf.reverse(image, (0,)), lambda: image)
    return tf.cond(mirrored, lambda: tf.reverse(image, (1,)), lambda: image)


@_of_bytes
def upright_size(image_bytes: tf.Tensor) -> tf.Tensor:
    """`[height, width]` of what `decode` gives, int32; of a JPEG or PNG its header alone is read.

    Raises:
        tf.errors.InvalidArgumentError: no picture.
    """

    def of_jpeg():
        size = tf.io.extract_jpeg_shape(image_bytes)[:2]
        return tf.cond(_orientation(image_bytes) >= 5, lambda: size[::-1], lambda: size)

    def of_png():  # PNG specification, §11.2.2: width and height stand first in that chunk
        header = tf.strings.substr(image_bytes, 16, 8)
        size = tf.io.decode_raw(header, tf.int32, little_endian=False)[::-1]
        with tf.control_dependencies([tf.debugging.assert_positive(size)]):
            return tf.ensure_shape(tf.identity(size), (2,))

    def of_others():  # which have no orientation
        return tf.shape(tf.io.decode_image(image_bytes, expand_animations=False))[:2]

    return tf.case(
        [(tf.io.is_jpeg(image_bytes), of_jpeg), (is_png(image_bytes), of_png)], default=of_others
    )


def is_png(image_bytes: tf.Tensor) -> tf.Tensor:
    """Whether these are the bytes of a PNG, by its signature and the head of its first chunk."""
    return tf.equal(tf.strings.substr(image_bytes, 0, 16), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")


def rescaled_size(size: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """The size after isotropic rescaling, int32 `(2,)`: smaller side `scale`, other rounded."""
    size = tf.cast(size, tf.float32)
    return tf.cast(tf.round(size * (tf.cast(scale, tf.float32) / tf.reduce_min(size))), tf.int32)


def rescale(image: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """The whole image `(H, W, 3)`, its smaller side rescaled to `scale` pixels, float32."""
    return tf.image.resize(image, rescaled_size(tf.shape(image)[:2], scale))


def window_origin(size: tf.Tensor, scale: tf.Tensor, crop_size: int, position) -> tf.Tensor:
    """First row and column of a window in the rescaled image, int32 `(2,)`.

    Args:
        size: of the original image.
        scale: of the rescaled image.
        crop_size: side of the window.
        position: `(2,)` in 0..1, the share of the way down and across; uniform draws in [0, 1)
            make every place equally likely, 0.5 is the centre.
    """
    places = tf.cast(rescaled_size(size, scale) - crop_size, tf.float32) + 1.0
    return tf.cast(tf.minimum(tf.floor(position * places), places - 1.0), tf.int32)


@tf.function(autograph=False)
def window(
    image_bytes: tf.Tensor, scale: tf.Tensor, crop_size: int, position: tf.Tensor, flip: tf.Tensor
) -> tf.Tensor:
    """A crop of the rescaled picture, decoded no further than it reaches.

    Args:
        image_bytes: an encoded picture, scalar string.
        scale: smaller side of the rescaled picture, at least `crop_size`.
        crop_size: side of the crop.
        position: see `window_origin`.
        flip: whether to mirror left and right.

    Returns:
        float32 `(crop_size, crop_size, 3)` in 0..255.

    Raises:
        tf.errors.InvalidArgumentError: the picture is broken or of no known kind.
    """

    def place(size):
        """Source coordinates of the window's corner pixels, and the box that they need."""
        step = tf.cast(size, tf.float32) / tf.cast(rescaled_size(size, scale), tf.float32)
        origin = tf.cast(window_origin(size, scale, crop_size, position), tf.float32)
        first = (origin + 0.5) * step - 0.5
        last = first + (crop_size - 1.0) * step
        start = tf.maximum(tf.cast(tf.floor(first), tf.int32) - _MARGIN, 0)
        stop = tf.minimum(tf.cast(last, tf.int32) + 2 + _MARGIN, size)
        corner = tf.cast(start, tf.float32)
        return start, stop, first - corner, last - corner

    def decode_box():
        start, stop, first, last = place(tf.io.extract_jpeg_shape(image_bytes)[:2])
        box = tf.concat([start, stop - start], 0)
        return tf.io.decode_and_crop_jpeg(image_bytes, box, channels=3), first, last

    def decode_all():
        image = decode(image_bytes)
        start, stop, first, last = place(tf.shape(image)[:2])
        return image[start[0] : stop[0], start[1] : stop[1]], first, last

    plain_jpeg = tf.logical_and(tf.io.is_jpeg(image_bytes), tf.equal(_orientation(image_bytes), 1))
    image, first, last = tf.cond(plain_jpeg, decode_box, decode_all)
    return _sample(image, first, last, crop_size, flip)


def _sample(image, first, last, crop_size, flip):
    """Bilinear samples on an even grid from source coordinates `first` to `last`."""
    end = tf.cast(tf.shape(image)[:2] - 1, tf.float32)
    # At a border of the picture samples may lie up to half a pixel outside it, where its last
    # pixels go on. Rare, so the padding waits for the need; the tolerance is for rounding.
    outside = tf.logical_or(tf.reduce_any(first < 1e-3), tf.reduce_any(last > end - 1e-3))
    image = tf.cond(outside, lambda: _repeat_border(image), lambda: image)
    padding = tf.cast(outside, tf.float32)
    end += 2.0 * padding
    (top, left), (bottom, right) = (
        tf.unstack((first + padding) / end),
        tf.unstack((last + padding) / end),
    )
    box = tf.stack([top, tf.where(flip, right, left), bottom, tf.where(flip, left, right)])
    size = (crop_size, crop_size)
    return tf.ensure_shape(
        tf.image.crop_and_resize(image[None], box[None], [0], size)[0], (*size, 3)
    )


def _repeat_border(image):
    # Concatenation, because tf.pad's mirroring kernel is ten times slower on uint8.
    image = tf.concat([image[:1], image, image[-1:]], 0)
    return tf.concat([image[:, :1], image, image[:, -1:]], 1)


def add_to_pixels(image: tf.Tensor, colour: tf.Tensor) -> tf.Tensor:
    """`image + colour` for an image `(H, W, 3)` of known size and a colour `(3,)`.

    One long row is tiled and added, because broadcasting over three channels defeats
    vectorisation: 0.16 ms a crop of 224 against 0.02 ms.
    """
    height, width, channels = image.shape
    rows = tf.reshape(image, (height, width * channels)) + tf.tile(colour, (width,))
    return tf.reshape(rows, image.shape)


@_of_bytes
def _orientation(image_bytes):
    """EXIF orientation of a JPEG, 1 to 8; 1 where none is given.

    Exif 2.32, §4.5: the APP1 segment stands first or after a JFIF segment of 18 bytes.
    """
    first = tf.equal(tf.strings.substr(image_bytes, 6, 4), b"Exif")
    second = tf.equal(tf.strings.substr(image_bytes, 24, 4), b"Exif")
    start = tf.where(first, 12, 30)
    return tf.cond(
        tf.logical_and(tf.io.is_jpeg(image_bytes), tf.logical_or(first, second)),
        lambda: _read_orientation(tf.strings.substr(image_bytes, start, 4096)),
        lambda: tf.constant(1),
    )


def _read_orientation(tiff_bytes):
    """Orientation (tag 0x0112) in the first directory of a TIFF header, else 1."""
    data = tf.cast(tf.io.decode_raw(tiff_bytes, tf.uint8), tf.int32)
    data = tf.pad(data, [[0, 64]])
    little_endian = tf.equal(data[0], 0x49)

    def unsigned(two_bytes):  # (..., 2)
        low, high = two_bytes[..., 0], two_bytes[..., 1]
        return tf.where(little_endian, low + 256 * high, 256 * low + high)

    # The directory's offset has four bytes; one beyond 4 KiB is taken as absent.
    offset = unsigned(tf.where(little_endian, data[4:6], data[6:8]))
    offset = tf.minimum(offset, tf.size(data) - 2)
    room = (tf.size(data) - offset - 2) // 12
    count = tf.minimum(unsigned(data[offset : offset + 2]), room)
    entries = tf.reshape(data[offset + 2 : offset + 2 + 12 * count], (count, 12))
    found = tf.boolean_mask(unsigned(entries[:, 8:10]), tf.equal(unsigned(entries[:, :2]), 0x0112))
    value = tf.reduce_max(tf.concat([found[:1], [1]], 0))
    return tf.where(tf.logical_and(value >= 1, value <= 8), value, 1)
