"""Memory, answers and times of an export under good and bad images from three threads.

    python benchmarks/soak.py --minutes 10 [--photos DIR] [--out FILE.json]

The export of a net with random weights runs in TensorFlow's C++ loader, as in TensorFlow Serving.
Each thread sends requests of 1 to 4 images without a pause. Every second request has good and bad
images, every eighth one has bad images only. Each answer is compared with the first answer to the
same image. The exit status is 1 if an answer was wrong.

What glibc keeps of freed memory belongs to the resident memory. Before and after the requests it is
given back to the system, and the rest is measured: that is what the export holds. To see another
allocator, run this under `LD_PRELOAD=libjemalloc.so.2`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import struct
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from cpp_loader import CppModel
from measuring import machine, report
from serving import photos_of, random_net, resident, timed

from vgg_keras import export
from vgg_keras.saved_models.tensors import image_inputs

THREADS, MOST = 3, 4
TOLERANCE = 1e-5  # of probabilities: batches of another size are summed in another order


def chunk(name: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A chunk of a PNG; `length` is stated instead of the true one."""
    stated = len(data) if length is None else length
    return struct.pack(">I", stated) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(height: int, width: int, others: bytes = b"", pixels: bytes = b"") -> bytes:
    """A PNG that states a size and holds other chunks and these pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + header + others + content


def bad_images(photo: bytes) -> list[bytes]:
    """Images that must be refused: damaged, hostile, or no images."""
    pixels = bytes(40 * (1 + 3 * 40))
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(8_000_000)))
    return [
        b"",
        b"<html>Not found</html>",
        bytes(4_000_000),
        b"\xff\xd8\xff" + bytes(4_000_000),
        photo[: len(photo) // 2],
        photo[:600],
        png(40, 40, chunk(b"tEXt", length=0x7FFFFFFF)),
        png(40, 40, chunk(b"sPLT", length=0x7FFFFFFF), pixels),
        png(40, 40, text * 9, pixels),
        png(40, 40, chunk(b"eXIf", bytes(9_000_000)), pixels),
        png(40, 40, chunk(b"abCd") * 300_000, pixels),
        png(30_000, 30_000),
        png(8_000, 8_000),
        png(1, 20_000),
    ]


def held() -> float:
    """MiB resident without the freed memory that glibc keeps; call it between requests."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident()


class Soak:
    """Requests from several threads, and what came of them."""

    def __init__(self, served: CppModel, good: list[bytes], bad: list[bytes]):
        self.served, self.good, self.bad = served, good, bad
        self.images = good + bad
        self.expected = [self.ask([image])[0] for image in self.images]
        errors = [error for _, _, error in self.expected]
        if any(errors[: len(good)]) or not all(errors[len(good) :]):
            raise SystemExit(f"A good image is refused, or a bad one is not: {errors}")
        self.alone = max(timed(lambda image=image: self.ask([image])) for image in bad)
        self.requests = self.wrong = 0
        self.slowest = {"good": 0.0, "mixed": 0.0, "bad": 0.0}  # seconds of a request
        self.lock = threading.Lock()

    def ask(self, images: list[bytes]) -> list[tuple[np.ndarray, np.ndarray, bytes]]:
        """Classes, probabilities and error of each image."""
        found = self.served.run("serving_default", image_inputs(images))
        columns = (found[name] for name in ("classes", "probabilities", "error"))
        return list(zip(*columns, strict=True))

    def is_wrong(self, index: int, answer: tuple[np.ndarray, np.ndarray, bytes]) -> bool:
        """Whether an answer differs from the first one to the same image.

        Classes of equal probability may change their order.
        """
        (_, probabilities, error), expected = answer, self.expected[index]
        return error != expected[2] or bool(abs(probabilities - expected[1]).max() > TOLERANCE)

    def run(self, seed: int, end: float) -> None:
        """Sends requests until the end; run by each thread."""
        rng, number = np.random.default_rng(seed), 0
        good, every = len(self.good), len(self.images)
        while time.monotonic() < end:
            kind = "bad" if number % 8 == 7 else "mixed" if number % 2 else "good"
            first, last = {"good": (0, good), "mixed": (0, every), "bad": (good, every)}[kind]
            indices = rng.integers(first, last, rng.integers(1, MOST + 1))
            began = time.perf_counter()
            answers = self.ask([self.images[i] for i in indices])
            seconds = time.perf_counter() - began
            wrong = sum(map(self.is_wrong, indices, answers))
            with self.lock:
                self.requests += 1
                self.wrong += wrong
                self.slowest[kind] = max(self.slowest[kind], seconds)
            number += 1


def soak(path: Path, photos: list[bytes], minutes: float, samples: int = 20) -> dict:
    """Sends requests for some minutes, and measures the resident memory meanwhile."""
    served = CppModel(path)
    state = Soak(served, photos, bad_images(photos[0]))
    held_before = held()
    began = time.monotonic()
    end = began + 60 * minutes
    memory = []
    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(state.run, i, end) for i in range(THREADS)]
        for i in range(1, samples + 1):
            time.sleep(max(began + 60 * minutes * i / samples - time.monotonic(), 0))
            memory.append({"minutes": minutes * i / samples, "mib": resident()})
        for future in futures:
            future.result()  # raises the error of a request that failed
    held_after = held()
    served.close()
    return {
        "minutes": minutes,
        "requests": state.requests,
        "wrong_answers": state.wrong,
        "slowest_bad_image_alone_seconds": state.alone,
        "slowest_seconds": state.slowest,
        "resident": memory,
        "held": {"before": held_before, "after": held_after},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="Folder of JPEG files.")
    parser.add_argument("--minutes", type=float, default=10.0, help="Minutes of requests.")
    parser.add_argument("--width", type=float, default=1 / 16, help="Width of the net.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export(random_net(arguments.width), Path(folder) / "soak")
        found = soak(Path(folder) / "soak/1", photos_of(arguments.photos), arguments.minutes)
    result = {"benchmark": "soak of an export", "machine": machine(), **found}
    rows: list[tuple] = [
        ("requests", found["requests"]),
        ("wrong answers", found["wrong_answers"]),
        ("slowest bad image alone, s", found["slowest_bad_image_alone_seconds"]),
        *((f"slowest {kind} request, s", s) for kind, s in found["slowest_seconds"].items()),
    ]
    for sample in found["resident"][:: max(len(found["resident"]) // 10, 1)]:
        rows.append((f"MiB resident after {sample['minutes']:.3g} minutes", sample["mib"]))
    rows += [(f"MiB held {when}", mib) for when, mib in found["held"].items()]
    report(result, rows, ("", "value"), arguments.out)
    return int(found["wrong_answers"] > 0)


if __name__ == "__main__":
    sys.exit(main())
