"""Malformed and unusual images in a request: each gets a message and does not affect the others."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import encode, photo
from vgg_keras.evaluation.predict import predict
from vgg_keras.saved_models.images import BROKEN, UNREADABLE, Limits, read_sizes
from vgg_keras.saved_models.tensors import image_inputs

PIXELS = photo(np.random.default_rng(3), 60, 80)
NOISE = np.random.default_rng(4).integers(0, 256, (2000, 1700, 3)).astype(np.uint8)  # 10 MB
JPEG, PNG = encode(PIXELS, quality=90), encode(PIXELS, "PNG")
PROGRESSIVE = encode(PIXELS, progressive=True)


def save(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_mode(mode, kind, **options):
    return save(Image.fromarray(PIXELS).convert(mode), kind, **options)


def png_claiming(height, width, data=b""):
    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def jpeg_claiming(height, width):
    at = JPEG.index(b"\xff\xc0") + 5  # in the frame header: marker, length, precision, sides
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


def with_scans(count):
    """Repeats the header of the last scan, without data."""
    start = PROGRESSIVE.rindex(b"\xff\xda")
    length = struct.unpack(">H", PROGRESSIVE[start + 2 : start + 4])[0]
    more = count - PROGRESSIVE.count(b"\xff\xda")
    return PROGRESSIVE[:-2] + PROGRESSIVE[start : start + 2 + length] * more + b"\xff\xd9"


def with_texts(count, name):
    """A PNG with texts that inflate to a megabyte each."""
    content = b"Comment\0" + (b"\0" if name == b"zTXt" else b"\1\0\0\0")
    body = name + content + zlib.compress(bytes(10**6))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return PNG[:33] + chunk * count + PNG[33:]


def with_chunk(name, data=b"", length=None):
    """A PNG with a chunk in front of its pixels. `length` is stated instead of the true one."""
    stated = len(data) if length is None else length
    body = name + data
    chunk = struct.pack(">I", stated) + body + struct.pack(">I", zlib.crc32(body))
    return PNG[:33] + chunk + PNG[33:]


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photo.jpg", JPEG)
    return buffer.getvalue()


def damaged(encoded, seed):
    rng = np.random.default_rng(seed)
    changed = bytearray(encoded)
    for index in rng.integers(0, len(encoded), 1 + seed % 8):
        changed[index] = rng.integers(256)
    return bytes(changed)


# Files that are refused, and the message that each gets.
REFUSED = [
    *[
        (data, UNREADABLE)
        for data in (
            b"",
            b"\0",
            b"\0" * 5000,
            b"\xff" * 5000,
            b"photo.jpg",
            b"<html></html>" * 99,
            "Übergröße".encode(),
            json.dumps({"b64": "AAAA"}).encode(),
            pickle.dumps([JPEG]),
            zipped(),
            zlib.compress(JPEG),
            JPEG.hex().encode(),
            JPEG[::-1],
            JPEG[1:],
            b"\x7fELF" + JPEG,
            *(as_mode("RGB", kind) for kind in ("GIF", "BMP", "TIFF", "PPM", "TGA", "WEBP", "ICO")),
            save(
                Image.fromarray(PIXELS),
                "GIF",
                save_all=True,
                append_images=[Image.fromarray(PIXELS[::-1])],
            ),
            b"GIF89a" + struct.pack("<HH", 65535, 65535),
            b"BM" + b"\xff" * 200,
            JPEG[:2],
            JPEG[:20],
            PNG[:4],
            PNG[:12],
            PNG[:20],
            PNG[:8] + b"\0" * 99,
            png_claiming(0, 50),
            png_claiming(50, 0),
            png_claiming(2**31 + 5, 50),
            jpeg_claiming(0, 50),
        )
    ],
    *[(JPEG[: len(JPEG) * k // 40], BROKEN) for k in range(20, 40)],
    *[(PNG[: len(PNG) * k // 40], BROKEN) for k in range(1, 40)],
    *[(PNG[:60] + bytes([k]) * 9 + PNG[69:], BROKEN) for k in range(5)],
    (png_claiming(50, 50), BROKEN),
    (png_claiming(50, 50, b"\0" * 300), BROKEN),
    (PNG[:8] + PNG[33:], UNREADABLE),
    (JPEG[:-600] + PNG, BROKEN),
    *[
        (data, "its longer side may be 8 times its shorter one.")
        for data in (
            encode(np.zeros((1, 20000, 3), np.uint8)),
            encode(np.zeros((20000, 1, 3), np.uint8)),
            encode(np.zeros((1, 20000, 3), np.uint8), "PNG"),
            jpeg_claiming(9, 80),
            jpeg_claiming(1, 9),
            png_claiming(20000, 1),
            jpeg_claiming(65500, 1),
        )
    ],
    *[
        (data, "it may have 64000000 pixels.")
        for data in (
            png_claiming(30000, 30000),
            png_claiming(2**31 - 1, 2**31 - 1),
            jpeg_claiming(65500, 65500),
            png_claiming(8001, 8000),
            png_claiming(2**31 - 1, 1),
        )
    ],
    *[(with_scans(n), f"may have 100 scans. Received: {n} scans") for n in (101, 1000, 20000)],
    *[
        (with_texts(n, name), f"may have 8 compressed texts. Received: {n} texts")
        for n, name in ((9, b"zTXt"), (999, b"zTXt"), (50, b"iTXt"))
    ],
]

REFUSED += [
    *[
        (with_chunk(name, b"a\0", length), BROKEN)
        for name in (b"tEXt", b"sPLT", b"eXIf", b"iCCP", b"abCd")
        for length in (10**6, 2**31 - 1, 2**32 - 1)
    ],
    (PNG[:33] + b"\x7f\xff\xff\xfftEXt", BROKEN),
    *[
        (
            with_chunk(name, b"a\0" + bytes(8_000_000)),
            "8000000 bytes besides pixels. Received: 80000",
        )
        for name in (b"tEXt", b"sPLT", b"eXIf", b"abCd")
    ],
]

# Unusual images that can be read.
READ = [
    *(as_mode(mode, "JPEG") for mode in ("L", "CMYK")),
    *(as_mode(mode, "PNG") for mode in ("L", "1", "P", "RGBA", "LA")),
    save(Image.fromarray(PIXELS.astype(np.uint16)[..., 0] * 257), "PNG"),
    save(Image.fromarray(PIXELS), "PNG", compress_level=0),
    PROGRESSIVE,
    with_scans(99),
    *(encode(PIXELS[:1, :1], kind) for kind in ("JPEG", "PNG")),
    *(encode(PIXELS[:h, :w]) for h, w in ((1, 2), (2, 1), (8, 1), (1, 8), (5, 40), (3, 3))),
    save(Image.fromarray(NOISE), "PNG"),
    JPEG + NOISE.tobytes(),
    with_texts(8, b"zTXt"),
    with_chunk(b"abCd", b"zTXt" * 99),
    with_chunk(b"tEXt", b"a\0" + bytes(7_000_000)),
    JPEG + b"\0" * 999,
    JPEG + JPEG,
    JPEG + b"text",
    PNG + b"\0" * 99,
    *(
        save(Image.fromarray(PIXELS), "JPEG", exif=bytes(exif))
        for exif in (
            b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"
            + bytes([k])
            + b"\0\0\0\0\0\0"
            for k in range(10)
        )
    ),
]
# Damaged files: some of them can be read.
DAMAGED = [damaged((JPEG, PNG, PROGRESSIVE)[seed % 3], seed) for seed in range(60)]


@pytest.fixture(scope="module")
def ask(served):
    """Sends images between two good ones, whose results must not change."""

    def run(*images):
        found = served.run("serving_default", image_inputs([JPEG, *images, JPEG]))
        for name, (value,) in alone.items():
            for index in (0, -1):
                if name == "probabilities":
                    np.testing.assert_allclose(found[name][index], value, atol=1e-6)
                else:
                    assert np.array_equal(found[name][index], value)
        return {name: array[1:-1] for name, array in found.items()}

    alone = served.run("serving_default", image_inputs([JPEG]))
    assert not alone["error"][0]
    return run


def odd_examples():
    """Examples without the feature, with two values or none, of another type; and no example."""
    feature = tf.train.Feature
    values = [
        feature(bytes_list=tf.train.BytesList(value=[JPEG, JPEG])),
        feature(bytes_list=tf.train.BytesList(value=[])),
        feature(int64_list=tf.train.Int64List(value=[1])),
        feature(),
    ]
    odd = [
        tf.train.Example(features=tf.train.Features(feature={"image/encoded": value}))
        for value in values
    ]
    return [e.SerializeToString() for e in (tf.train.Example(), *odd)] + [b"no example"]


def check(found):
    """Checks that each row is either an answer or an error."""
    for classes, names, probabilities, error in zip(
        *(found[k] for k in ("classes", "class_names", "probabilities", "error")), strict=True
    ):
        if error:
            assert (classes.tolist(), names.tolist()) == ([-1] * 3, [b""] * 3)
            assert not probabilities.any()
        else:
            assert (classes >= 0).all()
            assert all(names)
            assert (np.diff(probabilities) <= 0).all()
            assert 3 / 7 <= probabilities.sum() <= 1 + 1e-5


def test_there_are_200_files():
    assert len(REFUSED) + len(READ) + len(DAMAGED) >= 200


def test_refused_images_get_a_message_and_do_not_affect_others(ask):
    found = ask(*(data for data, _ in REFUSED))
    check(found)
    for (data, expected), error in zip(REFUSED, found["error"], strict=True):
        assert expected in error.decode(), data[:40]


def test_refused_images_alone(ask):
    for data, expected in REFUSED[::9]:
        assert expected in ask(data)["error"][0].decode()


def test_unusual_images_get_the_scores_of_keras(ask, net, tmp_path):
    found = ask(*READ)
    check(found)
    assert not any(found["error"])
    files = [tmp_path / str(i) for i in range(len(READ))]
    for file, data in zip(files, READ, strict=True):
        file.write_bytes(data)
    expected = predict(net, files, test_scales=(40, 48)).top(3)
    np.testing.assert_array_equal(found["classes"], expected[0])
    np.testing.assert_allclose(found["probabilities"], expected[1], atol=1e-5)


def test_damaged_files_get_scores_or_a_message(ask):
    found = ask(*DAMAGED)
    check(found)
    assert 0 < sum(map(bool, found["error"])) < len(DAMAGED)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.builds(bytes.__add__, st.sampled_from([b"", JPEG[:400], PNG[:8]]), st.binary()),
        min_size=1,
        max_size=8,
    )
)
def test_any_bytes_get_scores_or_a_message(ask, images):
    check(ask(*images))


@pytest.mark.parametrize("signature", ["features", "classify"])
def test_other_signatures_refuse_the_same_images(served, signature):
    from vgg_keras.saved_models.records import examples

    bad = [data for data, _ in REFUSED[::7]]
    if signature == "features":
        found = served.run("features", image_inputs([*bad, JPEG]))
        np.testing.assert_allclose(np.linalg.norm(found["features"][-1]), 1, atol=1e-5)
        assert all(found["error"][:-1])
        assert not found["features"][:-1].any()
    else:
        serialised = examples([*bad, JPEG])["inputs"].tolist()
        inputs = image_inputs([*odd_examples(), *serialised], "inputs")
        found = served.run("classify", inputs)
        assert all(found["classes"][-1])
        assert not any(found["classes"][:-1].flat)
        assert not found["scores"][:-1].any()


def test_limits_are_exact():
    limits = Limits(pixels=60 * 80, aspect=80 / 60, scans=3)
    sizes, errors = read_sizes(tf.constant([JPEG, PNG]), limits)
    assert errors.numpy().tolist() == [b"", b""]
    assert sizes.numpy().tolist() == [[60, 80]] * 2
    for name, value, received in (("pixels", 60 * 80 - 1, "60 x 80"), ("aspect", 1.33, "60 x 80")):
        tighter = Limits(**({"pixels": 60 * 80, "aspect": 2.0} | {name: value}))
        sizes, errors = read_sizes(tf.constant([JPEG, PNG]), tighter)
        assert all(received in error.decode() for error in errors.numpy())
        assert not sizes.numpy().any()
