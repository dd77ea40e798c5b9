"""Which files of a folder are listed: all that can be read, and the others by name."""

from __future__ import annotations

import os
import socket
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.listing import list_files, list_folders, text_of_path

# Parts of paths, as bytes: of any encoding, hidden or not, and some that sort around "/".
PART = st.one_of(
    st.sampled_from([b"a", b"a-b", b"a.jpg", b".a", b"._a", b"caf\xe9", "é".encode(), b"a\nb"]),
    st.binary(min_size=1, max_size=3).filter(
        lambda b: not set(b) & {0, 47} and b not in (b"..", b".")
    ),
)
TREE = st.lists(st.lists(PART, min_size=1, max_size=4).map(b"/".join), max_size=12)


@settings(max_examples=60, deadline=None)
@given(TREE)
def test_all_visible_files_are_listed_in_order(paths):
    with tempfile.TemporaryDirectory() as folder:
        root, written = os.fsencode(folder), set()
        for path in paths:
            try:
                os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                with open(os.path.join(root, path), "xb"):
                    written.add(path)
            except (FileExistsError, IsADirectoryError, NotADirectoryError):
                continue
        visible = [path for path in written if b"/." not in b"/" + path]
        assert list_files(folder) == sorted(map(os.fsdecode, visible))
        for name in list_files(folder):
            text_of_path(name).encode()  # can be printed and saved


class TestLinks:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "data/cat").mkdir(parents=True)
        (tmp_path / "data/cat/1.jpg").touch()
        (tmp_path / "more").mkdir()
        (tmp_path / "more/2.jpg").touch()
        return tmp_path / "data"

    def test_links_to_folders_and_files_are_followed(self, folder):
        (folder / "dog").symlink_to(folder.parent / "more")
        (folder / "cat/3.jpg").symlink_to(folder.parent / "more/2.jpg")
        os.link(folder / "cat/1.jpg", folder / "cat/4.jpg")
        assert list_files(folder) == ["cat/1.jpg", "cat/3.jpg", "cat/4.jpg", "dog/2.jpg"]
        assert list_folders(folder) == ["cat", "dog"]

    @pytest.mark.parametrize("target", [".", "..", "../.."])
    def test_a_link_to_a_folder_that_contains_it_is_skipped_by_name(self, folder, target, caplog):
        (folder / "cat/up").symlink_to(target)
        assert list_files(folder.parent) == ["data/cat/1.jpg", "more/2.jpg"]
        assert f"contains it: {folder}/cat/up" in caplog.text

    @pytest.mark.parametrize("target", ["gone.jpg", "link.jpg", "1.jpg/x"])
    def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_read(self, folder, target):
        (folder / "cat/link.jpg").symlink_to(target)
        assert list_files(folder) == ["cat/1.jpg", "cat/link.jpg"]


def test_fifos_sockets_and_devices_are_skipped_by_name(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    os.mkfifo("fifo.jpg")
    Path("zero.jpg").symlink_to("/dev/zero")
    Path("linked.jpg").symlink_to("fifo.jpg")
    Path("1.jpg").touch()
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.jpg")
        assert list_files(tmp_path) == ["1.jpg"]
    for name in ("fifo.jpg", "zero.jpg", "linked.jpg", "socket.jpg"):
        assert f"skipped, not a regular file: {tmp_path}/{name}\n" in caplog.text


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere/ cannot be read: No such file"):
        list_files(tmp_path / "nowhere")


def test_types_of_files_cost_no_system_call(tmp_path, monkeypatch):
    for i in range(20):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        (tmp_path / f"{i % 2}/{i}.jpg").touch()
    calls, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda *args, **options: calls.append(args) or stat(*args))
    assert len(list_files(tmp_path)) == 20
    assert len(calls) == 3  # once a folder


def test_text_of_a_path_keeps_what_is_utf8():
    assert text_of_path("grün/é.jpg") == "grün/é.jpg"
    assert text_of_path(unicodedata.normalize("NFD", "é")) == "e\u0301"
    assert text_of_path(os.fsdecode(b"caf\xe9.jpg")) == "caf\\xe9.jpg"
