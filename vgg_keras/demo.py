"""`vgg-keras demo`: the paper from training to its tables, in a few minutes on drawn shapes."""

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
from vgg_keras.evaluation.predictions import Predictions, fuse
from vgg_keras.metadata import members
from vgg_keras.nets import get_net
from vgg_keras.pipelines.evaluation import read_pictures
from vgg_keras.pipelines.sources import VALIDATION, Source, open_source
from vgg_keras.recipes import RECIPES
from vgg_keras.report.figures import learning_curves, prediction_sheet, save
from vgg_keras.report.page import write_report
from vgg_keras.runs import JOURNAL, load_run
from vgg_keras.training import train

# Small enough for four minutes in float32 on two CPU cores; so narrow a net needs less dropout.
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
_PROTOCOLS = ("centre", "dense")  # of both nets; 50 crops an image of the deeper one alone
_SHEET = 18


def _fast_precision() -> str:
    """bfloat16 where the device computes in it; a CPU that does not takes several times longer."""
    cpu = Path("/proc/cpuinfo")
    is_native = not is_cpu_only() or (cpu.is_file() and "bf16" in cpu.read_text())
    return "mixed_bfloat16" if is_native else "float32"


def run_demo(out: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> None:
    """Trains net A, warm-starts net D from it, scores both and their fusion, writes the report.

    Args:
        out: folder for everything; a second call goes on where the first was interrupted.
        data_dir: where the drawn shapes are kept; by default in TFDS's own folder.
    """
    started = time.monotonic()
    out = Path(out)
    console = Console()
    shallow, deep = out / "runs" / "a", out / "runs" / "d"
    console.rule("net A from scratch")
    recipe = dataclasses.replace(_SHALLOW, precision=_fast_precision())
    train(recipe, shallow, data_dir=data_dir)
    console.rule("net D, started from net A (§3.1)")
    train(dataclasses.replace(recipe, net="D", init_from=str(shallow)), deep, data_dir=data_dir)
    console.rule("scoring on the validation split (§3.2)")
    source = open_source(_SHALLOW.data, data_dir)
    scored = dict(_score((shallow, deep), source, out / "results"))

    page = write_report(out / "results", out / "report", data_dir=data_dir)
    curves, sheet = out / "learning_curves.png", out / "predictions.png"
    save(learning_curves({"A": shallow / JOURNAL, "D, from A": deep / JOURNAL}), curves)
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
        console.print(f"{name + ':':22}{path}", highlight=False, soft_wrap=True)
    console.print(f"{time.monotonic() - started:.0f} s in all", highlight=False)


def _score(paths: tuple[Path, ...], source: Source, out: Path) -> Iterator[tuple[str, Predictions]]:
    """The runs under the protocols, and their dense fusion (§4.4); all kept in `out`."""
    for path in paths:
        run = load_run(path)
        crops = ("multi-crop+dense",) if path == paths[-1] else ()
        for protocol in (*_PROTOCOLS, *crops):
            one = evaluate(run, source, protocol=protocol, cache_dir=path / "evaluation")
            yield _keep(f"{path.name}-{protocol}", one, out)
    dense = [Predictions.load(out / f"{path.name}-dense.parquet") for path in paths]
    yield _keep("fusion-dense", fuse(dense), out)


def _keep(name: str, predictions: Predictions, out: Path) -> tuple[str, Predictions]:
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
    """Predictions of the first pictures of the split."""
    images = read_pictures(source[VALIDATION], range(_SHEET))
    title = "net D, dense: the three most probable classes"
    save(
        prediction_sheet(
            [images[i] for i in range(_SHEET)],
            predictions.posteriors[:_SHEET],
            predictions.labels[:_SHEET],
            predictions.class_names,
            title,
        ),
        out,
    )
