"""`features` and `transfer`: very deep features for other data (§B)."""

from __future__ import annotations

import json

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.images import check_images_or_data, is_folder
from vgg_keras.commands.nets import chosen_nets, net_options
from vgg_keras.commands.options import (
    FILE,
    FOLDER,
    SCALES,
    Several,
    add_options,
    bad_image_option,
    batch_size_option,
    data_dir_option,
    data_options,
    devices_option,
    json_option,
)
from vgg_keras.commands.results import print_json, provenance, timed
from vgg_keras.commands.terminal import echo
from vgg_keras.features.procedure import AGGREGATES, REGIONS
from vgg_keras.features.protocols import (
    C_GRID,
    CUSTOM,
    MEAN_AP,
    MEAN_CLASS_RECALL,
    TRANSFER_PROTOCOLS,
)
from vgg_keras.metadata import RECOGNISED_KEY
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import PRECISIONS

_PROCEDURE = (
    click.option(
        "--layer",
        default="fc2",
        show_default=True,
        help="Layer whose activations are the features, for example block3_pool.",
    ),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), help="Keras dtype policy [that of the net]."
    ),
    click.option(
        "--test-scales",
        type=SCALES,
        metavar="Q,...",
        help="Test scales Q [256,384,512 in proportion to the crop size].",
    ),
    click.option(
        "--aggregate",
        type=click.Choice(AGGREGATES),
        default="mean",
        show_default=True,
        help="How the features of several test scales are combined.",
    ),
    click.option(
        "--flip/--no-flip",
        default=True,
        help="Average the features with those of the mirror image [yes].",
    ),
    click.option(
        "--region",
        type=click.Choice(REGIONS),
        default="image",
        show_default=True,
        help="What to describe: whole images, the box in each image, or both stacked (Table 12).",
    ),
    click.option(
        "--boxes",
        "boxes_file",
        type=FILE,
        help="CSV file with the boxes of data of the kind folder:DIR [DIR/boxes.csv].",
    ),
    batch_size_option(
        "A batch of whole images has at most as many pixels as this number of crops."
    ),
)


@command()
@click.argument("images", nargs=-1, metavar="[IMAGE...|FOLDER]")
@net_options(several="the features of several nets are stacked", without=("head", "train_scale"))
@data_options(required=False)
@data_dir_option
@click.option(
    "--splits",
    "--split",  # its only name before
    "splits",
    type=Several(click.STRING),
    metavar="SPLIT,...",
    help="Splits to use [all splits].",
)
@add_options(_PROCEDURE)
@click.option(
    "--cache-dir",
    help="Folder in which descriptors are cached, so that an interrupted extraction can continue; "
    "'' for no cache [FILE.parts beside --out].",
)
@click.option(
    "--out", required=True, type=FILE, help="Save the features in this .parquet or .npy file."
)
@devices_option
@bad_image_option
@json_option
@click.pass_obj
def features(
    verbose, images, data, data_dir, splits, layer, cache_dir, out, devices, as_json, **options
) -> None:
    """Extract features of images: activations of a net at several scales (§B).

    The images are those of --data, whose labels are saved too, or files or all files in a FOLDER,
    without labels.
    """
    with one_line_errors(verbose):
        from vgg_keras.features.table import check_format

        check_format(out)
        check_images_or_data(images, data, refuse_text=options["on_bad_image"] == "stop")
        chosen = chosen_nets(options)
        with quiet_tensorflow(verbose):
            from vgg_keras.distribution import find_devices
            from vgg_keras.features.descriptors import extract_features
            from vgg_keras.features.extractor import FeatureExtractor
            from vgg_keras.pipelines.sources import open_source
        used = find_devices(devices)  # first: TFDS may start TensorFlow, which fixes them
        if data:
            images = open_source(data, data_dir, several_labels=True)
        elif is_folder(images):
            (images,) = images
        with used.scope():
            nets = [FeatureExtractor.load(one.where, layer, **one.arguments) for one in chosen]
        folder = out.with_name(f"{out.name}.parts") if cache_dir is None else cache_dir or None
        with timed() as timer:
            found = extract_features(nets, images, splits, cache_dir=folder, **options)
        found.save(out)
        dimensions = found.values.shape[1]
        if as_json:
            result = {"file": str(out), "images": len(found), "dimensions": dimensions}
            print_json([result | found.metadata | provenance(timer, len(found))])
        else:
            echo(f"{out}: {len(found)} images, {dimensions} features each")


@command()
@click.option(
    "--features",
    "files",
    multiple=True,
    required=True,
    type=FILE,
    help="File that `features --out` saved; the features of several files are stacked.",
)
@click.option(
    "--protocol",
    required=True,
    type=click.Choice((*TRANSFER_PROTOCOLS, CUSTOM)),
    help="Protocol of the data set: splits and measure. custom works with any data.",
)
@click.option(
    "--train-per-class",
    type=click.IntRange(1),
    help="Number of training images of each class in random splits [30, or 60 for caltech256].",
)
@click.option(
    "--test-per-class",
    type=click.IntRange(1),
    help="Largest number of test images of each class in random splits [50 for caltech101, "
    "otherwise all others].",
)
@click.option("--num-splits", "splits", type=click.IntRange(1), help="Number of random splits [3].")
@click.option(
    "--c-grid",
    "grid",
    type=Several(click.FLOAT),
    default=C_GRID,
    metavar="C,...",
    help=f"Regularisation constants C to choose from [{','.join(f'{c:g}' for c in C_GRID)}].",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random splits.")
@click.option(
    "--submission",
    type=FOLDER,
    help="Save the scores of VOC's test images in this folder, as VOC's evaluation server takes "
    "them, and measure nothing.",
)
@click.option(
    "--test",
    "test_files",
    multiple=True,
    type=FILE,
    help="With --submission: file of the features of the test images, given once for each "
    "--features [the split test of --features].",
)
@click.option(
    "--image-set",
    type=FILE,
    help="With --submission: list of the test images, such as ImageSets/Main/test.txt [all test "
    "images].",
)
@click.option("--out", type=FILE, help="Save the result in this .json file.")
@json_option
@click.pass_obj
def transfer(verbose, files, submission, test_files, image_set, out, as_json, **options) -> None:
    """Score features with linear SVMs (§B): mean AP for VOC, mean class recall for Caltech."""
    with one_line_errors(verbose):
        from vgg_keras.features.svm import transfer as run_transfer
        from vgg_keras.features.table import Features, stacked

        if not submission and (test_files or image_set):
            raise ArgumentError("--test and --image-set go with --submission.")
        with timed() as timer:
            found = stacked([Features.load(file) for file in files])
            if submission:
                test = stacked([Features.load(f) for f in test_files]) if test_files else None
                result = _submit(submission, found, test, image_set, **options)
            else:
                result = run_transfer(found, **options)
        result |= {"files": [str(file) for file in files], **provenance(timer)}
        if test_files:
            result["test_files"] = [str(file) for file in test_files]
        if out:
            from vgg_keras.pipelines.files import atomic_write

            atomic_write(out, json.dumps(result) + "\n")
        result.pop(RECOGNISED_KEY, None)  # of every image: for the file
        if as_json:
            print_json([result])
        else:
            echo(_line(result))


def _submit(folder, features, test, image_set, *, protocol, grid, seed, **random_splits) -> dict:
    """The result of a submission."""
    from vgg_keras.features.submissions import save_submission

    for name, value in random_splits.items():
        if value is not None:
            raise ArgumentError(f"{name} must not be given with --submission.", name)
    return save_submission(
        folder, features, protocol, test, image_set=image_set, grid=grid, seed=seed
    )


def _line(result: dict) -> str:
    """A result as a line of text."""
    if "submission" in result:
        return (
            f"{result['submission']}: {result['protocol']}, scores of {result['images']} images, "
            f"trained on {result['train_images']}, C = {result['C'][0]:g}"
        )
    measure = next(key for key in (MEAN_AP, MEAN_CLASS_RECALL) if key in result)
    spread = "" if result["spread"] is None else f" ± {result['spread']:.1f}"
    splits = len(result["of_splits"])
    return (
        f"{result['protocol']}: {measure.replace('_', ' ')} {result[measure]:.1f}{spread} % of "
        f"{result['images']} images{f', {splits} splits' if splits > 1 else ''}, trained on "
        f"{result['train_images']}, C = {', '.join(f'{c:g}' for c in result['C'])}"
    )
