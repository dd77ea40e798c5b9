"""Files that lie: lengths beyond the file, negative sizes, decompression bombs."""

from __future__ import annotations

import contextlib
import io
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.containers import example, write_parquet, write_tfrecord
from tests.pipelines.decoding import forget_peak, peak
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.image_index import LARGEST_IMAGE
from vgg_keras.pipelines.sources.tfrecord import _masked_checksum

_MEMORY = 2**28  # bytes that a refusal may take


def header(length: int, checksum: int | None = None) -> bytes:
    """The header of a TFRecord."""
    stated = struct.pack("<Q", length)
    return stated + struct.pack("<I", _masked_checksum(stated) if checksum is None else checksum)


def tar_header(size: bytes, kind: bytes = b"0", name: bytes = b"a.jpg", link: bytes = b"") -> bytes:
    """A tar header whose size is given as it is written."""
    fields = [name.ljust(100, b"\0"), b"0000644\0", b"0000000\0" * 2, size.ljust(12, b"\0")]
    fields += [b"00000000000\0", b" " * 8, kind, link.ljust(100, b"\0"), b"ustar\x0000"]
    block = b"".join(fields).ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def binary(size: int) -> bytes:
    """A size in base 256, which can be negative."""
    return (b"\xff" if size < 0 else b"\x80") + (size % 256**11).to_bytes(11, "big")


def refusal_names(spec, data_dir, name) -> bool:
    """Whether a source is refused, in which case the message must have the name."""
    try:
        open_source(spec, data_dir)
    except SourceError as error:
        message = str(error)
    else:
        return False
    assert name in message
    return True


END = bytes(1024)
TFRECORDS = {
    "a length beyond the file": (header(2**40) + b"x" * 50, "record 0, .* cut short: it states"),
    "a length of 2**64 - 1": (header(2**64 - 1) + b"x" * 50, "record 0, .* cut short"),
    "a wrong checksum": (header(5, 0) + b"x" * 50, "record 0, .* checksum of its length is wrong"),
    "half a header": (header(0) + bytes(4) + b"xxx", "record 0"),
    "no Example": (header(5) + b"\xff" * 9, "record 0, at byte 12: "),
    "an Example without an image": (header(0) + bytes(4), "must have one image/encoded"),
    "a compressed file": (b"\x1f\x8b" + bytes(20), "Decompress it"),
    "a nested message": (header(3) + b"\x0a\xff\x7f" + bytes(4), "record 0, at byte 12"),
}
TARS = {
    "a size beyond the file": (tar_header(b"77777777777") + END, "a.jpg, of 8589934591 bytes"),
    "a size of 2**80": (tar_header(binary(2**80)) + END, "does not end inside the file"),
    "a size of -512": (tar_header(binary(-512)) + END, "a.jpg, of -512 bytes, does not end"),
    "a size of -1024": (
        tar_header(b"00000000001") + bytes(512) + tar_header(binary(-1024)) + END,
        "of -1024 bytes",
    ),
    "a long name of negative size": (tar_header(binary(-512), b"L") + END, "cannot be read as a"),
    "a long name beyond the file": (tar_header(b"77777777777", b"L") + END, "cannot be read as a"),
    "a link to itself": (tar_header(b"0", b"1", link=b"a.jpg") + END, "holds no images"),
    "a symbolic link": (tar_header(b"0", b"2", link=b"/etc/passwd") + END, "symbolic links"),
    "a sparse file": (tar_header(b"0", b"S") + END, "cannot be read as a webdataset file"),
    "no end": (tar_header(b"00000000001") + bytes(512), "it is cut short"),
    "a wrong checksum": (
        tar_header(b"00000000001").replace(b"ustar", b"vstar") + END,
        "not an unc",
    ),
    "a compressed archive": (b"\x1f\x8b" + bytes(1000), "not an uncompressed tar archive"),
    "a damaged header after a good one": (
        tar_header(b"0") + tar_header(b"0").replace(b"ustar", b"vstar") + END,
        "the header at byte 512 is damaged",
    ),
    "a size of digits that are not octal": (tar_header(b"789") + END, "not an uncompressed tar"),
    "a size in letters": (tar_header(b"abc") + END, "not an uncompressed tar archive"),
}


@contextlib.contextmanager
def bounded_memory():
    """The memory of this process may not grow in the block."""
    forget_peak()
    before = peak()
    yield
    assert (peak() - before) * 2**20 < _MEMORY


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [pytest.param("tfrecord", *case, id=name) for name, case in TFRECORDS.items()]
    + [pytest.param("webdataset", *case, id=f"tar: {name}") for name, case in TARS.items()],
)
def test_hostile_files_are_refused_by_name(kind, content, message, tmp_path):
    file = tmp_path / "a"
    file.write_bytes(content)
    with bounded_memory(), pytest.raises(SourceError, match=rf"{file}.*{message}"):
        open_source(f"{kind}:{file}", tmp_path)


def test_an_image_of_more_bytes_than_any_is_refused(tmp_path):
    """The file has a hole, so that it takes no space."""
    size = LARGEST_IMAGE + 2**21
    for kind, head in (("tfrecord", header(size)), ("webdataset", tar_header(binary(size)))):
        with open(tmp_path / kind, "wb") as file:
            file.write(head)
            file.truncate(size + 2**12)
        with bounded_memory(), pytest.raises(SourceError, match=rf"{kind}.* {size} bytes"):
            open_source(f"{kind}:{tmp_path / kind}", tmp_path)


class TestParquet:
    def refused(self, tmp_path, message):
        problem = rf"{tmp_path}/a\.parquet.*{message}"
        with bounded_memory(), pytest.raises(SourceError, match=problem):
            open_source(f"parquet:{tmp_path / 'a.parquet'}", tmp_path)

    def test_a_page_that_decompresses_to_far_more_is_refused(self, tmp_path):
        options = {"compression": "zstd", "use_dictionary": False}
        write_parquet(tmp_path / "a.parquet", [bytes(2**27)], [0], **options)
        assert (tmp_path / "a.parquet").stat().st_size < 2**16
        self.refused(tmp_path, r"declares 1342\d+ bytes of contents, more than")

    def test_a_path_that_decompresses_to_far_more_is_refused(self, tmp_path):
        options = {"compression": "zstd", "use_dictionary": False}
        write_parquet(tmp_path / "a.parquet", [b"x"], [0], ["a" * 2**27], **options)
        assert (tmp_path / "a.parquet").stat().st_size < 2**16
        self.refused(tmp_path, r"declares 1342\d+ bytes of contents, more than")

    def test_one_path_repeated_by_a_dictionary_is_refused(self, tmp_path):
        options = {"compression": "zstd", "row_group_size": 1000}
        write_parquet(
            tmp_path / "a.parquet", [b"x"] * 300, [0] * 300, ["a" * 2**20] * 300, **options
        )
        self.refused(tmp_path, "the path of row 0 has 1048576 characters")

    def test_one_image_repeated_by_a_dictionary_is_refused(self, tmp_path):
        image = np.random.default_rng(0).bytes(2**20)
        options = {"compression": "zstd", "row_group_size": 1000}
        write_parquet(tmp_path / "a.parquet", [image] * 300, [0] * 300, **options)
        assert (tmp_path / "a.parquet").stat().st_size < 2**21
        self.refused(tmp_path, "its images have more bytes than its pages")

    def test_other_bytes_never_crash(self, tmp_path):
        rng = np.random.default_rng(0)
        good = write_parquet(tmp_path / "good", [rng.bytes(40)] * 2, [0, 0], compression="snappy")
        content, file = good.read_bytes(), tmp_path / "a.parquet"
        # The codecs of the columns are among the bytes of the second half.
        positions = rng.permutation(np.arange(len(content) // 2, len(content)))[:100]
        refusals = 0
        for position in positions.tolist():
            damaged = bytearray(content)
            damaged[position] ^= int(rng.integers(1, 256))
            file.write_bytes(damaged)
            refusals += refusal_names(f"parquet:{file}", tmp_path, "a.parquet")
        assert refusals > 20

    def test_more_rows_than_bytes_are_refused(self, tmp_path):
        table = pa.table({"image": pa.array([b""] * 100_000), "label": [0] * 100_000})
        pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
        self.refused(tmp_path, "more rows than it has bytes")


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g", b"X"])
def test_a_long_name_is_refused_before_it_is_read(kind, tmp_path):
    """The file has a hole, so that it takes no space."""
    file, size = tmp_path / "a.tar", 600 * 2**20
    with open(file, "wb") as opened:
        opened.write(tar_header(b"%o" % size, kind))
        opened.truncate(size + 2**12)
    with bounded_memory(), pytest.raises(SourceError, match=rf"{file}.* of {size} bytes"):
        open_source(f"webdataset:{file}", tmp_path)


def test_other_bytes_in_a_tfrecord_or_a_tar_file_never_crash(tmp_path):
    rng = np.random.default_rng(0)
    record = write_tfrecord(
        tmp_path / "good", [example(b"image", 1, "a.jpg", "n1", [(0, 0, 1, 1)])]
    )
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as opened:
        for name, content in (("a.jpg", b"x"), ("a.json", b'{"label": 1}')):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    for kind, content in (("tfrecord", record.read_bytes()), ("webdataset", archive.getvalue())):
        refusals = 0
        for position in rng.permutation(min(len(content), 1200))[:150].tolist():
            damaged = bytearray(content)
            damaged[position] ^= int(rng.integers(1, 256))
            (tmp_path / "a").write_bytes(damaged)
            refusals += refusal_names(f"{kind}:{tmp_path / 'a'}", tmp_path, str(tmp_path))
        assert refusals > 20
