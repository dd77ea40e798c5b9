"""Packs class folders into two Parquet files, for a machine to which little can be copied.

    python benchmarks/packing.py DATA OUT [--side 146] [--mib 38]

Images are reduced to the given smaller side and saved as JPEG, with the best quality at which both
files together stay below the size. 146 pixels are the largest S and Q of nets with 64-pixel crops.
The files are read as `parquet:OUT`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import Split

QUALITIES = (90, 85, 80, 75, 70, 60, 50, 40, 30)
MIB = 2**20
NAMES = {"train": "train", "val": "validation"}  # as Hugging Face names the files of the splits


def reduced(encoded: bytes, side: int, quality: int) -> bytes:
    """An image as JPEG, upright, with at most the given smaller side."""
    with Image.open(io.BytesIO(encoded)) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    factor = side / min(image.size)
    if factor < 1:
        size = round(factor * image.width), round(factor * image.height)
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def packed(split: Split, class_names: tuple[str, ...], side: int, quality: int) -> pa.Table:
    """The images of a split with their labels, in Hugging Face's form."""
    encoded = split.in_order().map(split.read).as_numpy_iterator()
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda one: reduced(one, side, quality), encoded))
    names = [name.replace("/", "_") for name in split.ids_of(range(len(split)))]
    rows = [{"bytes": b, "path": name} for b, name in zip(images, names, strict=True)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {"image": pa.array(rows, kind), "label": pa.array(split.all_labels(), pa.int64())}
    )
    classes = {"_type": "ClassLabel", "names": list(class_names)}
    features = {"image": {"_type": "Image"}, "label": classes}
    description = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": description})


def pack(data: str, side: int, limit: int) -> tuple[int, dict[str, pa.Table]]:
    """The best quality at which the images are small enough, and the table of each split."""
    source = open_source(data)
    for quality in QUALITIES:
        found = {
            NAMES[name]: packed(source[name], source.class_names, side, quality) for name in NAMES
        }
        if sum(table.nbytes for table in found.values()) < limit:
            return quality, found
    raise SystemExit(f"Even at quality {quality} the images take more than {limit} bytes.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="Folder with train/CLASS/ and val/CLASS/.")
    parser.add_argument("out", type=Path, help="Folder for the two files.")
    parser.add_argument("--side", type=int, default=146, help="Smaller side of the images.")
    parser.add_argument("--mib", type=float, default=38, help="Size of both files, in MiB.")
    options = parser.parse_args()
    quality, found = pack(f"folder:{options.data}", options.side, int(options.mib * MIB))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, table in found.items():
        file = options.out / f"{name}-00000-of-00001.parquet"
        # Neither compressed nor coded, so that images are read in place.
        pq.write_table(table, file, compression="none", use_dictionary=False, row_group_size=1000)
        size = file.stat().st_size / MIB
        print(f"{file}: {len(table)} images, quality {quality}, {size:.1f} MiB")


if __name__ == "__main__":
    main()
