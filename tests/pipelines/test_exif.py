"""The EXIF orientation is found wherever Pillow finds it."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.conftest import encode, photo
from vgg_keras.pipelines.exif import orientation
from vgg_keras.pipelines.images import decode, upright_size

PIXELS = photo(np.random.default_rng(1), 24, 40)
JPEG = encode(PIXELS, quality=95)
SHORT, LONG = 3, 4


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(data)) + data


def exif_segment(data: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + data)


def tiff(value: int, order: str = "<", kind: int = SHORT, before: int = 1, gap: int = 0) -> bytes:
    """Exif data: an orientation after `before` other entries, in a directory after `gap` bytes."""
    stored = struct.pack(order + ("H2x" if kind == SHORT else "I"), value)
    entries = [
        struct.pack(order + "HHI4s", 0x0101 + i, SHORT, 1, b"\6\0\0\6") for i in range(before)
    ]
    entries += [struct.pack(order + "HHI4s", 0x0112, kind, 1, stored)]
    entries += [struct.pack(order + "HHI4s", 0x0213, SHORT, 1, b"\1\0\0\1")]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + gap)
    return head + bytes(gap) + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


# Segments that stand beside Exif data in the files of cameras, phones and editors.
OTHERS = {
    "JFIF": segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
    "JFIF with a thumbnail": segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\1\1abc"),
    "JFXX": segment(0xE0, b"JFXX\0\x13" + bytes(5)),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
    "ICC": segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(3000)),
    "APP13": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0"),
    "APP14": segment(0xEE, b"Adobe\0d\0\0\0\0\1"),
    "comment": segment(0xFE, b"Exif\0\0MM\0*"),
    "large": segment(0xEB, bytes(65000)),
    "empty": segment(0xE5, b""),
    "APP1 with another name": segment(0xE1, b"Exif\0"),
    "fill bytes": b"\xff" * 3,
}


def with_segments(*added: bytes, at: int = 0) -> bytes:
    """The JPEG with segments added in front of segment `at` of its own."""
    position = 2
    for _ in range(at):
        position += 2 + int.from_bytes(JPEG[position + 2 : position + 4], "big")
    return JPEG[:position] + b"".join(added) + JPEG[position:]


def assert_equals_pillow(encoded: bytes) -> None:
    image = Image.open(io.BytesIO(encoded))
    stated = image.getexif().get(0x0112, 1)
    assert int(orientation(encoded)) == (stated if stated in range(1, 9) else 1)
    upright = np.asarray(ImageOps.exif_transpose(image)).astype(float)
    assert upright_size(encoded).numpy().tolist() == list(upright.shape[:2])
    assert np.abs(decode(encoded).numpy() - upright).mean() < 2  # Pillow uses another JPEG library


tiffs = st.builds(
    tiff,
    st.integers(0, 9),
    st.sampled_from("<>"),
    st.sampled_from((SHORT, LONG)),
    st.integers(0, 9),
    st.sampled_from((0, 0, 2, 100, 5000)),
)


@st.composite
def segments(draw):
    """Other segments, and Exif data in one segment or several."""
    data = draw(tiffs)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=2)))
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    found = [exif_segment(part) for part in parts]
    found += [exif_segment(other) for other in draw(st.lists(tiffs, max_size=1))]
    for other in draw(st.lists(st.sampled_from(sorted(OTHERS)), max_size=6)):
        found.insert(draw(st.integers(0, len(found))), OTHERS[other])
    return found


@settings(max_examples=60, deadline=None)
@given(segments(), st.integers(0, 4))
def test_orientation_equals_pillow(added, at):
    assert_equals_pillow(with_segments(*added, at=at))


@pytest.mark.parametrize("other", OTHERS)
def test_other_segments_may_come_first(other):
    for value in (6, 3):
        assert_equals_pillow(with_segments(OTHERS[other], exif_segment(tiff(value))))
        assert int(orientation(with_segments(OTHERS[other], exif_segment(tiff(value))))) == value


def test_exif_after_the_tables_is_found():
    encoded = with_segments(exif_segment(tiff(8)), at=4)
    assert encoded.index(b"Exif") > encoded.index(b"\xff\xc0")
    assert_equals_pillow(encoded)
    assert int(orientation(encoded)) == 8


def test_exif_after_the_first_scan_is_ignored():
    assert int(orientation(JPEG + exif_segment(tiff(6)))) == 1
    scan = JPEG.index(b"\xff\xda") + 14
    assert int(orientation(JPEG[:scan] + exif_segment(tiff(6)) + JPEG[scan:])) == 1


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=60), tiffs, st.integers(0, 200), st.booleans())
def test_any_exif_data_have_an_orientation(noise, data, cut, in_segment):
    content = data[:cut] + noise
    last = exif_segment(content) if in_segment else b"Exif\0\0" + content
    assert 1 <= int(orientation(with_segments(OTHERS["JFIF"], last))) <= 8


def test_other_formats_have_no_orientation():
    for encoded in (b"", b"\xff\xd8", encode(PIXELS, "PNG"), b"Exif\0\0" + tiff(6)):
        assert int(orientation(encoded)) == 0
