"""Parquet files as Hugging Face writes image data sets, such as imagenet-1k.

The column `image` is a structure of `bytes` and `path`, or the bytes alone; `label` is an integer,
-1 if it is unknown. Hugging Face's own description of the columns, in the metadata of the file,
names other columns and the classes.

An image can be read by its offset only if its bytes lie in the file as they are: pages are neither
compressed nor coded by differences. The images of other files are copied into the cache, once.
`datasets` does so too, into Arrow files. The alternative, to decompress the page for each image,
reads a whole row group for one image: Hugging Face's have 100 images in one page.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vgg_keras.pipelines.checks import first_few
from vgg_keras.pipelines.sources.image_index import LONGEST_NAME, Entry, Write
from vgg_keras.pipelines.sources.parquet_pages import page_sizes

_BATCH_BYTES = 2**25  # of images; several batches are in memory
_SMALL = 2**26  # pages and files below this are never taken for bombs
_MOST_COMPRESSED = 20  # times smaller than its contents; encoded images can hardly be compressed
_BUFFER = 2**20  # bytes read at once
_COMPARED = 64  # first bytes by which an image is looked for
_MOST_CANDIDATES = 64
_FEATURES = ("Image", "ClassLabel")  # types in Hugging Face's metadata
_WNID = re.compile(r"_(n\d{8})\.\w+")  # how imagenet-1k names files: n01440764_26_n01440764.JPEG


class _Columns(NamedTuple):
    """Which columns hold what.

    Attributes:
        image: the column of the images.
        content: path of the leaf column with their bytes.
        label: the column of the labels; None if there is none.
        class_names: names of the classes by label, if the file states them.
    """

    image: str
    content: str
    label: str | None
    class_names: list[str] | None


class _Group(NamedTuple):
    """A row group.

    Attributes:
        number: its index in the file.
        rows: number of rows.
        start, stop: first byte of the column of the images, and the byte after its last.
        size: bytes of the column's pages in memory.
        batch: rows of which even the largest images fit into memory.
        is_plain: whether the pages are as large in the file as in memory.
    """

    number: int
    rows: int
    start: int
    stop: int
    size: int
    batch: int
    is_plain: bool


def scan_parquet(path: str, open_copy: Callable[[int], Write]) -> Iterator[Entry]:
    """Finds the images of a file.

    Raises:
        ValueError: the file is damaged, has other columns, or has pages that are compressed as no
            images are. The message names the row.
    """
    # Without mapping and with a buffer, PyArrow reads page after page.
    with open(path, "rb") as opened, pq.ParquetFile(path, buffer_size=_BUFFER) as file:
        columns = _columns(file.schema_arrow)
        groups = [
            _group(file.metadata.row_group(number), number, columns, opened.fileno())
            for number in range(file.metadata.num_row_groups)
        ]
        if sum(group.rows for group in groups) > os.fstat(opened.fileno()).st_size:
            raise ValueError("it declares more rows than it has bytes")
        is_plain = all(group.is_plain for group in groups)
        found = _in_place(opened, file, groups, columns) if is_plain else None
        if found is None:
            write = open_copy(sum(group.size for group in groups))
            yield from _copied(write, file, groups, columns)
        else:
            yield from found


def _columns(schema: pa.Schema) -> _Columns:
    """The columns that Hugging Face's metadata describe; else `image` and `label`."""
    stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = stated.get("info", {}).get("features", {})
    kinds = {name: f.get("_type") for name, f in features.items() if isinstance(f, dict)}
    images, labels = ([n for n in schema.names if kinds.get(n) == k] for k in _FEATURES)
    if len(labels) > 1 and "label" not in schema.names:
        raise ValueError(
            f"it must have one label, or a column that is named label. "
            f"Received: {first_few(labels)}"
        )
    image = images[0] if len(images) == 1 else "image"
    label = labels[0] if len(labels) == 1 else "label"
    found = {name: schema.field(name).type for name in schema.names}
    kind = found.get(image)
    if kind is not None and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        content, kind = f"{image}.bytes", kind.field("bytes").type
    else:
        content = image
    if kind not in (pa.binary(), pa.large_binary()) or not (
        label not in found or pa.types.is_integer(found[label])
    ):
        columns = [f"{name} ({kind})" for name, kind in found.items()]
        raise ValueError(
            "it must have the columns image, a structure with bytes or binary, and label, an "
            f"integer. Received: {first_few(columns, 10)}"
        )
    return _Columns(
        image, content, label if label in found else None, features.get(label, {}).get("names")
    )


def _group(
    metadata: pq.RowGroupMetaData, number: int, columns: _Columns, descriptor: int
) -> _Group:
    leaves = [metadata.column(i) for i in range(metadata.num_columns)]
    # All columns that `_rows` reads, with the path of the images and the labels.
    extents = {
        leaf.path_in_schema: _extent(leaf, number, descriptor)
        for leaf in leaves
        if leaf.path_in_schema.split(".")[0] in (columns.image, columns.label)
    }
    pages = {path: list(page_sizes(descriptor, *extent)) for path, extent in extents.items()}
    for page in itertools.chain(*pages.values()):
        if page.uncompressed > max(_SMALL, _MOST_COMPRESSED * page.compressed):
            raise ValueError(
                f"a page of row group {number} has {page.compressed} bytes and declares "
                f"{page.uncompressed} bytes of contents, more than images can be compressed"
            )
    largest = max((page.uncompressed for page in itertools.chain(*pages.values())), default=1)
    batch = min(max(_BATCH_BYTES // max(largest, 1), 1), 1024)
    # Not `leaf.compression`: an unknown codec in it ends the process (PyArrow 26).
    images = pages[columns.content]
    is_plain = all(page.compressed == page.uncompressed for page in images)
    size = sum(page.uncompressed for page in images)
    return _Group(number, metadata.num_rows, *extents[columns.content], size, batch, is_plain)


def _extent(leaf: pq.ColumnChunkMetaData, number: int, descriptor: int) -> tuple[int, int]:
    """First byte of a column of a row group, and the byte after its last."""
    starts = leaf.dictionary_page_offset, leaf.data_page_offset
    start = min(offset for offset in starts if offset)  # 0 or None: no dictionary
    stop = start + leaf.total_compressed_size
    if not 0 < start < stop <= os.fstat(descriptor).st_size:
        raise ValueError(f"row group {number} does not end inside the file")
    return start, stop


def _rows(
    file: pq.ParquetFile, groups: Sequence[_Group], columns: _Columns
) -> Iterator[tuple[_Group, bytes, dict[str, Any]]]:
    """The group of each row, its image, and the fields of an `Entry` except the offset."""
    number = 0
    wanted = [columns.image] + ([columns.label] if columns.label else [])
    for group in groups:
        for batch in file.iter_batches(group.batch, [group.number], wanted):
            images = batch[columns.image].to_pylist()
            labels = batch[columns.label].to_pylist() if columns.label else [None] * len(images)
            for image, label in zip(images, labels, strict=True):
                path = image.get("path") if isinstance(image, dict) else None
                content = image.get("bytes") if isinstance(image, dict) else image
                if not content:
                    raise ValueError(f"row {number} has no image bytes")
                yield group, content, _fields(path or "", label, number, columns.class_names)
                number += 1


def _fields(
    path: str, label: int | None, row: int, class_names: Sequence[str] | None
) -> dict[str, Any]:
    label = -1 if label is None else label
    if not -1 <= label < (2**31 if class_names is None else len(class_names)):
        limit = "" if class_names is None else f" to {len(class_names) - 1}"
        raise ValueError(f"the label of row {row} must be from 0{limit}. Received: {label}")
    if len(path) > LONGEST_NAME:
        raise ValueError(f"the path of row {row} has {len(path)} characters")
    name = path.replace("\\", "/").rpartition("/")[2]
    class_name = ""
    if label >= 0:
        wnid = _WNID.search(name)
        class_name = wnid[1] if wnid else class_names[label] if class_names else ""
    return {"label": label, "class_name": class_name, "name": name}


def _in_place(
    opened: BinaryIO, file: pq.ParquetFile, groups: Sequence[_Group], columns: _Columns
) -> list[Entry] | None:
    """The images as they lie in the file; None if one does not."""
    entries = []
    with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        last, position = None, 0
        for group, image, fields in _rows(file, groups, columns):
            position = position if group is last else group.start
            offset = _find(data, image, position, group.stop)
            if offset is None:
                return None
            entries.append(Entry(offset, len(image), **fields))
            last, position = group, offset + len(image)
    return entries


def _find(data: mmap.mmap, image: bytes, start: int, stop: int) -> int | None:
    for _ in range(_MOST_CANDIDATES):
        start = data.find(image[:_COMPARED], start, stop)
        if start < 0:
            return None
        if data[start : start + len(image)] == image:
            return start
        start += 1
    return None


def _copied(
    write: Write, file: pq.ParquetFile, groups: Sequence[_Group], columns: _Columns
) -> Iterator[Entry]:
    """The images as they lie in a copy."""
    limit = max(_SMALL, 2 * sum(group.size for group in groups))
    offset = 0
    for _, image, fields in _rows(file, groups, columns):
        if offset + len(image) > limit:  # a dictionary can repeat one image without end
            raise ValueError(f"its images have more bytes than its pages, {limit // 2}")
        write(image)
        yield Entry(offset, len(image), **fields)
        offset += len(image)
