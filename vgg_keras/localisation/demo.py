"""`vgg-keras localise demo`: Appendix A from training to its error, in minutes on drawn shapes."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vgg_keras.localisation.evaluate import centre_of_true_class, localise
from vgg_keras.localisation.training import train_localisation
from vgg_keras.pipelines.sources import open_source
from vgg_keras.recipes import LOCALISATION_RECIPES, RECIPES
from vgg_keras.report.page import write_report
from vgg_keras.runs import load_run
from vgg_keras.training import train

_COMMON: dict[str, Any] = {
    "data": "shapes",
    "net": "A",
    "width": 0.125,
    "train_scale": (64, 64),
    "batch_size": 32,
}
_CLASSIFIER = dataclasses.replace(
    RECIPES["small"], **_COMMON, epochs=8, plateau_patience=4, dropout=0.2
)
_LOCALISER = dataclasses.replace(
    LOCALISATION_RECIPES["small"],
    **_COMMON,
    epochs=11,
    plateau_patience=2,
    learning_rate=0.03,
    dropout=0.0,
)


def run_demo(out: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> None:
    """Trains a classifier and from it a localiser, scores both protocols, writes the report.

    Args:
        out: folder for everything; a second call goes on where the first was interrupted.
        data_dir: where the drawn shapes are kept; by default in TFDS's own folder.
    """
    started = time.monotonic()
    out, console = Path(out), Console()
    classifier, localiser = out / "runs" / "classifier", out / "runs" / "localiser"
    console.rule("net A names the shape")
    train(_CLASSIFIER, classifier, data_dir=data_dir)
    console.rule("net A says where it is, started from that one (§A.1)")
    recipe = dataclasses.replace(_LOCALISER, init_from=str(classifier))
    train_localisation(recipe, localiser, data_dir=data_dir)
    console.rule("scoring on the validation split (§A.2)")
    source = open_source(_CLASSIFIER.data, data_dir)
    run, rater = load_run(localiser), load_run(classifier)
    centre = centre_of_true_class(run, source)
    full = localise([run], source, classifiers=[rater], cache_dir=out / "evaluation")
    for name, found in (("centre-gt", centre), ("dense", full)):
        found.save(out / "results" / f"{name}.json")
    page = write_report(out / "results", out / "report", data_dir=data_dir)
    table = Table(title=f"{len(full.images)} validation images")
    for column in ("protocol", "error", "of"):
        table.add_column(column, justify="right" if column == "error" else "left")
    for found, key, of in (
        (centre, "gt_class_localisation_error", "the true class's box, central crop"),
        (full, "top5_localisation_error", "five classes with a box each, all places"),
        (full, "top1_localisation_error", "the first of them alone"),
    ):
        result = found.result()
        table.add_row(result["protocol"], f"{result[key]:.1f} %", of)
    console.print(table)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    console.print(f"{time.monotonic() - started:.0f} s in all", highlight=False)
