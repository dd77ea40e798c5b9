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
no_autograph = tf.autograph.experimental.do_not_convert
# Pixels decoded around the window: at a cut the decoder has no neighbour for its chroma
# upsampling, and the last column would differ.
_MARGIN = 2
_SIDES = 32  # windows are padded to a multiple of this
# What is rarely called and has many operations: not inlined, it is passed over as one operation
# where it is not needed.
_NOT_INLINED = {"autograph": False, "experimental_attributes": {"_noinline": True}}
# Traced once a process, and not once a stream: a stream of ours has thirty branches.
_of_bytes = tf.function(input_signature=[tf.TensorSpec((), tf.string)], **_NOT_INLINED)


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
    is_bmp = tf.equal(tf.strings.substr(image_bytes, 0, 2), b"BM")
    image = tf.cond(is_bmp, lambda: _in_colours(image_bytes, image), lambda: image)
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


@tf.function(**_NOT_INLINED)
def _in_colours(bmp_bytes, image):
    """A decoded BMP, its palette applied where it has one: TensorFlow gives its indices as grey.

    Offsets by Microsoft's BITMAPFILEHEADER and BITMAPINFOHEADER: place of the pixels 10, size of
    the second header 14, bits a pixel 28; the palette, blue first, lies between header and pixels.
    """

    def of_indices():
        start = 14 + integers[1]
        palette = tf.io.decode_raw(
            tf.strings.substr(bmp_bytes, start, integers[0] - start), tf.uint8
        )
        colours = tf.reshape(palette, (-1, 4))[:, 2::-1]
        return tf.gather(colours, tf.cast(image[..., 0], tf.int32))

    integers = tf.io.decode_raw(tf.strings.substr(bmp_bytes, 10, 20), tf.int32)
    bits = integers[-1] // 2**16
    return tf.cond(tf.equal(bits, 8), of_indices, lambda: image)


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


def window_origin(scaled: tf.Tensor, crop_size: int, position) -> tf.Tensor:
    """First row and column of a window in the rescaled image, int32 `(2,)`.

    Args:
        scaled: `rescaled_size` of the image.
        crop_size: side of the window.
        position: `(2,)` in 0..1, the share of the way down and across; uniform draws in [0, 1)
            make every place equally likely, 0.5 is the centre.
    """
    places = tf.cast(scaled - (crop_size - 1), tf.float32)
    return tf.cast(tf.minimum(tf.floor(position * places), places - 1.0), tf.int32)


@tf.function(autograph=False)
def window(
    image_bytes: tf.Tensor,
    scale: tf.Tensor,
    crop_size: int,
    position: tf.Tensor,
    flip: tf.Tensor,
    plus: tf.Tensor,
) -> tf.Tensor:
    """A crop of the rescaled picture, decoded no further than it reaches.

    Args:
        image_bytes: an encoded picture, scalar string.
        scale: smaller side of the rescaled picture, at least `crop_size`.
        crop_size: side of the crop.
        position: see `window_origin`.
        flip: whether to mirror left and right.
        plus: a colour, float32 `(3,)`, that is added to every pixel.

    Returns:
        float32 `(crop_size, crop_size, 3)` in 0..255, plus the colour.

    Raises:
        tf.errors.InvalidArgumentError: the picture is broken or of no known kind.
    """
    where = scale, crop_size, position
    image, size, first, step = tf.cond(
        tf.equal(_orientation(image_bytes), 1),
        lambda: _cut_out_of_jpeg(image_bytes, *where),
        lambda: _cut_out(image_bytes, *where),
    )
    # XLA compiles for each shape that it meets: few, because windows are as good as square.
    side = tf.reduce_max(size)
    missing = side + -side % _SIDES - size
    rows = tf.pad(tf.reshape(image, (size[0], -1)), missing[:, None] * [[0, 1], [0, 3]])
    return _samples(rows, size, first, step, crop_size, flip, plus)


def _cut_out_of_jpeg(image_bytes, scale, crop_size, position):
    """The pixels that a window needs, and the rest of `_box`."""
    size = tf.io.extract_jpeg_shape(image_bytes)[:2]
    start, size, first, step = _box(size, scale, crop_size, position)
    box = tf.concat([start, size], 0)
    return tf.io.decode_and_crop_jpeg(image_bytes, box, channels=3), size, first, step


@tf.function(**_NOT_INLINED)
def _cut_out(image_bytes, scale, crop_size, position):
    """The same of any picture, by decoding it all."""
    image = decode(image_bytes)
    start, size, first, step = _box(tf.shape(image)[:2], scale, crop_size, position)
    stop = start + size
    return image[start[0] : stop[0], start[1] : stop[1]], size, first, step


def _box(size, scale, crop_size, position):
    """The box of pixels that a window needs, as its start and size; where in it the window's
    first sample lies, and how far the next one is."""
    scaled = rescaled_size(size, scale)
    step = tf.cast(size, tf.float32) / tf.cast(scaled, tf.float32)
    origin = tf.cast(window_origin(scaled, crop_size, position), tf.float32)
    ends = (origin + [[0.5], [crop_size - 0.5]]) * step - 0.5
    corners = tf.cast(ends + [[-_MARGIN], [_MARGIN + 2.0]], tf.int32)
    start, stop = tf.unstack(tf.minimum(tf.maximum(corners, 0), size))
    return start, stop - start, ends[0] - tf.cast(start, tf.float32), step


# Compiled, because no operation of TensorFlow's samples at places of one's own choice at less than
# twice the time.
@tf.function(autograph=False, jit_compile=True)
def _samples(rows, size, first, step, crop_size, flip, plus):
    """Bilinear samples from the place `first` on, in steps.

    Of the rows, RGB side by side, the first `size` pixels down and across are the picture's.
    """
    counted = tf.range(crop_size, dtype=tf.float32)

    def neighbours(places, last):
        """The two pixels that a sample lies between, and the second one's weight."""
        places = tf.maximum(places, 0.0)  # half a pixel outside, the border's pixels go on
        before = tf.floor(places)
        index = tf.minimum(tf.cast(before, tf.int32), last)
        return index, tf.minimum(index + 1, last), places - before

    above, below, weight = neighbours(first[0] + counted * step[0], size[0] - 1)
    above, below = (tf.cast(tf.gather(rows, i), tf.float32) for i in (above, below))
    rows = above + (below - above) * weight[:, None]

    counted = tf.where(flip, counted[::-1], counted)
    left, right, weight = neighbours(first[1] + counted * step[1], size[1] - 1)
    rows = tf.reshape(rows, (crop_size, -1, 3))
    left, right = (tf.gather(rows, i, axis=1) for i in (left, right))
    return left + (right - left) * weight[:, None] + plus


def _orientation(image_bytes):
    """EXIF orientation of a JPEG, 1 to 8; 1 where none is given, 0 of what is no JPEG.

    Exif 2.32, §4.5: the APP1 segment stands first or after a JFIF segment of 18 bytes.
    """
    found = tf.strings.substr(image_bytes, (0, 6, 24), (3, 4, 4))
    jpeg, first, second = tf.unstack(tf.equal(found, (b"\xff\xd8\xff", b"Exif", b"Exif")))
    return tf.cond(
        tf.logical_and(jpeg, tf.logical_or(first, second)),
        lambda: _read_orientation(tf.strings.substr(image_bytes, tf.where(first, 12, 30), 4096)),
        lambda: tf.cast(jpeg, tf.int32),
    )


@_of_bytes
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
