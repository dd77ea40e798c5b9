"""`vgg-keras demo`: the paper's way of training a deep net, in a few minutes on drawn shapes."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.evaluation import centre_crops
from pipelines.sources import VALIDATION, open_source
from vgg_keras import runs
from vgg_keras.evaluation.centre import centre_posteriors, evaluate_centre
from vgg_keras.nets import get_net
from vgg_keras.recipes import RECIPES
from vgg_keras.report.figures import learning_curves, prediction_sheet
from vgg_keras.runs import Run, load_run
from vgg_keras.training import train

_SHALLOW = dataclasses.replace(
    RECIPES["small"],
    data="shapes",
    net="A",
    train_scale=(64, 96),
    batch_size=32,
    epochs=16,
    plateau_patience=4,
    precision="mixed_bfloat16",
)
_SHEET = 18


def run_demo(out: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> None:
    """Trains net A, warm-starts net D from it, scores both, draws curves and a sheet.

    Args:
        out: folder for everything; a second call goes on where the first was interrupted.
        data_dir: where the drawn shapes are kept; by default in TFDS's own folder.
    """
    started = time.monotonic()
    out = Path(out)
    console = Console()
    shallow, deep = out / "runs" / "a", out / "runs" / "d"
    console.rule("net A from scratch")
    train(_SHALLOW, shallow, data_dir=data_dir)
    console.rule("net D, started from net A (§3.1)")
    recipe = dataclasses.replace(_SHALLOW, net="D", init_from=str(shallow))
    train(recipe, deep, data_dir=data_dir)

    source = open_source(_SHALLOW.data, data_dir)
    table = Table(title="central crop, validation split")
    columns = (
        "net",
        "weight layers",
        "images",
        "top-1 error",
        "top-5 error",
        "better than chance by",
    )
    for column in columns:
        table.add_column(column, justify="right")
    chance = 100 * (1 - 1 / len(source.class_names))
    for path in (shallow, deep):
        run = load_run(path)
        result = evaluate_centre(run, source[VALIDATION], source.class_names)
        table.add_row(
            run.recipe.net,
            str(get_net(run.recipe.net).weight_layers),
            str(result["images"]),
            f"{result['top1_error']:.1f} %",
            f"{result['top5_error']:.1f} %",
            f"{chance - result['top1_error']:.1f} points of {chance:.0f}",
        )
    learning_curves(
        {"A": shallow / runs.JOURNAL, "D, from A": deep / runs.JOURNAL}, out / "learning_curves.png"
    )
    _sheet(run, source[VALIDATION], out / "predictions.png")
    console.print(table)
    files = {
        "learning curves": out / "learning_curves.png",
        "example predictions": out / "predictions.png",
        "net A": shallow,
        "net D": deep,
    }
    for name, path in files.items():
        console.print(f"{name + ':':22}{path}", highlight=False, soft_wrap=True)
    console.print(f"{time.monotonic() - started:.0f} s in all", highlight=False)


def _sheet(run: Run, split, out: Path) -> None:
    """Predictions of the first pictures of the split."""
    scales = (run.recipe.validation_scale,)
    posteriors, labels = next(centre_posteriors(run, split, scales, _SHEET))
    crops = centre_crops(
        split,
        crop_size=run.recipe.crop_size,
        test_scales=scales,
        batch_size=_SHEET,
        mean=(0.0, 0.0, 0.0),
    )
    images, _ = next(iter(crops))
    title = f"net {run.recipe.net}: central crops with the three most probable classes"
    prediction_sheet(images[:, 0].numpy(), posteriors, labels, run.class_names, out, title)
