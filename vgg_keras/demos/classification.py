"""Classification from training to a report page, in a few minutes on synthetic shapes."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vgg_keras.distribution import is_cpu_only
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.evaluation.fusion import fuse
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.metadata import members
from vgg_keras.nets import get_net
from vgg_keras.pipelines.evaluation import read_images
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import VALIDATION, Source
from vgg_keras.recipes import RECIPES
from vgg_keras.report.curves import learning_curves
from vgg_keras.report.figures import prediction_sheet, save_figure
from vgg_keras.report.page import write_report
from vgg_keras.run_files import EVALUATION_CACHE, JOURNAL
from vgg_keras.text import printable
from vgg_keras.trained import TrainedNet
from vgg_keras.training import train

# Takes four minutes in float32 on two CPU cores. A net this narrow needs less dropout.
_SHALLOW = dataclasses.replace(
    RECIPES["small"],
    data="shapes",
    net="A",
    width=0.125,
    train_scale=(64, 80),
    batch_size=32,
    dropout=0.2,
    epochs=9,
    plateau_patience=4,
)
_PROTOCOLS_OF_BOTH_NETS = ("centre", "dense")
_PROTOCOL_OF_THE_DEEPER_NET = "multi-crop+dense"  # 50 crops per image take longest
_IMAGES_ON_SHEET = 18


def run_demo(out: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> None:
    """Trains net A, warm-starts net D from it, scores both and their fusion, writes the report.

    Args:
        out: folder for all files. A second call continues where the first was interrupted.
        data_dir: where TFDS stores the synthetic shapes; by default in its own folder.
    """
    started = time.monotonic()
    out = Path(out)
    console = Console(markup=False)
    shallow, deep = out / "runs" / "a", out / "runs" / "d"
    console.rule("training net A from scratch")
    recipe = dataclasses.replace(_SHALLOW, precision=_fast_precision())
    train(recipe, shallow, data_dir=data_dir)
    console.rule("training net D, warm-started from net A (§3.1)")
    train(dataclasses.replace(recipe, net="D", init_from=str(shallow)), deep, data_dir=data_dir)
    console.rule("scoring both nets on the validation split (§3.2)")
    source = open_source(_SHALLOW.data, data_dir)
    scored = dict(_score((shallow, deep), source, out / "results"))

    page = write_report(out / "results", out / "report", data_dir=data_dir)
    curves, sheet = out / "learning_curves.png", out / "predictions.png"
    save_figure(
        learning_curves({"A": shallow / JOURNAL, "D, warm-started from A": deep / JOURNAL}), curves
    )
    _save_sheet(scored["d-dense"], source, sheet)
    console.print(_table(scored, 100 * (1 - 1 / len(source.class_names))))
    files = {
        "report": page,
        "learning curves": curves,
        "example predictions": sheet,
        "net A": shallow,
        "net D": deep,
    }
    for name, path in files.items():
        console.print(f"{name + ':':22}{printable(str(path))}", highlight=False, soft_wrap=True)
    console.print(f"total time: {time.monotonic() - started:.0f} s", highlight=False)


def _fast_precision() -> str:
    """bfloat16 if the device computes in it natively; emulated, it is several times slower."""
    cpu = Path("/proc/cpuinfo")
    is_native = not is_cpu_only() or (cpu.is_file() and "bf16" in cpu.read_text())
    return "mixed_bfloat16" if is_native else "float32"


def _score(
    folders: tuple[Path, ...], source: Source, out: Path
) -> Iterator[tuple[str, Predictions]]:
    """Predictions of each run by each protocol, and their dense fusion (§4.4); saved in `out`."""
    for folder in folders:
        net = TrainedNet.load(folder)
        longest = (_PROTOCOL_OF_THE_DEEPER_NET,) if folder == folders[-1] else ()
        for protocol in (*_PROTOCOLS_OF_BOTH_NETS, *longest):
            cache = folder / EVALUATION_CACHE
            predictions = evaluate(net, source, protocol=protocol, cache_dir=cache)
            yield _saved(f"{folder.name}-{protocol}", predictions, out)
    dense = [Predictions.load(out / f"{folder.name}-dense.parquet") for folder in folders]
    yield _saved("fusion-dense", fuse(dense), out)


def _saved(name: str, predictions: Predictions, out: Path) -> tuple[str, Predictions]:
    predictions.save(out / f"{name}.parquet")
    return name, predictions


def _table(scored: dict[str, Predictions], chance: float) -> Table:
    results = [predictions.result() for predictions in scored.values()]
    table = Table(title=f"{results[0]['images']} validation images, chance is {chance:.0f} %")
    for column in ("net (layers)", "protocol"):
        table.add_column(column)
    for column in ("top-1 error", "top-5 error", "better than chance"):
        table.add_column(column, justify="right")
    for result in results:
        nets = [member["net"] for member in members(result)]
        table.add_row(
            " + ".join(f"{net} ({get_net(net).weight_layers})" for net in nets),
            result["protocol"].replace("+", " & "),
            f"{result['top1_error']:.1f} %",
            f"{result['top5_error']:.1f} %",
            f"by {chance - result['top1_error']:.1f} points",
        )
    return table


def _save_sheet(predictions: Predictions, source: Source, out: Path) -> None:
    """Draws the predictions for the first images of the split."""
    images = read_images(source[VALIDATION], range(_IMAGES_ON_SHEET))
    figure = prediction_sheet(
        [images[i] for i in range(_IMAGES_ON_SHEET)],
        predictions.posteriors[:_IMAGES_ON_SHEET],
        predictions.labels[:_IMAGES_ON_SHEET],
        predictions.class_names,
        "net D, dense: the three most probable classes",
    )
    save_figure(figure, out)
