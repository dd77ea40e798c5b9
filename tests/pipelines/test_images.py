from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.conftest import encode, photo
from vgg_keras.pipelines import images

CROP = 32
PLUS = (-123.0, 2.0, 17.0)


@tf.function(
    input_signature=[
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([2]),
        tf.TensorSpec([], tf.bool),
    ]
)
def fused(encoded, scale, position, flip):
    return images.window(encoded, scale, CROP, position, flip, PLUS) - PLUS


@tf.function(input_signature=fused.input_signature)
def rescale_then_crop(encoded, scale, position, flip):
    image = images.decode(encoded)
    image = images.rescale(image, scale)
    row, column = tf.unstack(images.window_origin(tf.shape(image)[:2], CROP, position))
    crop = image[row : row + CROP, column : column + CROP]
    return tf.reverse(crop, [1]) if flip else crop


def windows(encoded, scale=40, position=(0.5, 0.5), flip=False):
    arguments = tf.constant(encoded), tf.constant(scale), tf.constant(position, tf.float32)
    return fused(*arguments, tf.constant(flip)), rescale_then_crop(*arguments, tf.constant(flip))


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(CROP, 150),
    st.tuples(st.sampled_from((0.0, 0.37, 0.999, 1.0)), st.floats(0, 1, width=32)),
    st.booleans(),
    st.sampled_from(({"quality": 95}, {"quality": 40}, {"subsampling": 0}, {"progressive": True})),
)
def test_window_equals_rescale_then_crop(height, width, scale, position, flip, options):
    encoded = encode(photo(np.random.default_rng(height * 151 + width), height, width), **options)
    window, reference = windows(encoded, scale, position, flip)
    assert window.shape == (CROP, CROP, 3)
    assert np.abs(window - reference).max() < 0.1


def test_window_of_a_photo_size_equals_rescale_then_crop_at_all_borders():
    encoded = encode(photo(np.random.default_rng(0), 375, 500), quality=92)
    for scale in (32, 100, 375, 512):
        for position in ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.6, 0.2)):
            window, reference = windows(encoded, scale, position)
            assert np.abs(window - reference).max() < 0.1, (scale, position)


def test_a_window_without_rescaling_has_the_pixels_of_the_image():
    pixels = photo(np.random.default_rng(3), 32, 50)
    window, _ = windows(encode(pixels, "PNG"), scale=32, position=(0.0, 0.0))
    np.testing.assert_allclose(window, pixels[:, :32], atol=1e-3)


def test_rescaling_is_bilinear_with_half_pixel_centres():
    row = np.array([0, 100, 200, 40], np.uint8)
    pixels = np.repeat(np.repeat(row[None, :, None], 4, 0), 3, 2)
    doubled = images.rescale(tf.constant(pixels), 8)[0, :, 0]
    np.testing.assert_allclose(doubled, [0, 25, 75, 125, 175, 160, 80, 40], atol=1e-4)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [((375, 500), 256, (256, 341)), ((500, 375), 384, (512, 384)), ((1, 9), 32, (32, 288))],
)
def test_smaller_side_becomes_the_scale(size, scale, expected):
    assert tuple(images.rescaled_size(tf.constant(size), scale).numpy()) == expected


def test_origin_reaches_both_borders_and_the_centre():
    scaled = tf.constant((256, 341))
    for position, expected in ((0.0, (0, 0)), (1.0, (32, 117)), (0.5, (16, 59))):
        origin = images.window_origin(scaled, 224, tf.constant([position] * 2))
        assert tuple(origin.numpy()) == expected


def test_every_origin_is_equally_likely():
    draws = np.random.default_rng(0).random((4000, 2)).astype(np.float32)
    origins = images.window_origin(tf.constant((40, 43)), 32, draws).numpy()
    counts = np.bincount(origins[:, 0], minlength=9)
    assert len(counts) == 9
    assert counts.min() > 340  # 444 expected, sd 20


class TestKinds:
    pixels = photo(np.random.default_rng(1), 60, 90)

    def close_to(self, encoded, expected, tolerance=3.0):
        decoded = images.decode(tf.constant(encoded)).numpy()
        assert decoded.shape == expected.shape
        assert np.abs(decoded.astype(float) - expected).mean() < tolerance
        window, reference = windows(encoded)
        assert np.abs(window - reference).max() < 0.1

    def test_a_grey_jpeg_is_decoded(self):
        grey = np.asarray(Image.fromarray(self.pixels).convert("L"))
        self.close_to(encode(grey), np.repeat(grey[..., None], 3, 2))

    def test_a_cmyk_jpeg_is_decoded(self):
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).convert("CMYK").save(buffer, "JPEG", quality=95)
        self.close_to(buffer.getvalue(), self.pixels)

    def test_alpha_is_ignored(self):
        rgba = np.dstack([self.pixels, np.full(self.pixels.shape[:2], 128, np.uint8)])
        self.close_to(encode(rgba, "PNG"), self.pixels, 1e-6)

    @pytest.mark.parametrize("kind", ["PNG", "BMP"])
    @pytest.mark.parametrize("colours", [17, 256])
    def test_palettes_are_decoded(self, kind, colours):
        buffer = io.BytesIO()
        palette = Image.fromarray(self.pixels).quantize(colours)
        palette.save(buffer, kind)
        self.close_to(buffer.getvalue(), np.asarray(palette.convert("RGB")), 1e-6)

    def test_a_grey_bmp_is_decoded(self):
        grey = np.asarray(Image.fromarray(self.pixels).convert("L"))
        self.close_to(encode(grey, "BMP"), np.repeat(grey[..., None], 3, 2), 1e-6)

    @pytest.mark.parametrize("kind", ["PNG", "BMP"])
    def test_png_and_bmp_are_decoded(self, kind):
        self.close_to(encode(self.pixels, kind), self.pixels, 1e-6)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("order", [b"II", b"MM"])
    def test_the_exif_orientation_is_applied(self, orientation, order):
        exif = Image.Exif()
        exif.endian = "<" if order == b"II" else ">"
        exif[0x010F] = "a camera"
        exif[0x0112] = orientation
        stored = Image.fromarray(self.pixels)
        buffer = io.BytesIO()
        stored.save(buffer, "JPEG", quality=95, exif=exif)
        encoded = buffer.getvalue()
        assert order + (b"*\0" if order == b"II" else b"\0*") in encoded
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
        self.close_to(encoded, upright, 1.5)  # Pillow uses another JPEG library
        assert images.upright_size(encoded).numpy().tolist() == list(upright.shape[:2])

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_an_invalid_exif_orientation_is_ignored(self, value):
        exif = Image.Exif()
        exif[0x0112] = value
        plain = images.decode(tf.constant(encode(self.pixels, quality=95))).numpy()
        self.close_to(encode(self.pixels, exif=exif, quality=95), plain, 1e-6)

    def test_a_truncated_exif_segment_is_ignored(self):
        encoded = encode(self.pixels, quality=95)
        plain = images.decode(tf.constant(encoded)).numpy()
        segment = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
        app1 = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
        self.close_to(encoded[:2] + app1 + encoded[2:], plain, 1e-6)

    def test_an_image_of_one_pixel_is_decoded(self):
        self.close_to(encode(self.pixels[:1, :1], "PNG"), self.pixels[:1, :1], 1e-6)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"not an image",
        encode(TestKinds.pixels)[:40],
        encode(TestKinds.pixels)[:900],
        encode(TestKinds.pixels, "PNG")[:500],
    ],
    ids=["empty", "text", "header", "truncated", "truncated png"],
)
def test_broken_images_raise(broken):
    with pytest.raises(tf.errors.InvalidArgumentError):
        images.decode(tf.constant(broken))
    with pytest.raises(tf.errors.InvalidArgumentError):
        fused(broken, 40, (1.0, 1.0), False)
