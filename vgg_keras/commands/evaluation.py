"""`evaluate`, and what is made of its results: `fuse`, `table`, `report`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click

from vgg_keras.commands.shared import (
    bad_image_option,
    data_dir_option,
    data_option,
    devices_option,
    errors_for_people,
    json_option,
    testing_options,
)
from vgg_keras.commands.weights import (
    check_one_kind,
    run_of_weights,
    take_weights_options,
    weights_options,
)
from vgg_keras.metadata import members
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.report.rendering import KINDS, render
from vgg_keras.report.results import read_results
from vgg_keras.report.tables import build_table


@click.command()
@click.option(
    "--run",
    "run_folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Run folder; several are scored one by one and fused.",
)
@weights_options
@data_option
@data_dir_option
@click.option("--split", default="val", show_default=True, help="Split to score.")
@testing_options
@devices_option
@click.option(
    "--cache-dir",
    help="Folder for posteriors, to go on from [RUN/evaluation,"
    " FILE.evaluation beside --weights]; '' for none.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Keep predictions, .parquet or .csv.")
@bad_image_option
@json_option
@click.pass_obj
def evaluate(
    verbose, run_folders, data, data_dir, devices, cache_dir, out, as_json, **options
) -> None:
    """Score runs: top-1 and top-5 error in percent, of each and of their fusion."""
    with errors_for_people(verbose):
        given = take_weights_options(options)
        check_one_kind(bool(run_folders), given, "once or more")
        model_options = {name: options.pop(name) for name in ("precision", "pool_rounding")}
        _check_out(out)
        with quiet_tensorflow(verbose):
            import keras

            from vgg_keras.distribution import make_strategy
            from vgg_keras.evaluation.evaluate import evaluate as run_evaluation
            from vgg_keras.evaluation.predictions import fuse as run_fusion
            from vgg_keras.pipelines.sources import open_source
            from vgg_keras.runs import load_run
        _check_runs(run_folders, options)
        strategy = make_strategy(devices)  # first: TFDS may start TensorFlow, which fixes them
        source = open_source(data, data_dir)
        predictions = []
        for i, path in enumerate(run_folders or (given["weights"],), 1):
            keras.backend.clear_session()
            with strategy.scope():
                if run_folders:
                    run, kept_in = load_run(path, **model_options), path / "evaluation"
                else:
                    run = run_of_weights(given, model_options, source.class_names)
                    kept_in = path.with_suffix(".evaluation")
            folder = kept_in if cache_dir is None else cache_dir or None
            predictions.append(run_evaluation(run, source, cache_dir=folder, **options))
            if out and len(run_folders) > 1:
                predictions[-1].save(out.with_name(f"{out.stem}-{i}-{path.name}{out.suffix}"))
        if len(predictions) > 1:
            predictions.append(run_fusion(predictions))
        _show([p.result() for p in predictions], as_json)
        if out:
            predictions[-1].save(out)


def _check_out(out: Path | None) -> None:
    """Refuses at once what could not be written at the end."""
    if out:
        from vgg_keras.evaluation.predictions import known_format
        from vgg_keras.pipelines.files import atomic_path

        probe = known_format(out).with_name(f".{out.name}.probe")
        with atomic_path(probe) as temporary:
            temporary.touch()
        probe.unlink()


def _check_runs(run_folders, options) -> None:
    """Refuses at once what would come up after hours of work on the first run."""
    from vgg_keras.evaluation.evaluate import plan
    from vgg_keras.runs import read_run

    names = ("protocol", "test_scales", "multi_scale", "flip", "map_average")
    runs = [read_run(path) for path in run_folders]
    for recipe, _ in runs:
        plan(recipe, **{name: options[name] for name in names})
    if len({class_names for _, class_names in runs}) > 1:
        raise ValueError("The runs have different classes, so they cannot be fused.")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Keep predictions, .parquet or .csv.")
@json_option
@click.pass_obj
def fuse(verbose, files, out, as_json) -> None:
    """Average the posteriors in files that `evaluate --out` wrote (§4.4)."""
    from vgg_keras.evaluation.predictions import Predictions
    from vgg_keras.evaluation.predictions import fuse as run_fusion

    with errors_for_people(verbose):
        _check_out(out)
        fused = run_fusion([Predictions.load(file) for file in files])
        _show([fused.result()], as_json)
        if out:
            fused.save(out)


@click.command()
@click.argument("number", type=int)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Folder with results: what --json printed or --out kept.",
)
@click.option("--format", "kind", type=click.Choice(KINDS), default="text", show_default=True)
@json_option
@click.pass_obj
def table(verbose, number, results, kind, as_json) -> None:
    """A table of the paper, 1 to 12, with results of your own beside its numbers."""
    with errors_for_people(verbose):
        built = build_table(number, read_results(results) if results else ())
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 132
        click.echo(render(built, "json" if as_json else kind, width), nl=False)


@click.command()
@click.option(
    "--results",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with results; those that --out kept show most.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("report"),
    show_default=True,
    help="Folder for the page.",
)
@data_dir_option
@click.option(
    "--examples",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    help="Pictures to lay score maps over.",
)
@click.pass_obj
def report(verbose, results, out, data_dir, examples) -> None:
    """One HTML page: tables beside the paper's, curves, classes, mistakes, score maps."""
    with errors_for_people(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.report.page import write_report
        click.echo(write_report(results, out, data_dir=data_dir, examples=examples))


def _show(results: list[dict], as_json: bool) -> None:
    """Prints results; as JSON a single one as an object, several as a list."""
    if as_json:
        click.echo(json.dumps(results if len(results) > 1 else results[0]))
        return
    for result in results:
        click.echo(_line(result))


def _line(result: dict) -> str:
    """A result for people."""
    nets = members(result)
    who = " + ".join(f"net {m['net']}, Q = {','.join(map(str, m['test_scales']))}" for m in nets)
    skipped = f" ({len(result['skipped'])} more could not be read)" if "skipped" in result else ""
    return (
        f"{'fusion of ' if len(nets) > 1 else ''}{who}, {result['protocol']}: "
        f"top-1 error {result['top1_error']:.2f} %, top-5 error {result['top5_error']:.2f} % "
        f"of {result['images']} images{skipped}"
    )
