"""`evaluate`, and what is made of its results: `fuse`, `table`, `report`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.nets import ChosenNet, chosen_nets, net_options
from vgg_keras.commands.options import (
    FILE,
    FOLDER,
    TESTING,
    add_options,
    bad_image_option,
    check_files_to_write,
    data_dir_option,
    data_options,
    devices_option,
    json_option,
    predictions_option,
    submission_option,
)
from vgg_keras.commands.results import Timer, print_json, provenance, timed
from vgg_keras.commands.terminal import echo, echo_lines, terminal_width
from vgg_keras.evaluation.procedure import Procedure
from vgg_keras.metadata import members
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.report.rendering import KINDS, matching_lines, render
from vgg_keras.report.results import read_results
from vgg_keras.report.tables import build_table


@command()
@net_options(several="several nets are tested one after the other, and fused")
@data_options()
@data_dir_option
@click.option("--split", default="val", show_default=True, help="Name of the split to test on.")
@add_options(TESTING)
@devices_option
@click.option(
    "--cache-dir",
    help="Folder in which posteriors are cached, so that an interrupted evaluation can continue; "
    "'' for no cache [RUN/evaluation, or FILE.evaluation beside --weights].",
)
@predictions_option
@submission_option
@bad_image_option
@json_option
@click.pass_obj
def evaluate(
    verbose,
    data,
    data_dir,
    split,
    devices,
    batch_size,
    cache_dir,
    out,
    submission,
    on_bad_image,
    as_json,
    **options,
) -> None:
    """Measure the top-1 error and the top-5 error of nets, and of their fusion.

    Errors are in percent. Several nets are fused by the mean of their posteriors (§4.4).
    """
    with one_line_errors(verbose):
        procedure = _procedure(options)
        check_files_to_write(out, submission)
        chosen = chosen_nets(options)
        with quiet_tensorflow(verbose):
            from vgg_keras.distribution import find_devices
            from vgg_keras.evaluation.submissions import submission_ids
            from vgg_keras.pipelines.sources import open_source
        _check_nets(chosen, procedure)
        used = find_devices(devices)  # first: TFDS may start TensorFlow, which fixes them
        source = open_source(data, data_dir)
        _check_classes(chosen, source, split)
        how = dataclasses.asdict(procedure) | {
            "batch_size": batch_size,
            "on_bad_image": on_bad_image,
        }
        check_classes = submission_ids if submission else None
        predictions = []
        for number, one in enumerate(chosen, 1):
            predictions.append(
                _predictions(one, source, split, used, cache_dir, how, check_classes)
            )
            if out and len(chosen) > 1:
                file = out.with_name(f"{out.stem}-{number}-{one.file.name}{out.suffix}")
                predictions[-1].save(file)
        if len(predictions) > 1:
            from vgg_keras.evaluation.fusion import fuse as run_fusion

            predictions.append(with_provenance(run_fusion(predictions)))
        save_predictions(predictions[-1], out, submission)
        _show([one.result() for one in predictions], as_json)


def _procedure(options: dict) -> Procedure:
    """Takes the options of a procedure out of a command's options."""
    names = ("protocol", "test_scales", "multi_scale", "flip", "map_average")
    return Procedure(**{name: options.pop(name) for name in names})


def _predictions(one: ChosenNet, source, split, used, cache_dir, how, check_classes):
    """Posteriors of one net, which is loaded for that and forgotten."""
    import keras

    from vgg_keras.evaluation.evaluate import evaluate as run_evaluation

    keras.backend.clear_session()
    with used.scope():
        net = one.load(source.class_names)
    if check_classes:
        check_classes(net.class_names)
    folder = one.cache_dir if cache_dir is None else cache_dir or None
    with timed() as timer:
        found = run_evaluation(net, source, split, cache_dir=folder, **how)
    return with_provenance(found, timer, len(found))


def with_provenance(predictions, timer: Timer | None = None, images: int | None = None):
    """Predictions that say how they came about, in what is printed and in what is saved."""
    metadata = {**predictions.metadata, **provenance(timer, images)}
    return dataclasses.replace(predictions, metadata=metadata)


def save_predictions(predictions, out: Path | None, submission: Path | None) -> None:
    """Writes the files that the options name."""
    if out:
        predictions.save(out)
    if submission:
        predictions.save_submission(submission)


def _check_nets(chosen: Sequence[ChosenNet], procedure: Procedure) -> None:
    """Refuses at once what would fail after the hours of work on the first net."""
    facts = [one.facts() for one in chosen if one.is_folder]
    for one in facts:
        procedure.passes(one)
    if len({one.class_names for one in facts}) > 1:
        raise ArgumentError("The runs have different classes, so they cannot be fused.")


def _check_classes(chosen: Sequence[ChosenNet], source, split: str) -> None:
    """Refuses at once data with classes that the nets do not know."""
    from vgg_keras.evaluation.evaluate import labels_for_net

    for one in chosen[:1]:  # all have the same classes
        if one.is_folder:
            labels_for_net(one.facts(), source, split)


@command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@predictions_option
@submission_option
@json_option
@click.pass_obj
def fuse(verbose, files, out, submission, as_json) -> None:
    """Fuse nets: average the posteriors in files that `--out` of `evaluate` or `predict` saved."""
    from vgg_keras.evaluation.fusion import fuse as run_fusion
    from vgg_keras.evaluation.predictions import Predictions

    with one_line_errors(verbose):
        check_files_to_write(out, submission)
        fused = with_provenance(run_fusion([Predictions.load(file) for file in files]))
        save_predictions(fused, out, submission)
        _show([fused.result()], as_json)


@command()
@click.argument("number", type=int)
@click.option(
    "--results",
    type=FOLDER,
    help="Folder with results: files that --out saved, or with the output of --json.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(KINDS),
    default="text",
    show_default=True,
    help="Format of the table.",
)
@json_option
@click.pass_obj
def table(verbose, number, results, kind, as_json) -> None:
    """Print a table of the paper, 1 to 12, with your results beside the paper's numbers.

    Standard error says how many results were found, and why some are beside no row.
    """
    with one_line_errors(verbose):
        built = build_table(number, read_results(results) if results else ())
        kind = "json" if as_json else kind
        echo_lines(render(built, kind, terminal_width(132)))
        if results and kind != "json":  # which has it itself
            for line in matching_lines(built):
                echo(line, err=True)


@command()
@click.option(
    "--results",
    required=True,
    type=FOLDER,
    help="Folder with results. Results that `evaluate --out` saved give the most complete page.",
)
@click.option(
    "--out", type=FOLDER, default=Path("report"), show_default=True, help="Folder for the page."
)
@data_dir_option
@click.option(
    "--examples",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    help="Number of images to show with score maps.",
)
@click.pass_obj
def report(verbose, results, out, data_dir, examples) -> None:
    """Write one HTML page with tables, learning curves, class errors, mistakes and score maps."""
    with one_line_errors(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.report.page import write_report
        made_by = shlex.join(["vgg-keras", "report", "--results", str(results), "--out", str(out)])
        options = {"data_dir": data_dir, "examples": examples, "command": made_by}
        echo(write_report(results, out, **options))


def _show(results: list[dict], as_json: bool) -> None:
    """Prints results, as JSON or as a line each."""
    if as_json:
        print_json(results)
        return
    for result in results:
        echo(_line(result))


def _line(result: dict) -> str:
    """A result as a line of text."""
    nets = members(result)
    who = " + ".join(
        f"net {m.get('net', '?')}, Q = {','.join(map(str, m.get('test_scales', '?')))}"
        for m in nets
    )
    skipped = f" ({len(result['skipped'])} more could not be read)" if "skipped" in result else ""
    errors = (
        f"top-1 error {result['top1_error']:.2f} %, top-5 error {result['top5_error']:.2f} % of "
        f"{result['images']} images"
        if "top1_error" in result
        else f"{result['images']} images without labels"
    )
    return (
        f"{'fusion of ' if len(nets) > 1 else ''}{who}, "
        f"{result.get('protocol', '?')}: {errors}{skipped}"
    )
