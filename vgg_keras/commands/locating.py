"""`localise predict`: boxes for images without labels."""

from __future__ import annotations

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.images import check_images
from vgg_keras.commands.nets import nets_in_folders
from vgg_keras.commands.options import (
    FILE,
    FOLDER,
    SCALES,
    add_options,
    batch_size_option,
    json_option,
)
from vgg_keras.commands.results import print_json, provenance, timed
from vgg_keras.commands.terminal import echo
from vgg_keras.ilsvrc import label, readable
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.pipelines.files import check_writable
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import PRECISIONS

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


@command("predict")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@add_options(NETS)
@click.option(
    "--test-scales",
    type=SCALES,
    multiple=True,
    metavar="Q,...",
    help="Test scales Q, once for all nets or once for each --run [S of each net].",
)
@click.option("--flip/--no-flip", default=True, help="Use mirror images too [yes].")
@click.option(
    "--picture", type=FILE, help="Draw each IMAGE with the box of its best class in this .png file."
)
@batch_size_option()
@json_option
@click.pass_obj
def predict_boxes(
    verbose, runs, classifiers, precision, images, test_scales, flip, picture, batch_size, as_json
) -> None:
    """Print the most probable classes of images, each with a box.

    A box is x_min, y_min, x_max, y_max as fractions of the width and height of the image.
    """
    with one_line_errors(verbose):
        check_images(images)
        if not classifiers:
            raise ArgumentError("Boxes need --classifier, a classification run or more.")
        if picture:
            check_writable(picture)
        arguments = {"precision": precision}
        chosen = nets_in_folders(runs, "run", arguments)
        chosen_classifiers = nets_in_folders(classifiers, "classifier", arguments)
        with quiet_tensorflow(verbose):
            from vgg_keras.localisation.predict import predict_boxes as run_prediction
        nets, loaded = ([one.load() for one in some] for some in (chosen, chosen_classifiers))
        with timed() as timer:
            found = run_prediction(
                nets,
                list(images),
                classifiers=loaded,
                test_scales=test_scales[0] if len(test_scales) == 1 else test_scales or None,
                flip=flip,
                batch_size=batch_size,
            )
        if picture:
            _draw(found, images, picture)
        answers = zip(images, found.answers(), strict=True)
        if as_json:
            results = [
                {"image": i, "top": [a | {"name": readable(a["class"])} for a in of_image]}
                for i, of_image in answers
            ]
            shared = found.metadata | {"images": len(images)} | provenance(timer, len(images))
            print_json(results, **shared)
            return
        for image, of_image in answers:
            echo(image)
            for one in of_image:
                box = " ".join(f"{edge:.3f}" for edge in one["box"])
                echo(f"{100 * one['posterior']:6.1f} %  {box}  {label(one['class'])}")


def _draw(found, images, picture) -> None:
    import tensorflow as tf

    from vgg_keras.pipelines.images import decode
    from vgg_keras.report.figures import save_figure
    from vgg_keras.report.located import located_figure

    pixels = [decode(tf.io.read_file(image)).numpy() for image in images]
    save_figure(located_figure(found, pixels), picture)
    echo(f"drawn: {picture}", err=True)
