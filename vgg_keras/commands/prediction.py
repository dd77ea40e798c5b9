"""`predict`: what a net says of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vgg_keras.commands.shared import (
    bad_image_option,
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
from vgg_keras.ilsvrc import label, readable
from vgg_keras.quiet import quiet_tensorflow


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help="Run folder.")
@weights_options
@testing_options
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to name."
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the images with the first class's score maps.",
)
@bad_image_option
@json_option
@click.pass_obj
def predict(
    verbose, images, run_folder, precision, pool_rounding, top, pictures, as_json, **options
) -> None:
    """Name the most probable classes of images: JPEG, PNG, GIF or BMP files."""
    with errors_for_people(verbose):
        given = take_weights_options(options)
        check_one_kind(bool(run_folder), given, "once")
        with quiet_tensorflow(verbose):
            from vgg_keras.evaluation.predict import predict as run_prediction
            from vgg_keras.pipelines.sources.own import as_split
            from vgg_keras.runs import load_run
        as_split(images)  # refuses at once what is no file
        model_options = {"precision": precision, "pool_rounding": pool_rounding}
        if run_folder:
            run = load_run(run_folder, **model_options)
        else:
            run = run_of_weights(given, model_options)
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
        predicted = run_prediction(run, images, **options)
        _show(predicted, top, as_json)
        if pictures:
            from vgg_keras.report.maps import draw_predicted

            draw_predicted(run, predicted, pictures)


def _show(predicted, top: int, as_json: bool) -> None:
    """Prints the most probable classes of each picture."""
    images = [
        {
            "image": name,
            "top": [
                {
                    "class": predicted.class_names[k],
                    "name": readable(predicted.class_names[k]),
                    "posterior": float(posterior),
                }
                for k, posterior in zip(classes, posteriors, strict=True)
            ],
        }
        for name, classes, posteriors in zip(predicted.names, *predicted.top(top), strict=True)
    ]
    if as_json:
        click.echo(json.dumps(predicted.metadata | {"images": images}))
        return
    for image in images:
        click.echo(image["image"])
        for found in image["top"]:
            click.echo(f"{100 * found['posterior']:6.1f} %  {label(found['class'])}")
