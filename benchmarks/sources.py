"""Images per CPU second of the training stream, from one kind of data compared with another.

    python benchmarks/sources.py --data DIR --work DIR [--out FILE.json]

The images of DIR/train/CLASS/* are written as TFRecord, Parquet (compressed by snappy, as Hugging
Face writes it, and not compressed) and WebDataset files below the folder `--work`. The streams are
timed in turn in many short rounds, each on one thread, in CPU seconds. Then each kind's index of
small records is built once, and opened again.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from input_pipeline import cpu_rate, one_thread
from measuring import in_turn, machine, ratios, report

from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import Split
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pipelines.training import training_stream

BATCH, SHARDS = 32, 4


def write_tfrecord(path: Path, images: list[tuple[int, Path]], classes: list[str]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label, file in images:
            texts = {
                "image/encoded": file.read_bytes(),
                "image/filename": file.name.encode(),
                "image/class/synset": classes[label].encode(),
            }
            features = {
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                for key, value in texts.items()
            }
            features["image/class/label"] = tf.train.Feature(
                int64_list=tf.train.Int64List(value=[label + 1])
            )
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def write_parquet(path: Path, images: list[tuple[int, Path]], compression: str | None) -> None:
    rows = [{"bytes": file.read_bytes(), "path": file.name} for _, file in images]
    table = pa.table({"image": rows, "label": [label for label, _ in images]})
    pq.write_table(table, path, row_group_size=100, compression=compression)


def write_tar(path: Path, images: list[tuple[int, Path]]) -> None:
    with tarfile.open(path, "w") as archive:
        for label, file in images:
            for suffix, content in (("jpg", file.read_bytes()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{file.stem}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_all(data: Path, work: Path) -> dict[str, str]:
    """Writes the files unless they exist; returns the spec of each kind of data."""
    classes = sorted(folder.name for folder in (data / "train").iterdir())
    images = [
        (i, f) for i, name in enumerate(classes) for f in sorted((data / "train" / name).iterdir())
    ]
    order = np.random.default_rng(0).permutation(len(images))
    writers = {
        "tfrecord": lambda path, some: write_tfrecord(path, some, classes),
        "parquet": lambda path, some: write_parquet(path.with_suffix(".parquet"), some, "snappy"),
        "plain": lambda path, some: write_parquet(path.with_suffix(".parquet"), some, None),
        "webdataset": lambda path, some: write_tar(path.with_suffix(".tar"), some),
    }
    for name, write in writers.items():
        if not (work / name).exists():
            (work / name).mkdir(parents=True)
            for i, mine in enumerate(np.array_split(order, SHARDS)):
                write(work / name / f"train-{i:05d}-of-{SHARDS:05d}", [images[j] for j in mine])
    return {
        "folder": f"folder:{data}",
        "tfrecord": f"tfrecord:{work / 'tfrecord'}",
        "parquet": f"parquet:{work / 'parquet'}",
        "parquet, plain": f"parquet:{work / 'plain'}",
        "tar": f"webdataset:{work / 'webdataset'}",
    }


def link_records(folder: Path, count: int) -> Path:
    """Makes class folders with many names of one JPEG of about 1 KB."""
    photo = tf.io.encode_jpeg(np.random.default_rng(0).integers(0, 255, (16, 16, 3), "uint8"))
    for label in range(10 if not folder.exists() else 0):
        (folder / "train" / str(label)).mkdir(parents=True)
        first = folder / "train" / str(label) / f"{label}-0.jpg"
        first.write_bytes(photo.numpy())
        for i in range(1, count // 10):
            os.link(first, first.with_name(f"{label}-{i}.jpg"))
    return folder


def index_seconds(spec: str) -> dict[str, float]:
    """Seconds to build an index, and to open the data again."""
    with tempfile.TemporaryDirectory() as cache:
        wall, cpu = time.perf_counter(), time.process_time()
        open_source(spec, cache)
        built, busy = time.perf_counter() - wall, time.process_time() - cpu
        wall = time.perf_counter()
        open_source(spec, cache)
        return {"built": built, "built_cpu": busy, "again": time.perf_counter() - wall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="Folder with train/CLASS/*.")
    parser.add_argument("--work", type=Path, required=True, help="Folder for the files.")
    parser.add_argument("--crop-size", type=int, default=128)
    parser.add_argument("--train-scale", type=int, nargs=2, default=(128, 160))
    parser.add_argument("--images", type=int, default=1280, help="Images in a repetition.")
    parser.add_argument("--repetitions", type=int, default=15, help="Number of rounds.")
    parser.add_argument("--records", type=int, default=100_000, help="Records of an index.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    options = {"crop_size": arguments.crop_size, "train_scale": tuple(arguments.train_scale)}

    def rate(split: Split) -> float:
        # A stream of its own: one that lived on would fill its buffers in the others' rounds.
        stream = training_stream(split, batch_size=BATCH, statistics=ILSVRC, **options)
        return cpu_rate((len(images) for images, _ in one_thread(stream)), arguments.images)

    tasks = {}
    for name, spec in write_all(arguments.data, arguments.work).items():
        split = open_source(spec, arguments.work / "cache")["train"]
        tasks[name] = lambda split=split: rate(split)
    figures = in_turn(tasks, arguments.repetitions + 1)
    figures = {name: rates[1:] for name, rates in figures.items()}  # the first round compiles
    compared = {name: ratios(figures, name, "folder") for name in figures}
    result = {"benchmark": "sources, images per CPU second", **machine(), **options}
    result |= {"images_per_second": figures, "ratios": compared}
    rows = [
        (name, float(np.median(figures[name])), *(float(r) for r in compared[name].values()))
        for name in figures
    ]
    columns = ("data", "images/s", "/ folder, median", "min", "max")
    records = link_records(arguments.work / "links", arguments.records)
    specs = write_all(records, arguments.work / "records")
    indexes = {name: index_seconds(spec) for name, spec in specs.items()}
    result["index_seconds"] = {"records": arguments.records, **indexes}
    for name, seconds in indexes.items():
        rows.append((f"index of {name}, s: built, its CPU time, again", *seconds.values(), ""))
    report(result, rows, columns, arguments.out)


if __name__ == "__main__":
    main()
