"""Speed of net D on an accelerator, under Keras's JAX backend. It takes two to three minutes.

    python benchmarks/accelerator.py [--photos DIR] [--out FILE]
    python benchmarks/accelerator.py --reproduce DATA --out FOLDER [-- OPTION...]

It measures images/s of training steps and of dense evaluation in bfloat16, as a share of the bf16
peak, which a matrix product gives; the largest batch that fits; and images/s that one CPU core
reads and augments. Without an accelerator the same code runs with a small net, which shows that it
works.

With --reproduce it runs `vgg-keras reproduce` instead: Tables 3 and 4 with nets A to E at full
width, crops of 64 pixels and three seeds. The same command goes on with what is there. DATA are as
of the command, for example `parquet:packed`, which `packing.py` writes. Options of the command,
each with its value, follow `--`; they replace those of the plan.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# With all algorithms to choose from, a net takes minutes to compile; without a choice, it runs
# dozens of times slower.
os.environ.setdefault("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=2")
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")  # of the device's memory

import jax
import keras
import numpy as np
import tensorflow as tf
from measuring import machine, report
from PIL import Image

from vgg_keras import Recipe, fully_convolutional, vgg
from vgg_keras.nets import FC_NAMES, STRIDE, get_net, weight_layers
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pipelines.training import training_stream
from vgg_keras.tasks import compile_model

NET, CROP, CLASSES = "D", 224, 1000
# width, batch sizes to try, Q and batch of dense evaluation, side of the matrices, repetitions
FULL = (1.0, (64, 256, 512), ((256, 64), (384, 32)), 8192, 20)
SMALL = (1 / 16, (8,), ((256, 2),), 512, 3)


# `vgg-keras reproduce` at small size, but at full width and as an accelerator trains best.
PLAN = {
    "--size": "small",
    "--nets": "A,B,C,D,E",
    "--tables": "3,4",
    "--seeds": "0,1,2",
    "--width": "1",
    "--epochs": "20",
    "--batch-size": "128",
    "--precision": "mixed_bfloat16",
}


def seconds_of(task: Callable[[], object], repetitions: int) -> float:
    """Median seconds of a task; a first call, which compiles, is not timed."""
    jax.block_until_ready(task())
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        jax.block_until_ready(task())
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def peak_flops(side: int, repetitions: int) -> float:
    """FLOP/s of the product of two bf16 matrices."""
    rng = np.random.default_rng(0)  # a product of ones is faster than one of any other numbers
    a = jax.numpy.asarray(rng.normal(size=(side, side)), jax.numpy.bfloat16)
    product = jax.jit(lambda a: a @ a)
    return 2 * side**3 / seconds_of(lambda: product(a), repetitions)


def multiply_adds(width: float, side: int = CROP) -> float:
    """Multiply-adds of one crop, or of a whole square image if its side is above the crop's."""
    positions = (side // STRIDE - CROP // STRIDE + 1) ** 2
    return sum(
        layer.multiply_adds * (positions if layer.name in FC_NAMES else (side / CROP) ** 2)
        for layer in weight_layers(get_net(NET), CLASSES, CROP, width)
    )


def training(width: float, batch_size: int, repetitions: int) -> dict:
    """Speed of training steps, compiled as for a recipe, on a batch that is on the device."""
    model = vgg(NET, CLASSES, CROP, width, classifier_activation=None)
    compile_model(model, Recipe(learning_rate=1e-4))
    rng = np.random.default_rng(0)
    x = jax.numpy.asarray(rng.normal(0, 60, (batch_size, CROP, CROP, 3)), "float32")
    y = jax.numpy.asarray(rng.integers(0, CLASSES, batch_size))
    seconds = seconds_of(lambda: model.train_on_batch(x, y), repetitions)
    used = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "batch_size": batch_size,
        "images_per_second": batch_size / seconds,
        "flops": 6 * multiply_adds(width) * batch_size / seconds,
        "peak_bytes": used,
    }


def train_growing_batches(
    width: float, sizes: tuple[int, ...], repetitions: int, ends: float
) -> list[dict]:
    """Speed of training by batch size, until one does not fit or the time is up."""
    results: list[dict] = []
    for size in sizes:
        if time.monotonic() > ends:
            break
        try:
            results.append(training(width, size, repetitions))
            print(results[-1], flush=True)
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            results.append({"batch_size": size, "images_per_second": None})
            break
        finally:
            keras.utils.clear_session()
    return results


def dense(width: float, side: int, batch_size: int, repetitions: int) -> dict:
    """Speed of the fully-convolutional net on whole images."""
    maps = fully_convolutional(vgg(NET, CLASSES, CROP, width, classifier_activation=None))
    rng = np.random.default_rng(0)
    x = jax.numpy.asarray(rng.normal(0, 60, (batch_size, side, side, 3)), "float32")
    weights = (
        [v.value for v in maps.trainable_variables],
        [v.value for v in maps.non_trainable_variables],
    )
    run = jax.jit(lambda w, x: maps.stateless_call(*w, x, training=False)[0]["scores"])
    seconds = seconds_of(lambda: run(weights, x), repetitions)
    rate = batch_size / seconds
    found = {
        "side": side,
        "batch_size": batch_size,
        "images_per_second": rate,
        "flops": 2 * multiply_adds(width, side) * rate,
    }
    print(found, flush=True)
    return found


def input_per_core(photos: Path | None, images: int = 256) -> float:
    """Images per CPU second of the training stream at S in [256;512], on one thread."""
    with tempfile.TemporaryDirectory() as drawn:
        files = sorted((photos or _draw_photos(Path(drawn))).rglob("*.[jJ][pP]*"))
        files = (files * -(-images // len(files)))[:images]
        split = FolderSplit("train", np.array([str(f) for f in files]), np.zeros(images, int))
        options = tf.data.Options()
        options.threading.private_threadpool_size = 1
        options.autotune.enabled = False
        stream = training_stream(
            split, crop_size=CROP, train_scale=(256, 512), batch_size=32, statistics=ILSVRC
        ).with_options(options)
        batches = iter(stream)
        next(batches)
        started, count = time.process_time(), images // 32
        for _ in range(count):
            next(batches)
        return 32 * count / (time.process_time() - started)


def _draw_photos(folder: Path) -> Path:
    """Draws JPEG files of a photo's size into a folder."""
    rng = np.random.default_rng(0)
    for i in range(8):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3)).astype(np.uint8))
        pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(int)
        noisy = (pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
        (folder / f"{i}.jpg").write_bytes(buffer.getvalue())
    return folder


def reproduce(data: str, out: Path, seconds: float, options: list[str]) -> None:
    """Carries out as much of the plan as the time allows. A step that is killed goes on later."""
    plan = PLAN | dict(zip(options[::2], options[1::2], strict=True))
    command = [sys.executable, "-m", "vgg_keras", "reproduce", "--data", data, "--out", str(out)]
    command += [part for option in plan.items() for part in option]
    try:
        subprocess.run(command, timeout=seconds, check=True)
    except subprocess.TimeoutExpired:
        print("The time is up; the same command goes on.", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, help="Folder of JPEG files [drawn ones].")
    parser.add_argument("--out", type=Path, help="JSON file for the results, or the plan's folder.")
    parser.add_argument(
        "--seconds", type=int, help="No later batch size starts [100]; or time of the plan [540]."
    )
    parser.add_argument("--reproduce", metavar="DATA", help="Carry out the plan with these data.")
    parser.add_argument("options", nargs="*", help="Options of `vgg-keras reproduce`, after `--`.")
    arguments = parser.parse_args()
    if arguments.reproduce:
        out = arguments.out or parser.error("--reproduce needs --out.")
        reproduce(arguments.reproduce, out, arguments.seconds or 540, arguments.options)
        return
    ends = time.monotonic() + (arguments.seconds or 100)
    tf.config.set_visible_devices([], "GPU")
    device = jax.devices()[0]
    is_small = device.platform == "cpu"
    width, sizes, scales, side, repetitions = SMALL if is_small else FULL
    keras.config.set_dtype_policy("mixed_bfloat16")
    peak = peak_flops(side, repetitions)
    print(f"peak: {peak / 1e12:.0f} TFLOP/s", flush=True)
    result = {
        "benchmark": f"net {NET} at {CROP}, JAX, mixed_bfloat16",
        **machine(),
        "jax": jax.__version__,
        "accelerator": None if is_small else device.device_kind,
        "width": width,
        "peak_bf16_flops": peak,
        "input_images_per_core_second": input_per_core(arguments.photos),
        "dense": [dense(width, q, b, repetitions) for q, b in scales],
        "training": train_growing_batches(width, sizes, repetitions, ends),
    }
    rows = [
        (
            measurement,
            entry["batch_size"],
            entry["images_per_second"] or "does not fit",
            entry["flops"] / peak if "flops" in entry else "",
        )
        for measurement, entries in (("training", result["training"]), ("dense", result["dense"]))
        for entry in entries
    ]
    rows.append(("input, one core", "", result["input_images_per_core_second"], ""))
    report(result, rows, ("", "batch", "images/s", "of the bf16 peak"), arguments.out)


if __name__ == "__main__":
    main()
