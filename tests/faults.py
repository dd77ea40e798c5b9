"""Kills a command at any of its file operations, without a new process for each kill."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.python.lib.io import file_io

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` stops it."""


class FaultyDisk:
    """Counts the operations that change files below a folder, and fails from the n-th on.

    A killed process changes nothing more, so every operation after the n-th raises too: what
    `finally` and `except` blocks would clean up stays. The fatal operation leaves what a kill
    in the middle of writing leaves: `open` an empty file, `fsync` half of the file.

    Writers in C (HDF5, Arrow, SavedModel) do not come here for each of their writes. They write to
    paths that this project then passes to `fsync` and `replace`.
    """

    def __init__(self, root: Path):
        self.root = os.fspath(root)
        self.log: list[str] = []
        self.fatal: int | None = None

    @property
    def killed(self) -> bool:
        return self.fatal is not None and len(self.log) >= self.fatal

    @contextlib.contextmanager
    def killing(self, number: int | None) -> Iterator[None]:
        """Kills the block at an operation, counted from 1; None for no kill."""
        self.log, self.fatal = [], number
        patch = pytest.MonkeyPatch()
        self._install(patch)
        try:
            yield
        except Killed:
            pass
        finally:
            patch.undo()

    def _count(self, name: str, path: object, leave: Callable[[], object] = lambda: None) -> None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if not os.path.abspath(os.fsdecode(path)).startswith(self.root):
            return
        if self.killed:
            raise Killed
        self.log.append(f"{name} {os.path.relpath(os.fsdecode(path), self.root)}")
        if self.killed:
            leave()
            raise Killed

    def _install(self, patch: pytest.MonkeyPatch) -> None:
        real_open, real_os_open, real_fsync = builtins.open, os.open, os.fsync

        def counted_open(file, mode="r", *args, **options):
            if set(mode) & set("wax+"):
                self._count("open", file, lambda: real_open(file, mode, *args, **options).close())
            return real_open(file, mode, *args, **options)

        def counted_os_open(path, flags, *args, **options):
            if flags & _WRITING and options.get("dir_fd") is None:
                self._count("open", path)
            return real_os_open(path, flags, *args, **options)

        def counted_fsync(file):
            def cut():
                path = os.readlink(f"/proc/self/fd/{file}")
                os.truncate(path, os.path.getsize(path) // 2)

            self._count("fsync", file, cut)
            return real_fsync(file)

        def counted(name, real):
            def operation(path, *args, **options):
                folder = options.get("dir_fd")
                place = "" if folder is None else os.readlink(f"/proc/self/fd/{folder}")
                path_here = os.path.join(place, path)
                if name != "mkdir" or not os.path.exists(path_here):
                    self._count(name, path_here)
                return real(path, *args, **options)

            return operation

        def counted_check(file, real=file_io.FileIO._prewrite_check):
            if not file._writable_file:
                self._count("open", file.name, lambda: real(file))
            real(file)

        patch.setattr(builtins, "open", counted_open)
        patch.setattr(io, "open", counted_open)
        patch.setattr(os, "open", counted_os_open)
        patch.setattr(os, "fsync", counted_fsync)
        for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "chmod"):
            patch.setattr(os, name, counted(name, getattr(os, name)))
        patch.setattr(file_io.FileIO, "_prewrite_check", counted_check)  # TensorFlow's own files
        for name in ("makedirs", "rmtree", "rename", "remove"):
            patch.setattr(tf.io.gfile, name, counted(name, getattr(tf.io.gfile, name)))
