from __future__ import annotations

import contextlib
import resource

import pytest
from vgg_keras.pipelines.files import atomic_write, locked


@contextlib.contextmanager
def files_of_at_most(size):
    """A limit on the size of files, which stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_file_and_keeps_what_was_there(tmp_path):
    file = tmp_path / "journal.jsonl"
    atomic_write(file, "before")
    with (
        files_of_at_most(100),
        pytest.raises(OSError, match=r"journal\.jsonl could not be written"),
    ):
        atomic_write(file, "x" * 10_000)
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


def test_a_lock_is_for_one_at_a_time(tmp_path):
    another = locked(tmp_path / "new/lock", wait=False)
    with locked(tmp_path / "new/lock"), pytest.raises(BlockingIOError):
        another.__enter__()
    with locked(tmp_path / "new/lock", wait=False):
        pass
