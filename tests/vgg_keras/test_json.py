"""What `--json` prints: one shape, six digits, and how a result came about."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.vgg_keras.test_flags import commands
from vgg_keras import ilsvrc
from vgg_keras.cli import main
from vgg_keras.commands.base import command
from vgg_keras.commands.results import Timer, print_json, provenance, without_password
from vgg_keras.hardware import hardware
from vgg_keras.metadata import rounded
from vgg_keras.report.results import read_results

RESULT = {"protocol": "dense", "images": 19, "top1_error": 29.473684210526315, "net": "D"}
DOCS = Path(__file__).parents[2] / "docs" / "json.md"


def test_floats_have_six_digits_and_nothing_else_changes():
    value = {"a": 29.473684210526315, "b": [1e-9 / 3, (0.1 + 0.2,)], "c": 138357544, "d": True}
    assert rounded(value) == {"a": 29.4737, "b": [3.33333e-10, [0.3]], "c": 138357544, "d": True}
    assert rounded(None) is None
    errors = {rounded(100 * wrong / 50_000) for wrong in range(40_000, 50_000)}
    assert len(errors) == 10_000  # one image more or less makes a difference


def test_a_result_is_found_once_however_it_was_stored(tmp_path):
    """By an earlier version, printed now, saved now; and a list of several."""
    measured = {"provenance": {"seconds": 3.1, "command": "vgg-keras evaluate"}}
    saved = RESULT | measured | {"predictions": "d.parquet", "class_names": ["a"]}
    printed = {"results": [rounded(RESULT | measured | {"seconds": 2})], "images": 19}
    del printed["results"][0]["seconds"]
    other = RESULT | {"net": "E"}
    for name, content in {
        "a": RESULT,
        "b": printed,
        "c": saved,
        "d": [RESULT, other],
        "e": {"results": [rounded(other)]},
        "f": {"results": "none"},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    found = read_results(tmp_path)
    assert [(one["net"], Path(one["file"]).stem) for one in found] == [("D", "c"), ("E", "d")]
    assert found[0]["top1_error"] == RESULT["top1_error"]


def test_provenance_has_the_command_without_passwords():
    timer = Timer()
    timer.seconds = 2.0

    @command("ask")
    @click.option("--url")
    @click.argument("image")
    def ask(url, image):
        print_json([{"image": image, "url": without_password(url)}], **provenance(timer, 5))

    url = "https://me:secret@host:8501/v1/models/m"
    done = CliRunner().invoke(ask, ["--url", url, "a b.jpg"])
    found = json.loads(done.stdout)
    assert "secret" not in done.stdout
    assert found["results"] == [{"image": "a b.jpg", "url": "https://host:8501/v1/models/m"}]
    assert found["provenance"]["command"] == "ask --url https://host:8501/v1/models/m 'a b.jpg'"
    assert found["provenance"]["images_per_second"] == 2.5
    assert found["provenance"]["hardware"] == hardware()
    assert re.fullmatch(r".+, \d+ cores?", hardware())
    assert found["provenance"].keys() == set(_documented("provenance"))


@pytest.mark.parametrize(
    ("argument", "recorded"),
    [
        ("https://me:p@ss\nword@host:8501/v1", "https://host:8501/v1"),
        ("--url=http://me@host", "--url=http://host"),
        ("https://host/images@2x/cat@2x.jpg", "https://host/images@2x/cat@2x.jpg"),
        ("https://host?mail=a@b", "https://host?mail=a@b"),
        ("https://me:secret@host/cat@2x.jpg", "https://host/cat@2x.jpg"),
        ("folder:cats@home", "folder:cats@home"),
    ],
)
def test_only_the_user_and_the_password_of_a_url_are_left_out(argument, recorded):
    assert without_password(argument) == recorded


def test_classes_are_found_by_their_labels():
    for wnid in ilsvrc.wnids():
        assert ilsvrc.class_of_label(ilsvrc.label(wnid)) == wnid
    assert ilsvrc.class_of_label("cat") == "cat"


def test_every_command_with_json_is_in_the_docs():
    text = DOCS.read_text()
    for name, one in commands(main):
        if any(option.name == "as_json" for option in one.params):
            assert f"`{name}`" in text, name


@pytest.mark.parametrize("arguments", [("describe",), ("weights",)])
def test_tables_are_printed_as_results(arguments):
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert list(found) == ["results"]
    assert len(found["results"]) >= 6


def _documented(heading: str) -> list[str]:
    """The keys in the first column of the table under a heading of the docs."""
    section = DOCS.read_text().split(f"## The key `{heading}`")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
