"""`localise`: where the object is (Appendix A), trained and scored."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vgg_keras.commands.shared import (
    Scales,
    bad_image_option,
    data_dir_option,
    data_option,
    devices_option,
    errors_for_people,
    json_option,
)
from vgg_keras.commands.training import given_cluster, given_recipe, training_options
from vgg_keras.metadata import members
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import LOCALISATION_RECIPES

PROTOCOLS = ("centre-gt", "dense")


@click.group()
def localise() -> None:
    """Localisation, Appendix A: a box for each of the five most probable classes."""


@localise.command()
@training_options(LOCALISATION_RECIPES)
@click.pass_obj
def train(
    verbose,
    recipe_name,
    out,
    data_dir,
    devices,
    processes,
    process_id,
    coordinator,
    tensorboard,
    **fields,
) -> None:
    """Train a net to regress boxes, from a classification run (--init-from)."""
    with errors_for_people(verbose):
        recipe = given_recipe(LOCALISATION_RECIPES[recipe_name], fields)
        with quiet_tensorflow(verbose):
            from vgg_keras.localisation.training import train_localisation
        path = train_localisation(
            recipe,
            out,
            data_dir=data_dir,
            devices=devices,
            cluster=given_cluster(processes, process_id, coordinator),
            tensorboard=tensorboard,
        )
        click.echo(f"{path}: done", err=True)


@localise.command()
@click.option(
    "--run",
    "run_folders",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Localisation run; boxes of several are merged together (Table 9).",
)
@click.option(
    "--classifier",
    "classifiers",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Classification run; several are fused. Needed for dense.",
)
@data_option
@data_dir_option
@click.option("--split", default="val", show_default=True, help="Split to score.")
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="dense",
    show_default=True,
    help="dense, the full one; or central crop and true class.",
)
@click.option(
    "--test-scales",
    type=Scales(),
    multiple=True,
    help="Q, between commas; once, or once for each --run [each run's S].",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="Take the five classes from this file of evaluate or fuse.",
)
@click.option(
    "--merge-threshold", type=click.FloatRange(0), help="Match above which boxes stay apart [0.8]."
)
@click.option(
    "--flip/--no-flip", default=True, show_default=True, help="Mirror images too, in dense."
)
@click.option(
    "--boxes", type=click.Path(path_type=Path), help="CSV file with the true boxes [the run's]."
)
@click.option("--precision", help="Dtype policy [the run's].")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Crops through a net at once; whole images up to as many pixels.",
)
@click.option(
    "--cache-dir", help="Folder for what is done, '' for none [localisation in the run's]."
)
@click.option("--out", type=click.Path(path_type=Path), help="Keep answers and boxes, .json.")
@devices_option
@bad_image_option
@json_option
@click.pass_obj
def evaluate(
    verbose,
    run_folders,
    classifiers,
    data,
    data_dir,
    devices,
    protocol,
    test_scales,
    predictions,
    merge_threshold,
    flip,
    precision,
    cache_dir,
    out,
    as_json,
    **options,
) -> None:
    """Score localisation runs: errors in percent by the ILSVRC rule."""
    with errors_for_people(verbose):
        _check(protocol, run_folders, classifiers, test_scales, predictions)
        with quiet_tensorflow(verbose):
            from vgg_keras.distribution import make_strategy
            from vgg_keras.evaluation.predictions import Predictions
            from vgg_keras.localisation.evaluate import centre_of_true_class
            from vgg_keras.localisation.evaluate import localise as run_localisation
            from vgg_keras.pipelines.sources import open_source
            from vgg_keras.runs import load_run
        strategy = make_strategy(devices)  # first: TFDS may start TensorFlow, which fixes them
        source = open_source(data, data_dir)
        with strategy.scope():
            runs = [load_run(path, precision=precision) for path in run_folders]
            raters = [load_run(path, precision=precision) for path in classifiers]
        if protocol == "centre-gt":
            scale = test_scales[0][0] if test_scales else None
            found = centre_of_true_class(runs[0], source, test_scale=scale, **options)
        else:
            if merge_threshold is not None:
                options["threshold"] = merge_threshold
            found = run_localisation(
                runs,
                source,
                classifiers=raters,
                test_scales=test_scales[0] if len(test_scales) == 1 else test_scales or None,
                flip=flip,
                predictions=Predictions.load(predictions) if predictions else None,
                cache_dir=run_folders[0] / "localisation"
                if cache_dir is None
                else cache_dir or None,
                **options,
            )
        if out:
            found.save(out)
        result = found.result()
        click.echo(json.dumps(result) if as_json else _line(result))


def _check(protocol, run_folders, classifiers, test_scales, predictions) -> None:
    if protocol == "dense" and not classifiers:
        raise ValueError("The dense protocol needs --classifier, a classification run, or more.")
    if protocol == "centre-gt" and (len(run_folders) > 1 or classifiers or predictions):
        raise ValueError("centre-gt is of one --run, and takes no --classifier or --predictions.")
    if protocol == "centre-gt" and sum(map(len, test_scales)) > 1:
        raise ValueError("centre-gt is of one scale.")


def _line(result: dict) -> str:
    """A result for people."""
    nets = members(result)
    who = " + ".join(
        f"net {m['net']}, {m['regression']}, Q = {','.join(map(str, m['test_scales']))}"
        for m in nets
    )
    errors = {k: v for k, v in result.items() if k.endswith("_error")}
    figures = ", ".join(f"{k.replace('_', ' ')} {v:.2f} %" for k, v in errors.items())
    return f"{who}, {result['protocol']}: {figures} of {result['images']} images"


@localise.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo-localise"), show_default=True
)
@data_dir_option
@click.pass_obj
def demo(verbose, out, data_dir) -> None:
    """Train on drawn shapes to name them and to say where they are, and show photos with boxes."""
    with errors_for_people(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.demos.localisation import run_demo
        run_demo(out, data_dir)
