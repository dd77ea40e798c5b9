from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgg_keras.pipelines.errors import WriteError
from vgg_keras.pipelines.files import atomic_path, atomic_write, check_writable, locked


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


def write_often(folder, barrier, name, failures):
    """Writes 500 files, each at the same time as another process; runs in a process of its own."""
    for i in range(500):
        barrier.wait()
        try:
            atomic_write(folder / f"{i}.json", name * 1000)
        except OSError as error:
            failures.put(str(error))


@pytest.mark.slow
def test_two_processes_write_500_whole_files(tmp_path):
    spawn = multiprocessing.get_context("spawn")  # TensorFlow's threads do not survive a fork
    barrier, failures = spawn.Barrier(2), spawn.Queue()
    pair = [
        spawn.Process(target=write_often, args=(tmp_path, barrier, name, failures)) for name in "ab"
    ]
    for process in pair:
        process.start()
    for process in pair:
        process.join()
    assert failures.empty()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{i}.json" for i in range(500)
    )
    assert {path.read_text() for path in tmp_path.iterdir()} <= {"a" * 1000, "b" * 1000}


def test_links_in_the_folder_are_not_followed(tmp_path):
    """Another user of a shared folder cannot choose what is overwritten."""
    victim, target = tmp_path / "victim", tmp_path / "a.json"
    victim.write_text("precious")
    for name in (".a.json.tmp.json", ".tmp-a", ".a.json"):
        (tmp_path / name).symlink_to(victim)
    atomic_write(target, "new")
    assert (victim.read_text(), target.read_text()) == ("precious", "new")
    assert not target.is_symlink()


def test_the_file_that_a_link_points_to_is_replaced_and_keeps_its_mode(tmp_path):
    real, link = tmp_path / "elsewhere/real.json", tmp_path / "link.json"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to("elsewhere/real.json")
    atomic_write(link, "new")
    assert link.is_symlink()
    assert (real.read_text(), stat.S_IMODE(real.stat().st_mode)) == ("new", 0o640)
    assert [path.name for path in real.parent.iterdir()] == ["real.json"]


def test_a_new_file_has_the_usual_mode(tmp_path):
    (tmp_path / "usual").touch()
    atomic_write(tmp_path / "new", "")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


@settings(max_examples=30, deadline=None)
@given(
    stem=st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1),
    ending=st.sampled_from(["", ".json", ".weights.h5", ".b" * 60]),
)
def test_every_name_that_the_system_allows_can_be_written(tmp_path_factory, stem, ending):
    folder = tmp_path_factory.getbasetemp() / "names"
    longest = (stem * 255).encode()[: 255 - len(ending)].decode(errors="ignore") + ending
    for name in {stem[:50] + ending, longest} - {".", ".."}:
        path = folder / name
        with atomic_path(path) as temporary:
            assert temporary.name.endswith(ending[-20:])  # some writers choose the format by it
            temporary.write_text("x")
        assert [path.name for path in folder.iterdir()] == [name]
        path.unlink()


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_what_is_no_file_is_not_replaced(tmp_path, kind):
    path = tmp_path / "out.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    for write in (lambda: atomic_write(path, ""), lambda: check_writable(path)):
        with pytest.raises(OSError, match=r"out\.json is not a regular file"):
            write()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_what_a_killed_process_left_is_removed_and_what_another_one_uses_is_not(tmp_path):
    for name in ("killed", "young"):
        (tmp_path / f".tmp-{name}").mkdir()
        (tmp_path / f".tmp-{name}/.a.json").write_text("half a f")
    long_ago = time.time() - 1000
    os.utime(tmp_path / ".tmp-killed", (long_ago, long_ago))
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("slow")
        os.utime(temporary.parent, (long_ago, long_ago))
        atomic_write(tmp_path / "b.json", "quick")
        assert not (tmp_path / ".tmp-killed").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json", ".tmp-young"}
    assert (tmp_path / "a.json").read_text() == "slow"


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(OSError, match=r"/a\.json'$") as caught, atomic_path(tmp_path / "a.json"):
        pass  # nothing is written
    assert caught.value.filename == str(tmp_path / "a.json")


def test_a_check_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "new" / ("a" * 250 + ".csv"))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_lock_has_one_holder_at_a_time(tmp_path):
    another = locked(tmp_path / "new/lock", wait=False)
    with locked(tmp_path / "new/lock"), pytest.raises(BlockingIOError):
        another.__enter__()
    with locked(tmp_path / "new/lock", wait=False):
        pass


def test_a_process_that_waits_for_a_lock_says_so(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("vgg_keras.pipelines.files._PATIENCE", 0.05)
    is_held = threading.Event()

    def hold():
        with locked(tmp_path / "lock"):
            is_held.set()
            time.sleep(0.5)

    threading.Thread(target=hold).start()
    is_held.wait()
    with caplog.at_level("INFO", "vgg_keras"), locked(tmp_path / "lock"):
        pass
    assert caplog.messages == [
        f"waiting for another process, which holds the lock {tmp_path / 'lock'}"
    ]
    caplog.clear()
    with caplog.at_level("INFO", "vgg_keras"), locked(tmp_path / "lock"):
        assert not caplog.messages


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
