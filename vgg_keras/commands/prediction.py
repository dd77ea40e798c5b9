"""`predict`."""

from __future__ import annotations

import json

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.nets import chosen_nets, classes_option, net_options
from vgg_keras.commands.options import (
    FOLDER,
    TESTING,
    add_options,
    bad_image_option,
    check_images,
    json_option,
)
from vgg_keras.commands.terminal import echo
from vgg_keras.ilsvrc import label, readable
from vgg_keras.quiet import quiet_tensorflow


@command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@net_options()
@classes_option
@add_options(TESTING)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Number of classes to print for an image.",
)
@click.option(
    "--score-maps",
    type=FOLDER,
    help="Draw each image with the score map of its most probable class, into this folder.",
)
@bad_image_option
@json_option
@click.pass_obj
def predict(verbose, images, top, score_maps, as_json, **options) -> None:
    """Print the most probable classes of images (JPEG, PNG, GIF or BMP files)."""
    with one_line_errors(verbose):
        (chosen,) = chosen_nets(options)
        check_images(images, refuse_text=options["on_bad_image"] == "stop")
        with quiet_tensorflow(verbose):
            from vgg_keras.evaluation.predict import predict as run_prediction
        net = chosen.load()
        if score_maps:
            score_maps.mkdir(parents=True, exist_ok=True)
        predicted = run_prediction(net, images, **options)
        if score_maps:
            from vgg_keras.report.maps import draw_predicted

            draw_predicted(net, predicted, score_maps)
        _show(predicted, top, as_json)


def _show(predicted, top: int, as_json: bool) -> None:
    """Prints the most probable classes of each image."""
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
        echo(json.dumps(predicted.metadata | {"images": images}))
        return
    for image in images:
        echo(image["image"])
        for found in image["top"]:
            echo(f"{100 * found['posterior']:6.1f} %  {label(found['class'])}")
