"""Names of files, classes and runs, and answers of servers, are data wherever they are shown."""

from __future__ import annotations

import base64
import json
import logging
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.cbook import is_math_text

from tests.test_architecture import ROOT
from tests.vgg_keras.test_predictions import predictions
from vgg_keras.commands.errors import _Lines, one_line_errors
from vgg_keras.commands.serving import _show_answer
from vgg_keras.commands.terminal import echo_lines, print_table
from vgg_keras.errors import SourceError
from vgg_keras.recipes import Recipe
from vgg_keras.report import curves, figures
from vgg_keras.report.page import write_report
from vgg_keras.report.rendering import render
from vgg_keras.report.sheets import Section, Tile, image_sheet
from vgg_keras.report.tables import Table
from vgg_keras.saved_models.client import Answer
from vgg_keras.sweeps.results import trials_table
from vgg_keras.text import figure_text, printable

NAMES = (
    "$5_$10",
    "US$ 5 and $x^",
    "A$AP^$",
    "$\\frac{$",
    "a\\$b",
    "_hidden",
    "\x1b]0;owned\x07",
    "\x9b31m",
    "one\ntwo",
    "--><script>",
    "[/red]",
    "latin\udce9",
    "\u202egnp.exe",
)
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")


@given(st.text() | st.sampled_from(NAMES))
def test_printable_text_is_one_line_that_can_be_encoded(text):
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown
    shown.encode()
    if text.isascii() and text.isprintable():
        assert shown == text


def test_bytes_of_names_are_shown():
    name = b"caf\xe9\x1b.jpg".decode("utf-8", "surrogateescape")
    assert printable(name) == "caf\\xe9\\x1b.jpg"
    assert printable("日本 café") == "日本 café"


@given(st.text(alphabet="$\\x_^{}\n") | st.sampled_from(NAMES))
def test_matplotlib_takes_no_name_for_mathematics(name):
    assert not is_math_text(figure_text(name))
    assert figure_text(name).replace(r"\$", "$") == printable(name)  # what Matplotlib draws


@pytest.mark.parametrize("name", NAMES)
def test_every_chart_of_a_name_is_drawn(name, tmp_path):
    classes = ["ape", name]
    (tmp_path / "journal.jsonl").write_text('{"epoch": 1, "val_cross_entropy": 1.5}\n')
    image = np.zeros((40, 40, 3))
    for figure in (
        figures.class_error_bars(np.array([10.0, 50.0]), classes),
        figures.confusion_matrix(np.array([[3, 1], [1, 2]]), classes),
        figures.prediction_sheet([image], np.array([[0.1, 0.9]]), [0], classes, name),
        curves.learning_curves({name: tmp_path / "journal.jsonl"}),
        figures.score_maps({40: image}, {40: np.eye(2)}, 32, np.zeros((2, 1)), name),
        image_sheet([Section([Tile(image, [name])], name)], name),
    ):
        svg = base64.b64decode(figures.figure_uri(figure).partition(",")[2])
        ElementTree.fromstring(svg)


def write_runs(folder: Path, *names: str) -> list[Path]:
    entry = {"epoch": 1, "val_cross_entropy": 1.5, "learning_rate": 0.1}
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "journal.jsonl").write_text(json.dumps(entry) + "\n")
    return [folder / name for name in names]


def test_every_run_has_its_curve_and_its_label(tmp_path):
    runs = write_runs(tmp_path, "_x", "$a$", "b", "old/b")
    figure = curves.learning_curves(curves.journals_of(runs))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["_x", r"\$a\$", str(tmp_path / "b"), str(tmp_path / "old/b")]
    for panel in figure.axes:
        assert len({line.get_color() for line in panel.lines}) == 4


def test_runs_are_named_by_net_and_scale(tmp_path):
    (run,) = write_runs(tmp_path, "x")
    (run / "recipe.json").write_text(Recipe(net="D", train_scale=(256, 512)).to_json())
    assert list(curves.journals_of([run])) == ["D, S = [256;512] (x)"]


def test_curves_of_many_runs_explain_their_lines_and_have_whole_epochs(tmp_path):
    runs = write_runs(tmp_path, *map(str, range(12)))
    for narrow in (False, True):
        figure = curves.learning_curves(curves.journals_of(runs), narrow=narrow)
        figure.draw_without_rendering()
        assert "dotted: the learning rate drops" in figure.legends[0].get_title().get_text()
        for panel in figure.axes:
            assert len({str(line.get_color()) for line in panel.lines}) == 12
            assert all(tick == round(tick) for tick in panel.get_xticks())


def test_a_journal_without_rates_is_drawn(tmp_path):
    file = tmp_path / "journal.jsonl"
    file.write_text('{"epoch": 1, "learning_rate": null}\n{"epoch": 2, "learning_rate": 0.1}\n')
    assert len(curves.learning_curves({"a": file}).axes) == 2


def test_equal_names_have_a_bar_each():
    panel = figures.class_error_bars(np.array([10.0, 50.0]), ["crane", "crane"]).axes[0]
    assert len(panel.patches) == 2
    assert [bar.get_y() for bar in panel.patches] == pytest.approx([-0.4, 0.6])


def test_markdown_shows_names_as_they_are():
    table = Table(4, "x", ("a", "b"), (("one|two\nthree", "<b>*c*_d_`e`$f$\\ & \x1b["),))
    row = render(table, "markdown").splitlines()[-1]
    assert row == (r"| one\|two<br>three | &lt;b>\*c\*\_d\_\`e\`\$f\$\\ &amp; " + "\x1b[ |")


@pytest.fixture
def results(tmp_path):
    """Results with predictions of classes with such names, by runs with such names; one is gone."""
    runs = write_runs(tmp_path / "runs", "_x", "$y$", "latin\udce9")
    classes = tuple(name for name in NAMES if "\udce9" not in name)
    for i, run in enumerate([*runs, tmp_path / "gone\x1b[31m"]):
        found = predictions(seed=i, classes=classes, count=20, run=str(run))
        found.save(tmp_path / "results" / f"{i}.parquet")
    return tmp_path / "results"


def test_the_report_shows_names_as_they_are(results, tmp_path):
    page = write_report(results, tmp_path / "out").read_text("utf-8")
    assert not CONTROLS.search(page)
    assert "<script>" not in page
    assert "gone\\x1b[31m" in page
    assert re.search(r"\$5_\$10|\\x9b31m|\\u202egnp", page)  # the most frequent confusions


def test_the_report_of_the_same_results_is_the_same_file(results, tmp_path):
    first, second = (write_report(results, tmp_path / name).read_bytes() for name in "ab")
    assert first == second


@click.command()
@click.argument("name")
def failing(name):
    with one_line_errors(False):
        _Lines().emit(logging.makeLogRecord({"msg": "skipped: %s", "args": (name,)}))
        raise SourceError(f"There is no image {name}.")


class TestTerminal:
    @pytest.mark.parametrize("name", NAMES)
    def test_errors_and_warnings_are_lines_without_control_characters(self, name):
        shown = CliRunner().invoke(failing, ["--", name]).output
        assert shown == (
            f"skipped: {printable(name)}\nError: There is no image {printable(name)}.\n"
        )

    @pytest.mark.parametrize("name", NAMES)
    def test_answers_of_servers_are_only_shown(self, name, capsys):
        _show_answer("cat.jpg", Answer((0,), (name,), (0.5,)))
        _show_answer("cat.jpg", Answer((-1,), (), (), error=name))
        _, of_class, of_error, *rest = capsys.readouterr().out.split("\n")
        assert rest == [""]
        assert of_class == f"  50.0 %  {printable(name)}"
        assert of_error == f"cat.jpg {printable(name)}"

    def test_tables_show_brackets_and_no_control_characters(self, capsys):
        print_table(trials_table([], "sweeps/[/red]\x1b[31m"), width=60)
        echo_lines("a\x1b\nb\n")
        shown = capsys.readouterr().out
        assert "sweeps/[/red]\\x1b[31m" in shown
        assert shown.endswith("a\\x1b\nb\n")

    def test_commands_print_in_one_way(self):
        """Whatever a command prints goes through the functions that remove control characters."""
        pattern = re.compile(r"click\.echo|\bprint\(|Console\(|sys\.std")
        for file in (ROOT / "vgg_keras/commands").glob("*.py"):
            found = pattern.findall(file.read_text())
            assert not found or file.name == "terminal.py", file.name
