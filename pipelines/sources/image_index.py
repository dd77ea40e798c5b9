"""Index of the images in files that hold many: where each one's bytes are, its label and its name.

An index is made once for each file. It is cached, and rebuilt when the size or the time of
modification of the file changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from vgg_keras.pipelines.contents import naming_file
from vgg_keras.pipelines.errors import SourceError, WriteError
from vgg_keras.pipelines.files import atomic_path, file_state, locked
from vgg_keras.pipelines.sources.listing import text_of_path

log = logging.getLogger(__name__)

LARGEST_IMAGE = 2**28  # bytes of an encoded image; far above any, and it fits into memory
LONGEST_NAME = 2**16  # characters of the name of an image; far above those of any file system
_CACHE = "image_indexes"  # folder of the cache in `data_dir`
_VERSION = 2  # of the format of the cached files
_KEY = b"vgg_keras.index"  # of their metadata
_SCHEMA = pa.schema(
    [
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("label", pa.int64()),
        ("class_name", pa.string()),
        ("name", pa.string()),
        ("boxes", pa.list_(pa.float32())),
    ]
)


class Entry(NamedTuple):
    """One image of a file.

    Attributes:
        offset, length: where its encoded bytes are.
        label: label as the file states it; -1 if it states none.
        class_name: name of the class as the file states it; "" if it states none.
        name: name of the image; "" if it has none.
        boxes: edges of its boxes as shares, x_min, y_min, x_max, y_max of each box after those of
            another; None if the file states no boxes.
    """

    offset: int
    length: int
    label: int
    class_name: str
    name: str
    boxes: list[float] | None = None


# Finds the images of a file, given its path. If their bytes do not lie in the file as they are, the
# scan writes all of them to another file. The second argument opens it, given their size, and
# returns the function that writes.
Write = Callable[[bytes], object]
Scan = Callable[[str, Callable[[int], Write]], Iterator[Entry]]


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedFile:
    """A file that holds images, with the index of them.

    Attributes:
        path: the file.
        state: its `file_state` when it was indexed.
        data: the file to which offsets refer: `path`, or a copy of its images in the cache.
        data_state: state of that file.
        table: one row for each image, see `Entry`. Names in it are unique and not empty.
    """

    path: str
    state: str
    data: str
    data_state: str
    table: pa.Table

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of an image. The file is opened at each call, as image files in folders are.

        Raises:
            SourceError: the file cannot be read, or has changed since it was indexed.
        """
        try:
            descriptor = os.open(self.data, os.O_RDONLY)
            try:
                if file_state(descriptor) == self.data_state:
                    content = os.pread(descriptor, length, offset)
                    if len(content) == length:
                        return content
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SourceError(f"{text_of_path(self.data)} cannot be read: {error}") from error
        raise SourceError(f"{text_of_path(self.data)} has changed since it was opened.")


def index_files(
    paths: Sequence[str], kind: str, scan: Scan, data_dir: str | os.PathLike | None
) -> list[IndexedFile]:
    """Indexes files, or reads their indexes from the cache.

    A second process waits for the first one that indexes a file, and then reads what it has cached.
    If the cache cannot be written, a warning says so, and the indexes stay in memory.

    Args:
        paths: absolute paths of the files.
        kind: name of the kind of file.
        scan: finds the images of a file.
        data_dir: folder in which the cache is; by default ~/tensorflow_datasets.

    Raises:
        SourceError: a file is damaged. The message names it.
        WriteError: a file needs a copy in the cache, which cannot be written.
    """
    # TFDS has the same default.
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    cache = Path(data_dir or default).expanduser() / _CACHE
    found = {path: _cached(path, kind, cache) for path in paths}
    missing = [path for path in paths if found[path] is None]
    if missing:
        log.info("indexing %d files, the first is %s", len(missing), text_of_path(missing[0]))
    for path in missing:
        with contextlib.ExitStack() as lock:
            with contextlib.suppress(OSError):  # a cache without locks, or that is read-only
                lock.enter_context(locked(_cache_file(path, kind, cache).with_suffix(".lock")))
            found[path] = _cached(path, kind, cache) or _index(path, kind, scan, cache)
    return [file for file in found.values() if file is not None]


def _cache_file(path: str, kind: str, cache: Path) -> Path:
    digest = hashlib.blake2b(f"{kind}\0".encode() + os.fsencode(path), digest_size=12)
    return cache / f"{digest.hexdigest()}.arrow"


def _cached(path: str, kind: str, cache: Path) -> IndexedFile | None:
    """The index of a file if it is cached and the file has not changed."""
    file = _cache_file(path, kind, cache)
    try:
        # Read and not mapped: another process may replace the file at any time.
        with pa.OSFile(os.fspath(file)) as opened, pa.ipc.open_file(opened) as reader:
            table = reader.read_all()
        header = json.loads(table.schema.metadata[_KEY])
        data = os.fspath(file.with_suffix(".images")) if header["copied"] else path
        indexed = IndexedFile(path, header["state"], data, header["data_state"], table)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file is made again
        log.warning("the cached index %s cannot be read: %s", file, error)
        return None
    is_current = (header["version"], table.schema.names) == (_VERSION, _SCHEMA.names) and (
        (file_state(path), file_state(data)) == (indexed.state, indexed.data_state)
    )
    return indexed if is_current else None


def _index(path: str, kind: str, scan: Scan, cache: Path) -> IndexedFile:
    """Indexes a file and caches the index."""
    file, state = _cache_file(path, kind, cache), file_state(path)
    copy = file.with_suffix(".images")
    with contextlib.ExitStack() as opened:
        is_copied = []

        def open_copy(size: int) -> Write:
            is_copied.append(True)
            log.info("copying the images of %s to %s", text_of_path(path), copy)
            return opened.enter_context(_atomic_file(copy, path, size))

        with naming_file(text_of_path(path), SourceError, f"cannot be read as a {kind} file"):
            table = _table(scan(path, open_copy), path)
    if file_state(path) != state:
        raise SourceError(f"{text_of_path(path)} has changed while it was indexed.")
    data, data_state = (os.fspath(copy), file_state(copy)) if is_copied else (path, state)
    header = {"version": _VERSION, "path": text_of_path(path), "copied": bool(is_copied)}
    header |= {"state": state, "data_state": data_state}
    table = table.replace_schema_metadata({_KEY: json.dumps(header)})
    try:
        with (
            atomic_path(file) as temporary,
            pa.OSFile(os.fspath(temporary), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)
    except OSError as error:
        log.warning("the index of %s cannot be cached in %s: %s", text_of_path(path), cache, error)
    return IndexedFile(path, state, data, data_state, table)


@contextlib.contextmanager
def _atomic_file(copy: Path, path: str, size: int) -> Iterator[Write]:
    """Writes a file in the cache for the images of `path`, of about `size` bytes."""

    def write(content: bytes) -> None:
        # Inside a scan, whose other errors are those of `path`.
        with _naming_copy(copy, path):
            opened.write(content)

    with _naming_copy(copy, path), atomic_path(copy) as temporary:
        if size > shutil.disk_usage(copy.parent).free:
            raise OSError(f"it needs {size} bytes, which the disk does not have")
        modified = os.stat(path).st_mtime_ns
        with open(temporary, "wb") as opened:
            yield write
        os.utime(temporary, ns=(modified, modified))  # so that equal copies have equal states


@contextlib.contextmanager
def _naming_copy(copy: Path, path: str) -> Iterator[None]:
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(
            f"{text_of_path(path)} holds compressed images, which must be copied. The copy {copy} "
            f"could not be written: {error}. Give another data_dir, or write the Parquet files "
            f"without compression."
        ) from error


def _table(entries: Iterable[Entry], path: str) -> pa.Table:
    """The entries as a table. Names that are missing or not unique are given numbers."""
    taken: set[str] = set()
    named = []
    for row, entry in enumerate(entries):
        name = entry.name
        if len(name) > LONGEST_NAME:
            raise SourceError(
                f"{text_of_path(path)}: a name must have at most {LONGEST_NAME} characters. "
                f"Received: {len(name)} characters for image {row}"
            )
        while not name or name in taken:
            name = f"{name}#{row}"
        if entry.length > LARGEST_IMAGE:
            raise SourceError(
                f"{text_of_path(path)}: an image must have at most {LARGEST_IMAGE} bytes. "
                f"Received: {entry.length} bytes for {name}"
            )
        taken.add(name)
        named.append(entry._replace(name=name))
    if not named:
        raise SourceError(f"{text_of_path(path)} holds no images.")
    columns = zip(Entry._fields, map(list, zip(*named, strict=True)), strict=True)
    return pa.table(dict(columns), schema=_SCHEMA)
