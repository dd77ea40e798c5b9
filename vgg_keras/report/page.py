"""One HTML page of results: tables beside the paper's, curves, classes, mistakes, score maps."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from vgg_keras.errors import ArgumentError
from vgg_keras.metadata import PROVENANCE_KEY, members
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.provenance import git_commit, platforms_of
from vgg_keras.report.appendices import PAPER_TABLES
from vgg_keras.report.best import best_section
from vgg_keras.report.claims import claims_section
from vgg_keras.report.curves import journals_of, learning_curves
from vgg_keras.report.figures import figure_uri
from vgg_keras.report.localised import localisation_section
from vgg_keras.report.paper import MEASURED_ON
from vgg_keras.report.rendering import cells_as_text, listed, numeric_columns
from vgg_keras.report.results import Result, by_data, read_results, summary
from vgg_keras.report.tables import Table, build_table
from vgg_keras.run_files import JOURNAL
from vgg_keras.text import printable
from vgg_keras.version import __version__


def write_report(
    results: str | os.PathLike,
    out: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    examples: int = 4,
    command: str = "",
) -> Path:
    """Writes a page of results, `out/index.html`, that contains all of its images.

    If a net, the data or stored predictions are not available any more, the page says so.

    Args:
        results: folder with results, see `read_results`.
        out: folder for the page.
        data_dir: where TFDS stores its data.
        examples: number of images to draw with score maps, half of them mistakes.
        command: command that makes the page again, to name at its end.

    Returns:
        Path of the page.

    Raises:
        ArgumentError: the folder does not exist or holds no results.
        PredictionsError: a JSON file in it is broken.
        WriteError: the page cannot be written.

    Example:
        evaluate(net, data).save("results/d.parquet")
        write_report("results", "report")
    """
    found = read_results(results)
    if not found:
        raise ArgumentError(
            f"results must be a folder with results, as Predictions.save and Localised.save write "
            f"them. Received: {results}, which holds no results",
            "results",
        )
    content = _content(found, data_dir, examples)
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    template = resources.files("vgg_keras.report").joinpath("page.html.j2").read_text("utf-8")
    path = Path(out) / "index.html"
    atomic_write(path, environment.from_string(template).render(**content, command=command))
    return path


def _content(
    found: Sequence[Result], data_dir: str | os.PathLike | None, examples: int
) -> dict[str, Any]:
    """What the page shows, by the names in its template."""
    classified = [one for one in found if one.keys() >= {"top1_error", "top5_error"}]
    classified.sort(key=lambda result: (result["top1_error"], result["file"]))
    tables = [build_table(number, found) for number in PAPER_TABLES if number > 2]
    runs = _runs(found)
    return {
        "sets": {
            name: list(map(summary, of_data)) for name, of_data in by_data(classified).items()
        },
        "days": _days(found),
        "hardware": _hardware(found),
        "platforms": platforms_of(runs),
        "claims": claims_section(found),
        "tables": [_table(table) for table in tables if table.has_results],
        "unmatched": _unmatched(tables),
        "curves": _curves(runs),
        "best": best_section(classified, data_dir, examples),
        "localised": localisation_section(found, data_dir),
        "version": __version__,
        "commit": git_commit(),
    }


def _shown(value: Any) -> Any:
    """A value as the page shows it; `Markup` is escaped already."""
    return type(value)(printable(value)) if isinstance(value, str) else value


def _days(found: Iterable[Result]) -> str:
    """The days of the results, as in "2026-01-05 to 2026-01-09"."""
    days = sorted(map(_day, found))
    return " to ".join(dict.fromkeys([days[0], days[-1]]))


def _day(result: Result) -> str:
    """The day on which a result was ready; if that is unknown, the day of its file."""
    date = result.get(PROVENANCE_KEY, {}).get("date", "")
    written = datetime.date.fromtimestamp(Path(result["file"]).stat().st_mtime)
    return date.partition("T")[0] or written.isoformat()


def _hardware(found: Iterable[Result]) -> list[str]:
    """The hardware that computed the results, each once."""
    names = (result.get(PROVENANCE_KEY, {}).get("hardware") for result in found)
    return list(dict.fromkeys(filter(None, names)))


def _runs(found: Iterable[Result]) -> list[Path]:
    """The folders of the runs that were tested, each once, relative to the current folder."""
    nets = [net for result in found for net in members(result)]
    runs = dict.fromkeys(Path(net["run"]).absolute() for net in nets if "run" in net)
    return list(map(_short, runs))


def _unmatched(tables: Iterable[Table]) -> dict[str, dict[str, Any]]:
    """Tables and files of results that do not go together, by the reason."""
    reasons: dict[str, list[tuple[int | None, str]]] = {}
    for table in tables:
        for file, reason in table.unmatched:
            reasons.setdefault(reason, []).append((table.number, file))
    return {
        reason: {
            "tables": list(dict.fromkeys(number for number, _ in found)),
            "files": listed(list(dict.fromkeys(file for _, file in found))),
        }
        for reason, found in reasons.items()
    }


def _table(table: Table) -> dict[str, Any]:
    """A table for the page. What all results were measured on is no column."""
    texts, of_columns = cells_as_text(table), enumerate(numeric_columns(table))
    measured_on = ""
    if table.header[-1] == MEASURED_ON:
        different = {row[-1] for row in texts if row[-1]}
        measured_on = different.pop() if len(different) == 1 else ""
    shown = slice(None, -1) if measured_on else slice(None)
    return {
        "number": table.number,
        "title": table.title,
        "header": table.header[shown],
        "rows": [row[shown] for row in texts],
        "measured_on": measured_on,
        "classes": [
            "ours" * (i >= table.paper_columns) + " number" * numeric for i, numeric in of_columns
        ],
    }


def _curves(runs: Sequence[Path]) -> dict[str, Any]:
    """Learning curves of the runs that still have a journal, and the names of the others."""
    available = [path for path in runs if (path / JOURNAL).is_file()]
    missing = [str(path) for path in runs if path not in available]
    if not available:
        return {"wide": None, "missing": missing}
    journals = journals_of(available)
    return {
        "wide": figure_uri(learning_curves(journals)),
        "narrow": figure_uri(learning_curves(journals, narrow=True)),
        "missing": missing,
    }


def _short(path: Path) -> Path:
    """A path relative to the current folder if it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
