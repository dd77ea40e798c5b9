"""Writes the images of class folders as TFRecord, Parquet and WebDataset files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

KINDS = ("tfrecord", "parquet", "plain-parquet", "webdataset")
SPLITS = {"train": "train", "val": "validation"}


def images_of(folder: Path, split: str) -> list[tuple[str, str, bytes]]:
    """Class, name and contents of all images of class folders, in order."""
    return [
        (file.parent.name, file.name, file.read_bytes())
        for file in sorted((folder / split).glob("*/*"))
    ]


def example(
    image: bytes, label: int | None = 1, name: str = "a.jpg", synset: str = "", boxes=None
) -> bytes:
    """A serialised `tf.train.Example` as the scripts for ImageNet write it."""
    Feature = tf.train.Feature
    features = {
        "image/encoded": Feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/filename": Feature(bytes_list=tf.train.BytesList(value=[name.encode()])),
        "image/height": Feature(int64_list=tf.train.Int64List(value=[300])),
        "image/format": Feature(bytes_list=tf.train.BytesList(value=[b"JPEG"])),
    }
    if label is not None:
        features["image/class/label"] = Feature(int64_list=tf.train.Int64List(value=[label]))
    if synset:
        features["image/class/synset"] = Feature(
            bytes_list=tf.train.BytesList(value=[synset.encode()])
        )
    for i, edge in enumerate(("xmin", "ymin", "xmax", "ymax") if boxes is not None else ()):
        features[f"image/object/bbox/{edge}"] = Feature(
            float_list=tf.train.FloatList(value=[box[i] for box in boxes])
        )
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_tfrecord(path: Path, records: Iterable[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_parquet(path: Path, images, labels, names=None, class_names=None, **options) -> Path:
    """A file as Hugging Face writes it, in row groups of three images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = names or [None] * len(images)
    rows = [{"bytes": b, "path": n} for b, n in zip(images, names, strict=True)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), "label": pa.array(labels, pa.int64())})
    if class_names:
        features = {
            "image": {"_type": "Image"},
            "label": {"_type": "ClassLabel", "names": class_names},
        }
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(table, path, **{"row_group_size": 3, **options})
    return path


def write_shards(kind: str, folder: Path, root: Path, seed: int = 0, count: int = 2) -> str:
    """Writes `count` shards of each split of class folders, in an order drawn from the seed.

    Returns the data spec.
    """
    classes = sorted({path.name for path in (folder / "train").iterdir()})
    for split, word in SPLITS.items():
        images = images_of(folder, split)
        order = np.random.default_rng(seed).permutation(len(images))
        for shard, mine in enumerate(np.array_split(order, count)):
            chosen = [images[i] for i in mine]
            _write_shard(kind, root, f"{word}-{shard:05d}-of-{count:05d}", chosen, classes)
    return f"{kind.removeprefix('plain-')}:{root}"


def _write_shard(kind, root, name, images, classes) -> None:
    labels = [classes.index(class_name) for class_name, _, _ in images]
    if kind == "tfrecord":
        records = [
            example(content, label + 1, f"{class_name}_{file}", class_name)
            for (class_name, file, content), label in zip(images, labels, strict=True)
        ]
        write_tfrecord(root / name, records)
    elif kind == "webdataset":
        write_tar(root / f"{name}.tar", _members(images))
    else:
        write_parquet(
            root / f"{name}.parquet",
            [content for _, _, content in images],
            labels,
            [f"{class_name}_{file}" for class_name, file, _ in images],
            classes,
            compression=None if kind == "plain-parquet" else "zstd",
        )


def _members(images) -> Iterator[tuple[str, bytes]]:
    for class_name, file, content in images:
        key = f"{class_name}_{Path(file).stem}"
        yield f"{key}.jpg", content
        yield f"{key}.json", json.dumps({"label": class_name}).encode()
