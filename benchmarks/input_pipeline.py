"""Images per CPU second of the training stream, compared with simpler ways of reading.

    python benchmarks/input_pipeline.py --photos DIR [--out FILE.json]

Four streams read the same files with the same draws, in turn, each on one thread:

- stream: `vgg_keras.pipelines.training`, which decodes only the window;
- plain: the usual `tf.data` code: decode, rescale, crop, flip, colour shift, mean;
- decode: `tf.io.decode_jpeg` alone, one file after another;
- pillow: Pillow and NumPy doing what `plain` does.

They are timed in CPU seconds, so that other work on the machine changes little. There are many
short rounds, because other work still changes something, and because the first round compiles.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from measuring import in_turn, machine, ratios, report
from PIL import Image

from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pipelines.training import training_stream

JPEG = (".jpg", ".jpeg")
CROP, BATCH = 224, 32
MEAN = np.asarray(ILSVRC.mean, np.float32)
SHIFT = (ILSVRC.shift_matrix() * 0.1).astype(np.float32)


def one_thread(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset on one thread, without autotuning."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    return dataset.with_options(options)


def cpu_rate(batches, images: int) -> float:
    """Images per CPU second over `images` images; the first batch is not counted."""
    iterator = iter(batches)
    next(iterator)
    count, started = 0, time.process_time()
    while count < images:
        count += next(iterator)
    return count / (time.process_time() - started)


def stream(split: FolderSplit, scale: tuple[int, int]):
    """Batches of `training_stream`; this and the following functions yield batch sizes."""
    dataset = training_stream(
        split, crop_size=CROP, train_scale=scale, batch_size=BATCH, statistics=ILSVRC
    )
    for images, _ in one_thread(dataset):
        yield len(images)


def plain(split: FolderSplit, scale: tuple[int, int]):
    """Batches of the usual `tf.data` code."""

    def load(path, index):
        draws = tf.random.stateless_uniform((4,), tf.stack([tf.constant(0, tf.int64), index]))
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        s = tf.floor(scale[0] + draws[0] * (scale[1] - scale[0] + 1))
        image = tf.image.resize(image, tf.cast(tf.round(size * s / tf.reduce_min(size)), tf.int32))
        free = tf.cast(tf.shape(image)[:2] - CROP + 1, tf.float32)
        row, column = tf.unstack(tf.cast(draws[1:3] * free, tf.int32))
        image = image[row : row + CROP, column : column + CROP]
        image = tf.cond(draws[3] < 0.5, lambda: tf.image.flip_left_right(image), lambda: image)
        normal = tf.random.stateless_normal((3,), tf.stack([tf.constant(1, tf.int64), index]))
        image = image + tf.linalg.matvec(SHIFT, normal) - MEAN
        return tf.ensure_shape(image, (CROP, CROP, 3))

    paths = tf.data.Dataset.from_tensor_slices(split.paths).repeat()
    dataset = tf.data.Dataset.zip(paths, tf.data.Dataset.counter())
    dataset = dataset.map(load, num_parallel_calls=1).batch(BATCH).prefetch(1)
    for images in one_thread(dataset):
        yield len(images)


def decode(split: FolderSplit, scale: tuple[int, int]):
    """Decoded images of full size."""
    del scale
    paths = tf.data.Dataset.from_tensor_slices(split.paths).repeat()
    dataset = paths.map(lambda p: tf.io.decode_jpeg(tf.io.read_file(p), channels=3))
    for _ in one_thread(dataset):
        yield 1


def pillow(split: FolderSplit, scale: tuple[int, int]):
    """Batches that Pillow and NumPy make."""
    rng = np.random.default_rng(0)
    while True:
        batch = []
        for path in rng.permutation(split.paths)[:BATCH]:
            image = Image.open(path).convert("RGB")
            s = rng.integers(scale[0], scale[1] + 1) / min(image.size)
            image = image.resize(
                [round(side * s) for side in image.size], Image.Resampling.BILINEAR
            )
            left, top = (rng.integers(0, side - CROP + 1) for side in image.size)
            pixels = np.asarray(image.crop((left, top, left + CROP, top + CROP)), np.float32)
            if rng.random() < 0.5:
                pixels = pixels[:, ::-1]
            batch.append(pixels + (SHIFT @ rng.standard_normal(3)).astype(np.float32) - MEAN)
        yield len(np.stack(batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="Folder of JPEG files.")
    parser.add_argument("--images", type=int, default=640, help="Images in a repetition.")
    parser.add_argument("--repetitions", type=int, default=15, help="Number of rounds.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    files = sorted(str(p) for p in arguments.photos.rglob("*") if p.suffix.lower() in JPEG)
    # The photos are repeated, so that an epoch is as long as that of a training set.
    listed = np.resize(files, max(len(files), arguments.images))
    split = FolderSplit("train", listed, np.zeros(len(listed), np.int64))

    streams = {f.__name__: f for f in (stream, plain, decode, pillow)}
    result: dict = {"benchmark": "input pipeline, images per CPU second", **machine()}
    result |= {"photos": len(files), "crop_size": CROP, "scales": {}}
    rows = []
    for scale in ((256, 256), (256, 512)):
        tasks = {
            name: lambda read=read, scale=scale: cpu_rate(read(split, scale), arguments.images)
            for name, read in streams.items()
        }
        figures = in_turn(tasks, arguments.repetitions)
        compared = {f"stream / {o}": ratios(figures, "stream", o) for o in list(streams)[1:]}
        label = str(scale[0]) if scale[0] == scale[1] else f"[{scale[0]};{scale[1]}]"
        result["scales"][label] = {"images_per_second": figures, "ratios": compared}
        medians = [float(np.median(figures[name])) for name in streams]
        rows.append((label, *medians, *(r["median"] for r in compared.values())))
    report(result, rows, ("S", *streams, *compared), arguments.out)


if __name__ == "__main__":
    main()
