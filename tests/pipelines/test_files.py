from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys

import pytest

from vgg_keras.pipelines.errors import WriteError
from vgg_keras.pipelines.files import atomic_write, locked


@contextlib.contextmanager
def files_of_at_most(size):
    """Limits the size of files, which simulates a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_file_and_leaves_it_intact(tmp_path):
    file = tmp_path / "journal.jsonl"
    atomic_write(file, "before")
    with (
        files_of_at_most(100),
        pytest.raises(WriteError, match=r"journal\.jsonl could not be written"),
    ):
        atomic_write(file, "x" * 10_000)
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


def test_a_lock_has_one_holder_at_a_time(tmp_path):
    another = locked(tmp_path / "new/lock", wait=False)
    with locked(tmp_path / "new/lock"), pytest.raises(BlockingIOError):
        another.__enter__()
    with locked(tmp_path / "new/lock", wait=False):
        pass


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        raise ZeroDivisionError
    with locked(tmp_path / "lock", wait=False):
        pass


def test_a_killed_process_frees_its_lock(tmp_path):
    code = (
        "import sys, time; from vgg_keras.pipelines.files import locked\n"
        "with locked(sys.argv[1]): print('locked', flush=True); time.sleep(600)"
    )
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError, match="Another process holds the lock"):
            locked(path, wait=False).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with locked(path, wait=False):
            pass


def test_a_file_that_cannot_be_created_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        locked(tmp_path / "file/lock").__enter__()
