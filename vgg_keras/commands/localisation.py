"""`localise`: training and scoring of nets that predict boxes (Appendix A)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from vgg_keras.commands.base import group
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.locating import DENSE, NETS, dense_arguments, predict_boxes
from vgg_keras.commands.nets import nets_in_folders
from vgg_keras.commands.options import (
    FILE,
    FOLDER,
    Names,
    add_options,
    bad_image_option,
    batch_size_option,
    data_dir_option,
    data_options,
    devices_option,
    json_option,
    submission_option,
)
from vgg_keras.commands.recipes import recipe_command
from vgg_keras.commands.results import print_json, provenance, timed
from vgg_keras.commands.terminal import echo
from vgg_keras.commands.training import take_cluster, take_run, training_options
from vgg_keras.localisation.procedure import (
    LOCALISATION_PROTOCOL_ALIASES,
    LOCALISATION_PROTOCOLS,
)
from vgg_keras.metadata import members
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.pipelines.files import check_writable
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import LOCALISATION_RECIPES
from vgg_keras.run_files import LOCALISATION_CACHE


@group()
def localise() -> None:
    """Localisation (Appendix A): a box for each of the five most probable classes."""


@localise.command()
@training_options(LOCALISATION_RECIPES)
@click.pass_obj
def train(verbose, **options) -> None:
    """Train a net to predict boxes, starting from a classification run (--init-from)."""
    with one_line_errors(verbose):
        with quiet_tensorflow(verbose):
            recipe, out = take_run(options, LOCALISATION_RECIPES)
            from vgg_keras.localisation.task import train_localisation
        path = train_localisation(recipe, out, cluster=take_cluster(options), **options)
        echo(f"{path}: done", err=True)


localise.add_command(recipe_command(LOCALISATION_RECIPES, "localise train"))

localise.add_command(predict_boxes)
_PROCEDURE = (
    click.option(
        "--protocol",
        type=Names(LOCALISATION_PROTOCOLS, LOCALISATION_PROTOCOL_ALIASES),
        default="dense",
        show_default=True,
        help="dense: the full protocol of §A.2. centre-gt: the box of the true class in the "
        "central crop, without mirror images.",
    ),
    *DENSE,
    click.option(
        "--boxes", type=FILE, help="CSV file with the true boxes [the file of the first run]."
    ),
    batch_size_option(),
)


@localise.command()
@add_options(NETS)
@data_options()
@data_dir_option
@click.option("--split", default="val", show_default=True, help="Name of the split to test on.")
@add_options(_PROCEDURE)
@click.option(
    "--cache-dir",
    help="Folder in which boxes are cached, so that an interrupted evaluation can continue; '' "
    "for no cache [RUN/localisation].",
)
@click.option(
    "--out",
    type=FILE,
    help="Save the result, with the classes and boxes of each image, in this .json file.",
)
@click.option(
    "--picture",
    type=FILE,
    help="Draw some images with right and some with wrong boxes in this .png or .jpg file.",
)
@submission_option
@devices_option
@bad_image_option
@json_option
@click.pass_obj
def evaluate(
    verbose,
    runs,
    classifiers,
    precision,
    data,
    data_dir,
    devices,
    out,
    picture,
    submission,
    as_json,
    **options,
) -> None:
    """Measure the localisation errors of nets, in percent, by the rule of ILSVRC."""
    with one_line_errors(verbose):
        _check(runs, classifiers, submission, options)
        for file in filter(None, (out, picture, submission)):
            check_writable(file)  # before hours of work
        arguments = {"precision": precision}
        nets = nets_in_folders(runs, "run", arguments)
        classifiers = nets_in_folders(classifiers, "classifier", arguments)
        with quiet_tensorflow(verbose):
            from vgg_keras.distribution import find_devices
            from vgg_keras.evaluation.submissions import submission_ids
            from vgg_keras.pipelines.sources import open_source
        if submission:
            submission_ids(nets[0].facts().class_names)
        used = find_devices(devices)  # first: TFDS may start TensorFlow, which fixes them
        source = open_source(data, data_dir)
        with used.scope():
            nets, classifiers = ([one.load() for one in chosen] for chosen in (nets, classifiers))
        split = source[options["split"]]
        with timed() as timer:
            if options.pop("protocol") == "dense":
                found = _dense(nets, source, classifiers, runs[0] / LOCALISATION_CACHE, **options)
            else:
                found = _centre(nets[0], source, **options)
        measured = provenance(timer, len(found.images))
        found = dataclasses.replace(found, metadata=found.metadata | measured)
        if out:
            found.save(out)
        if picture:
            _draw(found, data_dir, picture)
        if submission:
            found.save_submission(submission, split)
        result = found.result()
        if as_json:
            print_json([result])
        else:
            echo(_line(result))


def _draw(found, data_dir, picture: Path) -> None:
    from vgg_keras.report.figures import save_figure
    from vgg_keras.report.localised import examples_of, localisation_sheet

    examples = examples_of(found.result_with_answers(), data_dir)
    save_figure(localisation_sheet(examples), picture)
    echo(f"drawn: {picture}", err=True)


def _dense(
    nets,
    source,
    classifiers,
    default_cache: Path,
    *,
    test_scales,
    predictions,
    merge_threshold,
    cache_dir,
    **options,
):
    """Answers of the full protocol."""
    from vgg_keras.localisation.localise import localise as run_localisation

    return run_localisation(
        nets,
        source,
        classifiers=classifiers,
        **dense_arguments(test_scales, predictions, merge_threshold),
        cache_dir=default_cache if cache_dir is None else cache_dir or None,
        **options,
    )


def _centre(net, source, *, test_scales, split, boxes, batch_size, on_bad_image, **_):
    """Answers for the central crops and the true classes."""
    from vgg_keras.localisation.localise import centre_of_true_class

    return centre_of_true_class(
        net,
        source,
        split=split,
        boxes=boxes,
        test_scale=test_scales[0][0] if test_scales else None,
        batch_size=batch_size,
        on_bad_image=on_bad_image,
    )


def _check(runs, classifiers, submission, options) -> None:
    if options["protocol"] == "dense":
        if not classifiers:
            raise ArgumentError(
                "The dense protocol needs --classifier, a classification run or more."
            )
    elif len(runs) > 1 or classifiers or options["predictions"]:
        raise ArgumentError("centre-gt takes one --run, and no --classifier or --predictions.")
    elif sum(map(len, options["test_scales"])) > 1:
        raise ArgumentError("centre-gt takes one test scale.", "test_scales")
    elif submission:
        raise ArgumentError("centre-gt is told the true classes: --submission needs dense.")


def _line(result: dict) -> str:
    """A result as a line of text."""
    nets = members(result)
    who = " + ".join(
        f"net {m['net']}, {m['regression']}, Q = {','.join(map(str, m['test_scales']))}"
        for m in nets
    )
    errors = {k: v for k, v in result.items() if k.endswith("_error")}
    figures = ", ".join(f"{_words(k)} {v:.2f} %" for k, v in errors.items())
    return f"{who}, {result['protocol']}: {figures} of {result['images']} images"


def _words(key: str) -> str:
    """The key of an error as words, as in "top-1 localisation error"."""
    return key.replace("_", " ").replace("top", "top-")


@localise.command()
@click.option(
    "--out",
    type=FOLDER,
    default=Path("demo-localise"),
    show_default=True,
    help="Folder for the runs and images.",
)
@data_dir_option
@click.pass_obj
def demo(verbose, out, data_dir) -> None:
    """Train small nets to classify and locate drawn shapes, and draw the boxes that they find."""
    with one_line_errors(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.demos.localisation import run_demo
        run_demo(out, data_dir)
