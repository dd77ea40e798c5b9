"""Kinds of files that are given as weights, and how each is recognised."""

from __future__ import annotations

import codecs
import re
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from vgg_keras.errors import WeightsError
from vgg_keras.weights.arrays import open_npy, open_npz
from vgg_keras.weights.caffe import open_caffemodel
from vgg_keras.weights.hdf5 import open_hdf5, open_keras_archive
from vgg_keras.weights.matconvnet import open_mat
from vgg_keras.weights.onnx_files import open_onnx
from vgg_keras.weights.stored import Stored
from vgg_keras.weights.tf_checkpoint import TABLE_END, open_checkpoint
from vgg_keras.weights.torch_files import open_safetensors, open_torch

_START = 512  # bytes that are looked at
_SPACE = dict.fromkeys(map(ord, "\n\r\t"), " ")
_ZIP = b"PK\x03\x04"
# What `torch.save` wrote before PyTorch 1.6 starts with this number as a pickle.
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# Other files of a TensorFlow checkpoint: the values and the program.
_TF_PART = re.compile(r".+\.(data-\d{5}-of-\d{5}|meta)")


@dataclass(frozen=True)
class Evidence:
    """What tells the kind of a file.

    Attributes:
        path: the file or folder.
        start, end: first and last bytes of the file.
        entries: names of the entries of a zip archive or a folder.
    """

    path: Path
    start: bytes = b""
    end: bytes = b""
    entries: tuple[str, ...] = ()

    def has(self, *endings: str) -> bool:
        """Whether the name of an entry has one of the endings."""
        return any(f"/{name}".endswith(endings) for name in self.entries)

    def starts(self, *beginnings: bytes) -> bool:
        """Whether the file is text that starts with one of the beginnings, in any case."""
        text = self.start.removeprefix(codecs.BOM_UTF8).lstrip()
        return text[:32].isascii() and text.lower().startswith(beginnings)

    @property
    def is_json(self) -> bool:
        """Whether the file starts as text in braces."""
        return self.starts(b"{") and self.start.decode("latin-1").translate(_SPACE).isprintable()


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: what a file of this kind is, with an article.
        matches: function that tells the kind from the contents of a file.
        open: reader; None if weights are not read from such files.
        endings: endings of file names that tell the kind where the contents tell none.
        advice: what to do with a file that is not read.
    """

    name: str
    matches: Callable[[Evidence], bool] = lambda evidence: False
    open: Callable[[Path], AbstractContextManager[Stored]] | None = None
    endings: tuple[str, ...] = ()
    advice: str = ""


def _is_safetensors(evidence: Evidence) -> bool:
    header = int.from_bytes(evidence.start[:8], "little")
    return evidence.start[8:9] == b"{" and header < evidence.path.stat().st_size


def _is_checkpoint(evidence: Evidence) -> bool:
    return evidence.end == TABLE_END or _has_index(evidence.path)


def _has_index(path: Path) -> bool:
    """Whether a path is the name of a TensorFlow checkpoint without its ending."""
    return not path.is_dir() and (path.parent / f"{path.name}.index").is_file()


_AGAIN = "Download it again."
_UNPACK = "Unpack it first."
# The first kind that matches is taken. Kinds that have the contents of another come before it.
KINDS = (
    Kind(
        "a TensorFlow checkpoint",
        _is_checkpoint,
        open_checkpoint,
    ),
    Kind("an empty file", lambda c: c.path.is_file() and not c.start, advice=_AGAIN),
    Kind(
        "a SavedModel",
        lambda c: c.path.is_dir() and c.has("/saved_model.pb", "/saved_model.pbtxt"),
        advice="It holds a program with its weights. Give the weights file that it was made of.",
    ),
    Kind(
        "a folder that is not a run or saved net",
        lambda c: c.path.is_dir(),
        advice="Give the weights file in it.",
    ),
    Kind(
        "a Git LFS pointer, which stands for a file that was not downloaded",
        lambda c: c.starts(b"version https://git-lfs"),
        advice="Run `git lfs pull` where it was cloned.",
    ),
    Kind("a web page", lambda c: c.starts(b"<!doctype", b"<html", b"<!--"), advice=_AGAIN),
    Kind("an XML document, such as a server's error", lambda c: c.starts(b"<?xml"), advice=_AGAIN),
    Kind(
        "TorchScript",
        lambda c: c.start.startswith(_ZIP) and c.has("/constants.pkl"),
        advice='Save its weights: torch.save(torch.jit.load(FILE).state_dict(), "weights.pth").',
    ),
    Kind("a Keras archive", lambda c: c.has("/model.weights.h5"), open_keras_archive, (".keras",)),
    Kind("a NumPy archive", lambda c: c.has(".npy"), open_npz, (".npz",)),
    Kind(
        "a PyTorch file",
        lambda c: c.has("/data.pkl") or c.start.startswith(_OLD_TORCH),
        open_torch,
        (".pth", ".pt", ".pth.tar", ".bin", ".ckpt", ".tar"),
    ),
    Kind(
        "an HDF5 file",
        lambda c: c.start.startswith(b"\x89HDF\r\n\x1a\n"),
        open_hdf5,
        (".h5", ".hdf5"),
    ),
    Kind("a MAT-file", lambda c: c.starts(b"matlab "), open_mat, (".mat",)),
    Kind("a NumPy array", lambda c: c.start.startswith(b"\x93NUMPY"), open_npy, (".npy",)),
    Kind("a safetensors file", _is_safetensors, open_safetensors, (".safetensors",)),
    Kind("a JSON document", lambda c: c.is_json, advice="Give the file of the weights themselves."),
    Kind("a gzip file", lambda c: c.start.startswith(b"\x1f\x8b"), advice=_UNPACK),
    Kind("a bzip2 file", lambda c: c.start.startswith(b"BZh"), advice=_UNPACK),
    Kind("an xz file", lambda c: c.start.startswith(b"\xfd7zXZ\0"), advice=_UNPACK),
    Kind("a tar archive", lambda c: c.start[257:262] == b"ustar", advice=_UNPACK),
    Kind(
        "a zip archive of other files",
        lambda c: bool(c.entries) and not c.path.is_dir(),
        advice=_UNPACK,
    ),
    Kind(
        "a pickle",
        lambda c: c.start[:1] == b"\x80" and c.start[1:2] in b"\2\3\4\5",
        advice="It is not read, because unpickling can run any code. Save its arrays with "
        "numpy.savez.",
    ),
    Kind(
        "one of the files of a TensorFlow checkpoint",
        lambda c: not c.path.is_dir() and bool(_TF_PART.fullmatch(c.path.name)),
        advice="Give its name without this ending.",
    ),
    # Protocol buffers have no mark of their own.
    Kind("a Caffe model", open=open_caffemodel, endings=(".caffemodel",)),
    Kind("an ONNX model", open=open_onnx, endings=(".onnx",)),
)
"""The kinds of files that are read or explained: `[kind.name for kind in KINDS if kind.open]`."""


def endings() -> tuple[str, ...]:
    """Endings of the names of weights files that are read."""
    return tuple(ending for kind in KINDS for ending in kind.endings)


def kind_of(path: Path) -> Kind | None:
    """Returns the kind of a file or folder: by its contents, or else by the ending of its name.

    Raises:
        WeightsError: there is no such file.
    """
    evidence = _look_at(path)
    by_contents = (kind for kind in KINDS if kind.matches(evidence))
    by_name = (kind for kind in KINDS if path.name.lower().endswith(kind.endings))
    return next(by_contents, None) or next(by_name, None)


def open_weights(path: Path) -> AbstractContextManager[Stored]:
    """Opens a weights file with the reader of its kind.

    Raises:
        WeightsError: there is no such file, or weights are not read from files of its kind.
    """
    kind = kind_of(path)
    if kind is None:
        raise WeightsError(
            f"{path}: weights are read from {', '.join(endings())}. Received: {path.suffix!r}, "
            f"with contents of no kind that is known"
        )
    if kind.open is None:
        raise WeightsError(f"{path} is {kind.name}. {kind.advice}")
    return kind.open(path)


def _look_at(path: Path) -> Evidence:
    if path.is_dir():
        return Evidence(path, entries=tuple(child.name for child in path.iterdir()))
    if not path.is_file():
        if _has_index(path):
            return Evidence(path)
        raise WeightsError(f"There is no weights file {path}.")
    with open(path, "rb") as file:
        start = file.read(_START)
        file.seek(-min(len(TABLE_END), path.stat().st_size), 2)
        end = file.read()
    return Evidence(path, start, end, _entries(path) if start.startswith(_ZIP) else ())


def _entries(path: Path) -> tuple[str, ...]:
    """Names of the entries of a zip archive; none if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return ()
