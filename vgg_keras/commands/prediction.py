"""`predict`."""

from __future__ import annotations

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.evaluation import save_predictions, with_provenance
from vgg_keras.commands.images import check_images_or_data, is_folder
from vgg_keras.commands.nets import chosen_nets, classes_option, net_options
from vgg_keras.commands.options import (
    FOLDER,
    TESTING,
    add_options,
    bad_image_option,
    check_files_to_write,
    data_dir_option,
    json_option,
    predictions_option,
    submission_option,
)
from vgg_keras.commands.results import print_json, timed
from vgg_keras.commands.terminal import echo
from vgg_keras.ilsvrc import label, readable
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.quiet import quiet_tensorflow


@command()
@click.argument("images", nargs=-1, metavar="[IMAGE...|FOLDER]")
@net_options()
@classes_option
@click.option("--data", help="Data in place of files, as of `evaluate`; labels are not used.")
@data_dir_option
@click.option("--split", default="val", show_default=True, help="With --data: name of the split.")
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
@click.option(
    "--pictures",
    type=FOLDER,
    help="Draw each image with its most probable class, and a map of the probability of this class "
    "over the image, into this folder.",
)
@click.option(
    "--grad-cam", is_flag=True, help="With --pictures: draw Grad-CAM instead of the probability."
)
@click.option(
    "--cache-dir",
    help="Folder in which posteriors are cached, so that the same command can continue; '' for no "
    "cache [with --out or --submission as of `evaluate`, otherwise none].",
)
@predictions_option
@submission_option
@bad_image_option
@json_option
@click.pass_obj
def predict(
    verbose,
    images,
    data,
    data_dir,
    split,
    top,
    score_maps,
    pictures,
    grad_cam,
    cache_dir,
    out,
    submission,
    as_json,
    **options,
) -> None:
    """Print the most probable classes of images (JPEG, PNG, GIF or BMP files).

    All files in a FOLDER are taken. With --out or --submission the classes are saved in a file and
    not printed.
    """
    with one_line_errors(verbose):
        (chosen,) = chosen_nets(options)
        check_files_to_write(out, submission)
        if grad_cam and not pictures:
            raise ArgumentError("--grad-cam goes with --pictures.")
        check_images_or_data(images, data, refuse_text=options["on_bad_image"] == "stop")
        with quiet_tensorflow(verbose):
            from vgg_keras.evaluation.predict import predict as run_prediction
            from vgg_keras.evaluation.submissions import submission_ids
            from vgg_keras.pipelines.sources import open_source
        if data:
            images = open_source(data, data_dir)[split]
        elif is_folder(images):
            (images,) = images
        net = chosen.load()
        if submission:
            submission_ids(net.class_names)
        for folder in filter(None, (score_maps, pictures)):
            folder.mkdir(parents=True, exist_ok=True)
        is_saved = bool(out or submission)
        if cache_dir is None and is_saved:
            cache_dir = chosen.cache_dir
        with timed() as timer:
            predicted = run_prediction(net, images, cache_dir=cache_dir or None, **options)
        if as_json or is_saved:
            predicted = with_provenance(predicted, timer, len(predicted))
        save_predictions(predicted, out, submission)
        if score_maps:
            from vgg_keras.report.maps import draw_predicted

            draw_predicted(net, predicted, score_maps)
        if pictures:
            from vgg_keras.report.answers import draw_answers

            draw_answers(net, predicted, pictures, with_grad_cam=grad_cam)
        if as_json or not is_saved:
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
        print_json(images, **predicted.metadata, images=len(images))
        return
    for image in images:
        echo(image["image"])
        for found in image["top"]:
            echo(f"{100 * found['posterior']:6.1f} %  {label(found['class'])}")
