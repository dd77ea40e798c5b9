"""Gives broken, hostile and rare images to everything that decodes. Runs as a process of its own.

Prints one JSON object: how many images were given, and the memory in MiB that the hostile ones
took. A decoder that writes outside its memory ends the process instead.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tests.conftest import photo
from vgg_keras.pipelines.evaluation import whole_images
from vgg_keras.pipelines.images import decode, upright_size, window
from vgg_keras.pipelines.screening import find_bad_images
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.saved_models.images import Limits, apply_by_size, read_sizes

JUNK = 40_000_000  # bytes


def chunk(name: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A chunk of a PNG. `length` is stated instead of the true one."""
    stated = len(data) if length is None else length
    return struct.pack(">I", stated) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(before: bytes = b"", after: bytes = b"", end: bytes = chunk(b"IEND")) -> bytes:
    """A black PNG of 40 x 40 pixels with other chunks before and after the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(40 * (1 + 3 * 40))))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + after + end


def rare_images() -> dict[str, bytes]:
    """Images of every format that TensorFlow decodes and Pillow writes, still and animated."""
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(photo(rng, 20, 24) // 64 * 64) for _ in range(3)]
    several = {"save_all": True, "append_images": frames[1:]}
    kinds: dict[str, tuple[str, dict]] = {
        "JPEG": ("JPEG", {}),
        "progressive JPEG": ("JPEG", {"progressive": True}),
        "PNG": ("PNG", {}),
        "animated PNG": ("PNG", several),
        "GIF": ("GIF", {}),
        "animated GIF": ("GIF", several),
        "BMP": ("BMP", {}),
        "WebP": ("WEBP", {"quality": 50}),
        "lossless WebP": ("WEBP", {"lossless": True}),
        "animated WebP": ("WEBP", several),
        "animated lossless WebP": ("WEBP", {"lossless": True, **several}),
    }
    found = {}
    for name, (kind, options) in kinds.items():
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    buffer = io.BytesIO()
    frames[0].convert("RGBA").save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    # The beginnings of JPEG XL files, which Pillow does not write.
    return found | {
        "animated WebP with alpha": buffer.getvalue(),
        "BMP with a palette": _palette_bmp(frames[0]),
        "JPEG XL": b"\xff\x0a" + bytes(range(99)),
        "JPEG XL container": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(range(99)),
    }


def _palette_bmp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.quantize(17).save(buffer, "BMP")
    return buffer.getvalue()


def hostile_images() -> list[bytes]:
    """Files that state more than they hold, and large files that are no images."""
    names = b"tEXt zTXt iTXt sPLT eXIf iCCP pCAL sCAL hIST abCd ABcd IDAT IEND".split()
    lengths = (0x7FFFFFFF, 0x10000000, 0xFFFFFFFF)
    chunks = [chunk(name, b"a\0", length) for name in names for length in lengths]
    starts = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", png()[:33], b"BM", b"GIF89a", b"RIFF")
    return [
        *(png()[:33] + stated[:8] for stated in chunks),
        *(png(before=stated) for stated in chunks),
        *(png(after=stated) for stated in chunks),
        png(before=chunk(b"abCd") * 500_000),
        png(after=chunk(b"IDAT") * 500_000),
        *(start + bytes(JUNK) for start in starts),
    ]


def doors() -> dict[str, Callable[[list[bytes]], object]]:
    """Everything that decodes images, as functions of a list of files.

    Dense evaluation, features and boxes read `whole_images`; an export is made of the last one.
    """

    def each(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[list[bytes]], object]:
        function = tf.autograph.experimental.do_not_convert(function)
        return lambda images: list(
            tf.data.Dataset.from_tensor_slices(images).map(function).ignore_errors()
        )

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string)])
    def exported(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sizes, errors = read_sizes(images, Limits())
        return apply_by_size(
            lambda pixels, _: tf.reduce_mean(pixels, (1, 2)),
            images,
            sizes,
            errors,
            test_scale=40,
            outputs=3,
            group_pixels=10_000,
        )

    centre, colour = tf.constant((0.5, 0.5)), tf.zeros(3)
    return {
        "decode": each(decode),
        "upright_size": each(upright_size),
        "window": each(lambda image: window(image, 40, 32, centre, False, colour)),
        "screening": lambda images: find_bad_images(as_split(images)),
        "whole_images": lambda images: list(
            whole_images(as_split(images), test_scale=40, batch_pixels=10_000, skip_unreadable=True)
        ),
        "export": lambda images: exported(tf.constant(images)),
    }


def peak() -> float:
    """Greatest resident memory of this process since it was forgotten, in MiB.

    `ru_maxrss` cannot be forgotten, and begins with that of the parent.
    """
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    rare, memory = rare_images(), {}
    hostile = hostile_images()
    for name, door in doors().items():
        door([rare["JPEG"], rare["PNG"], rare["BMP"]])
        forget_peak()
        before = peak()
        door([image for image in hostile if len(image) < JUNK])
        for image in hostile:
            if len(image) >= JUNK:
                door([image])
        memory[name] = peak() - before
    truncated = [image[:i] for image in rare.values() for i in range(0, len(image) + 9, 10)]
    for door in doors().values():
        door(truncated)
    print(json.dumps({"truncated": len(truncated), "memory": memory}))


if __name__ == "__main__":
    main()
