"""Costs of serving in addition to the net: latency, size, loading, memory over many requests.

    python benchmarks/serving.py [--photos DIR] [--minutes 30] [--soak-width 0.25] [--out FILE.json]

Net D at full width with random weights is exported and loaded by TensorFlow's C++ loader.
`serving_default` on files is timed in turn with the bare forward pass, which is the Keras net under
`tf.function` on the same images, decoded and rescaled beforehand. Batches have 1 and 8 images of
one size, and 8 in the order of the folder. Then requests of 1 to 8 photos and damaged files are
sent for `--minutes` to a net of `--soak-width`, and the resident memory is measured (on Linux).
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from cpp_loader import CppModel
from measuring import in_turn, machine, ratios, report
from rich.console import Console

from vgg_keras import TrainedNet, export, make_scorer, vgg
from vgg_keras.pipelines.images import decode, rescale, rescaled_size, upright_size
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.saved_models.records import Request
from vgg_keras.saved_models.replay import replay
from vgg_keras.saved_models.tensors import image_inputs

Q, BATCH = 256, 8
console = Console(stderr=True)


def random_net(width: float) -> TrainedNet:
    """Net D with random weights."""
    names = [f"class {i}" for i in range(1000)]
    model = vgg("D", width=width)
    return TrainedNet.of_model(model, mean=ILSVRC.mean, class_names=names, train_scale=Q)


def photos_of(folder: Path | None) -> list[bytes]:
    """The files of a folder, or the photo that comes with Matplotlib."""
    if folder is None:
        from matplotlib.cbook import get_sample_data

        return [Path(get_sample_data("grace_hopper.jpg", asfileobj=False)).read_bytes()]
    return [file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()]


def batches(photos: list[bytes]) -> dict[str, list[bytes]]:
    """Batches of photos by name: of the most frequent size, and of the first photos."""
    sizes = [tuple(rescaled_size(upright_size(photo), Q).numpy()) for photo in photos]
    usual = Counter(sizes).most_common(1)[0][0]
    alike = [photo for photo, size in zip(photos, sizes, strict=True) if size == usual]
    found = {"batch of 1": alike[:1], f"batch of {BATCH}": (alike * BATCH)[:BATCH]}
    if len(set(sizes[:BATCH])) > 1:
        found[f"{BATCH} of several sizes"] = photos[:BATCH]
    return found


def latency(net: TrainedNet, path: Path, photos: list[bytes], repetitions: int) -> dict:
    """Seconds for a photo, of the bare forward pass and of `serving_default`."""
    served, score = CppModel(path), make_scorer(net)
    found = {}
    for name, batch in batches(photos).items():
        views = [rescale(decode(photo), Q)[None, None] for photo in batch]
        if len({view.shape for view in views}) == 1:
            views = [tf.concat(views, 0)]
        tasks = {
            "bare": functools.partial(lambda given: [score(v).numpy() for v in given], views),
            "serving_default": functools.partial(
                served.run, "serving_default", image_inputs(batch)
            ),
        }
        for task in tasks.values():
            task()
        seconds = in_turn({k: functools.partial(timed, v) for k, v in tasks.items()}, repetitions)
        figures = {name: [s / len(batch) for s in of_task] for name, of_task in seconds.items()}
        found[name] = figures | {"ratio": ratios(figures, "serving_default", "bare")}
    served.close()
    return found


def cpp_loading(path: Path, photo: bytes) -> dict[str, float]:
    """Seconds that the C++ loader takes to load, and then to answer for the first time."""
    start = time.perf_counter()
    served = CppModel(path)
    loaded = time.perf_counter()
    served.run("serving_default", image_inputs([photo]))
    return {"load": loaded - start, "first": time.perf_counter() - loaded}


def timed(task) -> float:
    """Seconds that a task takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def soak(path: Path, photos: list[bytes], minutes: float) -> dict:
    """Resident memory in MiB, minute by minute, while requests are sent."""
    served, rng = CppModel(path), np.random.default_rng(0)
    began, memory, requests = time.monotonic(), [], 0
    while (passed := time.monotonic() - began) < 60 * minutes + 1:
        if passed >= 60 * len(memory):
            memory.append(resident())
            console.print(
                f"minute {len(memory) - 1} of {minutes:g}: {requests} requests, "
                f"{memory[-1]:.0f} MiB",
                highlight=False,
            )
        some = [photos[i] for i in rng.integers(len(photos), size=rng.integers(1, BATCH + 1))]
        some[0] = some[0][: rng.integers(len(some[0]))] if requests % 3 == 0 else some[0]
        found = served.run("serving_default", image_inputs(some))
        assert not any(found["error"][1:])
        requests += 1
    served.close()
    return {"minutes": minutes, "requests": requests, "resident_mib": memory}


def resident() -> float:
    """Resident memory of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="Folder of JPEG files.")
    parser.add_argument("--repetitions", type=int, default=7, help="Number of rounds.")
    parser.add_argument("--minutes", type=float, default=1.0, help="Minutes of requests.")
    parser.add_argument("--soak-width", type=float, default=0.25, help="Width of their net.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    photos = photos_of(arguments.photos)
    result = {"benchmark": "serving", "machine": machine(), "q": Q}
    with tempfile.TemporaryDirectory() as folder:
        net = random_net(1.0)
        seconds = timed(lambda: export(net, Path(folder) / "d"))
        path = Path(folder) / "d/1"
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        result["export"] = {
            "seconds": seconds,
            "bytes": size,
            "of_weights": size / (4 * net.model.count_params()),
        }
        request = Request("serving_default", image_inputs(photos[:1]))
        (reply,), load_seconds = replay(path, [request])
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh_process:
            result["loading"] = {
                "Python": {"load": load_seconds, "first": reply.first_seconds},
                "C++": fresh_process.submit(cpp_loading, path, photos[0]).result(),
            }
        result["latency"] = latency(net, path, photos, arguments.repetitions)
        if arguments.minutes:
            export(random_net(arguments.soak_width), Path(folder) / "soak")
            result["soak"] = soak(Path(folder) / "soak/1", photos, arguments.minutes)
    report(result, rows_of(result), ("", "bare", "serving", "ratio"), arguments.out)


def rows_of(result: dict) -> list[tuple]:
    """The rows of the table."""
    rows: list[tuple] = [
        (
            f"{name}, ms a photo",
            1e3 * np.median(found["bare"]),
            1e3 * np.median(found["serving_default"]),
            "{median:.3f} ({min:.3f} to {max:.3f})".format(**found["ratio"]),
        )
        for name, found in result["latency"].items()
    ]
    rows.append(("size / weights", "", "", f"{result['export']['of_weights']:.4f}"))
    for loader, found in result["loading"].items():
        rows.append((f"{loader} loader, s: load, first request", found["load"], found["first"], ""))
    if "soak" in result:
        memory = result["soak"]["resident_mib"]
        for share in (0, 0.25, 0.5, 0.75, 1):
            minute = round(share * (len(memory) - 1))
            rows.append((f"MiB resident after {minute} minutes", "", memory[minute], ""))
    return rows


if __name__ == "__main__":
    sys.exit(main())
