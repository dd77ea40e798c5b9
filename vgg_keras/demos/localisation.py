"""Localisation (Appendix A) from training to a report page, in minutes on synthetic shapes."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vgg_keras.localisation.localise import centre_of_true_class, localise
from vgg_keras.localisation.results import Localised
from vgg_keras.localisation.task import train_localisation
from vgg_keras.pipelines.sources import open_source
from vgg_keras.recipes import LOCALISATION_RECIPES, RECIPES
from vgg_keras.report.figures import save_figure
from vgg_keras.report.localised import examples_of, localisation_sheet
from vgg_keras.report.page import write_report
from vgg_keras.text import printable
from vgg_keras.trained import TrainedNet
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
    epochs=14,
    plateau_patience=4,
    learning_rate=0.03,
    dropout=0.0,
)

_EXAMPLES = 5  # right ones on the sheet, and as many wrong ones


def run_demo(out: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> None:
    """Trains a classification net and from it a localisation net, scores it, writes the report.

    Args:
        out: folder for all files. A second call continues where the first was interrupted.
        data_dir: where TFDS stores the synthetic shapes; by default in its own folder.
    """
    started = time.monotonic()
    out, console = Path(out), Console(markup=False)
    classifier, localiser = out / "runs" / "classifier", out / "runs" / "localiser"
    console.rule("training net A to classify the shape")
    train(_CLASSIFIER, classifier, data_dir=data_dir)
    console.rule("training net A to localise it, started from the classifier (§A.1)")
    recipe = dataclasses.replace(_LOCALISER, init_from=str(classifier))
    train_localisation(recipe, localiser, data_dir=data_dir)
    console.rule("scoring on the validation split (§A.2)")
    source = open_source(_CLASSIFIER.data, data_dir)
    net = TrainedNet.load(localiser)
    centre = centre_of_true_class(net, source)
    dense = localise(
        [net],
        source,
        classifiers=[TrainedNet.load(classifier)],
        cache_dir=out / "evaluation",
    )
    for name, answers in (("centre-gt", centre), ("dense", dense)):
        answers.save(out / "results" / f"{name}.json")
    page = write_report(out / "results", out / "report", data_dir=data_dir)
    sheet = out / "boxes.jpg"
    save_figure(
        localisation_sheet(examples_of(dense.result_with_answers(), data_dir, _EXAMPLES)), sheet
    )
    console.print(_table(centre, dense))
    for name, path in {"report": page, "images with boxes": sheet}.items():
        console.print(f"{name + ':':20}{printable(str(path))}", highlight=False, soft_wrap=True)
    console.print(f"total time: {time.monotonic() - started:.0f} s", highlight=False)


def _table(centre: Localised, dense: Localised) -> Table:
    table = Table(title=f"{len(dense.images)} validation images")
    table.add_column("protocol")
    table.add_column("localisation error", justify="right")
    table.add_column("measured on")
    for answers, key, measured_on in (
        (centre, "gt_class_localisation_error", "box of the true class, central crop"),
        (dense, "top5_localisation_error", "five classes with one box each, all positions"),
        (dense, "top1_localisation_error", "the most probable class and its box"),
    ):
        result = answers.result()
        table.add_row(result["protocol"], f"{result[key]:.1f} %", measured_on)
    return table
