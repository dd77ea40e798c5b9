"""Broken, hostile and rare images cost an error each: no crash, and no memory to speak of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import encode, photo
from tests.pipelines.decoding import JUNK, chunk, png, rare_images
from vgg_keras.pipelines.formats import png_metadata
from vgg_keras.pipelines.images import decode, upright_size


@pytest.fixture(scope="module")
def outcome():
    """What `tests.pipelines.decoding` prints; without it, how the process died."""
    command = [sys.executable, "-m", "tests.pipelines.decoding"]
    root = Path(__file__).parents[2]
    process = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=500)
    assert process.returncode == 0, (process.returncode, process.stderr[-2000:])
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
def test_truncated_images_of_every_format_do_not_crash(outcome):
    assert outcome["truncated"] > 500


@pytest.mark.slow
def test_hostile_images_cost_no_more_memory_than_reading_them(outcome):
    several_copies = 12 * JUNK / 2**20  # tf.data and its tensors of strings make some
    assert all(used < several_copies for used in outcome["memory"].values()), outcome["memory"]


@pytest.mark.parametrize("name", [name for name in rare_images() if "animated WebP" in name])
def test_an_animated_webp_is_an_error(name):
    image = rare_images()[name]
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(image)
    with pytest.raises(tf.errors.InvalidArgumentError):
        upright_size(image)


@pytest.mark.parametrize("name", ["PNG", "animated PNG", "GIF", "animated GIF", "WebP"])
def test_still_images_and_first_frames_are_decoded(name):
    image = rare_images()[name]
    assert decode(image).shape == (20, 24, 3)
    assert upright_size(image).numpy().tolist() == [20, 24]


class TestPngChunks:
    """Chunk lengths and counts are checked before libpng sees the file."""

    texts = chunk(b"tEXt", b"a\0b") + chunk(b"zTXt", b"a\0\0") + chunk(b"iTXt", b"a\0\1\0\0\0")

    def test_other_chunks_are_counted(self):
        metadata = png_metadata(png(self.texts, chunk(b"abCd", bytes(100))))
        assert [int(value) for value in metadata] == [True, 2, 13 + 3 + 3 + 6 + 100]

    @pytest.mark.parametrize("before", [b"", texts, chunk(b"eXIf", b"II*\0" + bytes(99))])
    def test_whole_files_are_decoded(self, before):
        assert decode(png(before, chunk(b"abCd", bytes(100)))).shape == (40, 40, 3)
        assert decode(png(before) + b"\x7f\xff\xff\xfftEXt").shape == (40, 40, 3)

    def test_many_small_pixel_chunks_are_decoded(self):
        data = encode(photo(np.random.default_rng(0), 300, 300), "PNG", compress_level=0)
        start = data.index(b"IDAT")
        length = int.from_bytes(data[start - 4 : start], "big")
        pixels = data[start + 4 : start + 4 + length]
        small = b"".join(chunk(b"IDAT", pixels[i : i + 64]) for i in range(0, length, 64))
        several = data[: start - 4] + small + data[start + length + 8 :]
        assert several.count(b"IDAT") > 100
        np.testing.assert_array_equal(decode(several), decode(data))

    @pytest.mark.parametrize("name", [b"tEXt", b"sPLT", b"abCd", b"IDAT"])
    @pytest.mark.parametrize("length", [5, 1000, 2**31 - 1, 2**31, 2**32 - 1])
    def test_a_length_beyond_the_end_is_an_error(self, name, length):
        stated = chunk(name, b"a\0", length)
        for image in (png(before=stated), png(after=stated), png()[:33] + stated[:8]):
            assert not png_metadata(image).is_whole
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode(image)

    @pytest.mark.parametrize("image", [png(end=b""), png()[:-1], png(chunk(b"abCd") * 9999)])
    def test_a_missing_end_and_too_many_chunks_are_errors(self, image):
        assert not png_metadata(image).is_whole
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(image)

    @pytest.mark.parametrize("image", [png()[:8] + png()[33:], png()[:20], png()[:8]])
    def test_a_png_without_header_has_no_size(self, image):
        with pytest.raises(tf.errors.InvalidArgumentError):
            upright_size(image)


def test_of_16_bits_the_upper_8_are_used():
    pixels = np.random.default_rng(0).integers(0, 2**16, (40, 50)).astype(np.uint16)
    decoded = decode(encode_16_bits(pixels)).numpy()
    np.testing.assert_array_equal(decoded, np.repeat((pixels >> 8)[..., None], 3, 2))


def encode_16_bits(pixels):
    return tf.io.encode_png(tf.constant(pixels[..., None])).numpy()
