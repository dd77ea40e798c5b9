"""`localise predict`: boxes for images without labels."""

from __future__ import annotations

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.images import check_images_or_data, is_folder
from vgg_keras.commands.nets import nets_in_folders
from vgg_keras.commands.options import (
    FILE,
    FOLDER,
    SCALES,
    add_options,
    batch_size_option,
    data_dir_option,
    json_option,
    submission_option,
)
from vgg_keras.commands.results import print_json, provenance, timed
from vgg_keras.commands.terminal import echo
from vgg_keras.ilsvrc import label, readable
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.pipelines.files import check_writable
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import PRECISIONS
from vgg_keras.run_files import LOCALISATION_CACHE

NETS = (
    click.option(
        "--run",
        "runs",
        multiple=True,
        required=True,
        type=FOLDER,
        help="Folder of a localisation run or saved net; the boxes of several nets are merged "
        "(Table 9).",
    ),
    click.option(
        "--classifier",
        "classifiers",
        multiple=True,
        type=FOLDER,
        help="Folder of a classification run or saved net. The protocol dense needs at least one; "
        "several nets are fused.",
    ),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), help="Keras dtype policy [that of the net]."
    ),
)
DENSE = (
    click.option(
        "--test-scales",
        type=SCALES,
        multiple=True,
        metavar="Q,...",
        help="Test scales Q, once for all nets or once for each --run [S of each net].",
    ),
    click.option(
        "--predictions",
        type=FILE,
        help="Take the five classes from this file, which `evaluate --out` or `fuse --out` saved.",
    ),
    click.option(
        "--merge-threshold",
        type=click.FloatRange(0),
        help="Largest distance at which two boxes are merged; 0 merges only identical boxes [0.8].",
    ),
    click.option("--flip/--no-flip", default=True, help="Use mirror images too [yes]."),
)


def dense_arguments(test_scales, predictions, merge_threshold) -> dict:
    """The arguments of the protocol dense from those options of `DENSE` that have another form."""
    from vgg_keras.evaluation.predictions import Predictions

    arguments = {
        "test_scales": test_scales[0] if len(test_scales) == 1 else test_scales or None,
        "predictions": Predictions.load(predictions) if predictions else None,
    }
    if merge_threshold is not None:
        arguments["threshold"] = merge_threshold
    return arguments


@command("predict")
@click.argument("images", nargs=-1, metavar="[IMAGE...|FOLDER]")
@add_options(NETS)
@click.option("--data", help="Data in place of files, as of `evaluate`; labels are not used.")
@data_dir_option
@click.option("--split", default="val", show_default=True, help="With --data: name of the split.")
@add_options(DENSE)
@click.option(
    "--picture",
    type=FILE,
    help="Draw each IMAGE with the box of its best class in this .png or .jpg file.",
)
@click.option(
    "--cache-dir",
    help="Folder in which boxes are cached, so that the same command can continue; '' for no cache "
    "[RUN/localisation with --submission, otherwise none].",
)
@submission_option
@batch_size_option()
@json_option
@click.pass_obj
def predict_boxes(
    verbose,
    runs,
    classifiers,
    precision,
    images,
    data,
    data_dir,
    split,
    test_scales,
    predictions,
    merge_threshold,
    picture,
    cache_dir,
    submission,
    as_json,
    **options,
) -> None:
    """Print the most probable classes of images, each with a box.

    A box is x_min, y_min, x_max, y_max as fractions of the width and height of the image. With
    --submission nothing is printed.
    """
    with one_line_errors(verbose):
        check_images_or_data(images, data)
        if not classifiers:
            raise ArgumentError("Boxes need --classifier, a classification run or more.")
        for file in filter(None, (picture, submission)):
            check_writable(file)
        chosen = nets_in_folders(runs, "run", {"precision": precision})
        others = nets_in_folders(classifiers, "classifier", {"precision": precision})
        with quiet_tensorflow(verbose):
            from vgg_keras.evaluation.submissions import submission_ids
            from vgg_keras.localisation.predict import predict_boxes as run_prediction
            from vgg_keras.pipelines.sources import open_source
        if submission:
            submission_ids(chosen[0].facts().class_names)
            cache_dir = runs[0] / LOCALISATION_CACHE if cache_dir is None else cache_dir
        images = open_source(data, data_dir)[split] if data else _as_split(images)
        nets, loaded = ([one.load() for one in some] for some in (chosen, others))
        with timed() as timer:
            found = run_prediction(
                nets,
                images,
                classifiers=loaded,
                **dense_arguments(test_scales, predictions, merge_threshold),
                cache_dir=cache_dir or None,
                **options,
            )
        if submission:
            found.save_submission(submission, images)
        if picture:
            _draw(found, images, picture)
        if as_json:
            shared = found.metadata | {"images": len(images)} | provenance(timer, len(images))
            print_json(_results(found), **shared)
        elif not submission:
            _show(found)


def _as_split(images):
    from vgg_keras.pipelines.sources.own import as_split

    return as_split(images[0] if is_folder(images) else images)


def _results(found) -> list[dict]:
    """The answers for each image, for JSON."""
    return [
        {"image": image, "top": [a | {"name": readable(a["class"])} for a in of_image]}
        for image, of_image in zip(found.images, found.answers(), strict=True)
    ]


def _show(found) -> None:
    """Prints the answers for each image."""
    for image, of_image in zip(found.images, found.answers(), strict=True):
        echo(image)
        for one in of_image:
            box = " ".join(f"{edge:.3f}" for edge in one["box"])
            echo(f"{100 * one['posterior']:6.1f} %  {box}  {label(one['class'])}")


def _draw(found, images, picture) -> None:
    from vgg_keras.pipelines.evaluation import read_images
    from vgg_keras.report.figures import save_figure
    from vgg_keras.report.located import located_figure

    pixels = read_images(images)
    save_figure(located_figure(found, [pixels[i] for i in range(len(images))]), picture)
    echo(f"drawn: {picture}", err=True)
