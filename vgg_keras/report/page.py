"""One HTML page of results: tables beside the paper's, curves, classes, mistakes, score maps."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from vgg_keras.errors import PredictionsError, RunError
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.procedure import paper_scales
from vgg_keras.ilsvrc import short_label
from vgg_keras.metadata import members
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.evaluation import read_pictures
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.pipelines.sources import Split, open_source
from vgg_keras.report import analysis, figures, localised
from vgg_keras.report.appendices import PAPER_TABLES
from vgg_keras.report.maps import score_map_figure
from vgg_keras.report.tables import (
    build_table,
    cells_as_text,
    circumstances,
    nets_of,
    numeric_columns,
    read_results,
)
from vgg_keras.runs import JOURNAL, Run, load_run

_CLASSES_IN_MATRIX = 40
_MISTAKES = 18


def write_report(
    results: str | os.PathLike,
    out: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    examples: int = 4,
) -> Path:
    """Writes `out/index.html`, which holds everything it shows and needs no network.

    What cannot be shown because a run, the data or kept predictions are not at hand is said so
    on the page.

    Args:
        results: folder with results, as `read_results` takes it.
        out: folder for the page.
        data_dir: where TFDS keeps its data.
        examples: pictures to lay score maps over, half of them mistakes.

    Returns:
        The page's path.

    Raises:
        ValueError: no such folder, no result in it, or a broken file.
    """
    found = read_results(Path(results))
    if not found:
        raise ValueError(
            f"{results} holds no results. `vgg-keras evaluate --out {results}/NAME.parquet` writes "
            f"one."
        )
    classified = [result for result in found if "top1_error" in result]
    classified.sort(key=lambda result: (result["top1_error"], result["file"]))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = resources.files("vgg_keras.report").joinpath("page.html.j2").read_text("utf-8")
    page = environment.from_string(template).render(
        data=sorted({f"{r.get('data', '?')}, split {r.get('split', '?')}" for r in found}),
        results=[_summary(result) for result in classified],
        tables=list(_tables(found)),
        curves=_curves(found),
        best=_best(classified, data_dir, examples) if classified else None,
        localised=localised.section(found, data_dir),
        classified=bool(classified),
    )
    path = Path(out) / "index.html"
    atomic_write(path, page)
    return path


def _summary(result: dict) -> dict[str, Any]:
    return {
        "nets": nets_of(result),
        "protocol": result["protocol"].replace("+", " & "),
        "top1": result["top1_error"],
        "top5": result["top5_error"],
        "of": circumstances(result),
        "file": Path(result["file"]).stem,
    }


def _tables(found: Sequence[dict]) -> Iterator[dict]:
    for number in PAPER_TABLES:
        table = build_table(number, found)
        yield {
            "number": number,
            "title": table.title,
            "header": table.header,
            "rows": cells_as_text(table),
            "classes": [
                " ".join(
                    name
                    for name, is_so in (("ours", i >= table.paper_columns), ("number", numeric))
                    if is_so
                )
                for i, numeric in enumerate(numeric_columns(table))
            ],
            "matched": number > 2
            and any(c is not None for row in table.rows for c in row[table.paper_columns :]),
        }


def _runs_of(found: Sequence[dict]) -> list[Path]:
    nets = [net for result in found for net in members(result)]
    return [Path(path) for path in dict.fromkeys(net["run"] for net in nets if "run" in net)]


def _curves(found: Sequence[dict]) -> dict[str, Any]:
    """Learning curves of the runs at hand, and the names of the others."""
    runs = _runs_of(found)
    at_hand = [path for path in runs if (path / JOURNAL).is_file()]
    missing = [str(path) for path in runs if path not in at_hand]
    names = [path.name for path in at_hand]
    journals = {
        path.name if names.count(path.name) == 1 else str(path): path / JOURNAL for path in at_hand
    }
    figure = figures.data_uri(figures.learning_curves(journals)) if journals else None
    return {"figure": figure, "missing": missing}


def _best(found: Sequence[dict], data_dir, examples: int) -> dict[str, Any] | None:
    """What the best result with kept predictions says of classes and pictures."""
    kept = next((r for r in found if "predictions" in r), None)
    if kept is None:
        return None
    try:
        predictions = Predictions.load(Path(kept["file"]).with_name(kept["predictions"]))
    except PredictionsError as error:
        return {"name": kept["file"], "problem": str(error)}
    readable = tuple(map(short_label, predictions.class_names))
    predictions = dataclasses.replace(predictions, class_names=readable)
    counts = analysis.confusion_counts(predictions)
    names = predictions.class_names
    present = np.flatnonzero(counts.sum(1) + counts.sum(0))
    matrix = counts[np.ix_(present, present)]
    shown = [names[k] for k in present]
    best: dict[str, Any] = {
        "name": Path(kept["predictions"]).stem,
        "summary": _summary(kept),
        "problem": None,
        "classes": int((counts.sum(1) > 0).sum()),
        "class_errors": figures.data_uri(
            figures.class_errors(analysis.class_errors(counts), names)
        ),
        "confusions": analysis.commonest_confusions(counts, names),
        "matrix": figures.data_uri(figures.confusion_matrix(matrix, shown))
        if len(present) <= _CLASSES_IN_MATRIX
        else None,
    }
    return best | _pictures(kept, predictions, data_dir, examples)


def _pictures(kept: dict, predictions: Predictions, data_dir, examples: int) -> dict[str, Any]:
    """Mistakes as thumbnails and examples with score maps; or why there are none."""
    try:
        if "data" not in kept:
            raise SourceError("the results are of different data.")
        split = open_source(kept["data"], data_dir, prepare=False)[kept["split"]]
        places = _places(split, predictions.names)
    except SourceError as error:
        return {"pictures_problem": f"The pictures are not at hand: {error}"}
    shown: dict[str, Any] = {"pictures_problem": None, "maps_problem": None}
    wrong = analysis.most_confident(predictions, right=False, most=_MISTAKES)
    right = analysis.most_confident(predictions, right=True, most=examples - examples // 2)
    rows = [*right, *wrong[: examples - len(right)]]
    images = read_pictures(split, [places[i] for i in {*wrong, *rows}])
    by_row = {i: images[places[i]] for i in {*wrong, *rows}}
    shown["mistakes"] = [
        _caption(predictions, i) | {"image": figures.thumbnail(by_row[i])} for i in wrong
    ]
    if not rows:
        return shown | {"maps": []}
    try:
        run = _first_run(kept)
        scales = _scales(run, members(kept)[0])
        maps = [
            _caption(predictions, i) | _map_of(run, scales, predictions, i, by_row[i]) for i in rows
        ]
    except RunError as error:
        return shown | {"maps_problem": f"No run to make score maps with: {error}"}
    return shown | {"maps": maps, "maps_of": f"net {run.recipe.net}, {run.path.name}"}


def _places(split: Split, names: Sequence[str]) -> list[int]:
    """Where in the split the named pictures are."""
    places = {name: i for i, name in enumerate(split.ids_of(range(len(split))))}
    missing = [name for name in names if name not in places]
    if missing:
        raise SourceError(f"{missing[0]} is not among them.")
    return [places[name] for name in names]


def _caption(predictions: Predictions, row: int) -> dict[str, Any]:
    posteriors = predictions.posteriors[row]
    best = int(posteriors.argmax())
    return {
        "name": predictions.names[row],
        "true": predictions.class_names[predictions.labels[row]],
        "predicted": predictions.class_names[best],
        "posterior": 100 * float(posteriors[best]),
        "right": best == predictions.labels[row],
    }


def _first_run(kept: dict) -> Run:
    """The first of the result's nets, as it was tested."""
    net = members(kept)[0]
    if "run" not in net:
        raise RunError("the result does not say of which run it is.")
    rounding = net.get("pool_rounding", "down")
    return load_run(net["run"], precision=net.get("precision"), pool_rounding=rounding)


def _scales(run: Run, net: dict) -> list[int]:
    """Those that the net was tested at, and the paper's several."""
    scales = set(net.get("test_scales", ()))
    with contextlib.suppress(ValueError):  # S - 32 may be below the crop size
        scales |= set(paper_scales(run.recipe, multi_scale=True))
    return sorted(scales)


def _map_of(
    run: Run, scales: Sequence[int], predictions: Predictions, row: int, image: np.ndarray
) -> dict[str, Any]:
    """The score map of the predicted class at some scales."""
    label = int(predictions.posteriors[row].argmax())
    text = f"score of {predictions.class_names[label]}"
    figure = score_map_figure(run, image, scales, label, text)
    return {"image": figures.data_uri(figure, "png")}
