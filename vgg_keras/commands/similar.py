"""`similar`: the nearest images by very deep features (§B)."""

from __future__ import annotations

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.images import check_images
from vgg_keras.commands.options import (
    ANY_PATH,
    FILE,
    data_dir_option,
    json_option,
)
from vgg_keras.commands.results import print_json, provenance, timed
from vgg_keras.commands.terminal import echo
from vgg_keras.quiet import quiet_tensorflow


@command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--features",
    "file",
    required=True,
    type=FILE,
    help="File that `features --out` saved, in which similar images are searched.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Number of similar images to print for an image.",
)
@click.option(
    "--moved-to",
    multiple=True,
    type=ANY_PATH,
    help="New path of the run or weights file, if it was moved; given once for each net.",
)
@click.option(
    "--sheet",
    type=FILE,
    help="Draw each IMAGE and its similar images in this .png or .jpg file.",
)
@click.option("--data", help="With --sheet: the data at their new path, if they were moved.")
@data_dir_option
@json_option
@click.pass_obj
def similar(verbose, images, file, top, moved_to, sheet, data, data_dir, as_json) -> None:
    """Find the images whose features are the most similar to those of IMAGE."""
    with one_line_errors(verbose):
        check_images(images)
        with quiet_tensorflow(verbose):
            from vgg_keras.features.similar import draw_sheet, nearest, query_descriptors
            from vgg_keras.features.table import Features
        found = Features.load(file)
        with timed() as timer:
            close = nearest(query_descriptors(found, images, moved_to=moved_to), found, top)
        if sheet:
            from vgg_keras.pipelines.sources import open_source

            source = open_source(data or found.metadata["data"], data_dir, several_labels=True)
            draw_sheet(images, found, close, source, sheet)
        results = _similar(images, found, close)
        if as_json:
            shared = {"features": str(file), "images": len(images)}
            print_json(results, **shared, **provenance(timer, len(images)))
            return
        for result in results:
            echo(result["image"])
            for one in result["similar"]:
                echo(f"  {one['similarity']:.3f}  {one['image']}  {', '.join(one['labels'])}")


def _similar(images, found, close) -> list[dict]:
    """The images that are similar to each image."""
    return [
        {
            "image": image,
            "similar": [
                {
                    "image": found.names[row],
                    "split": found.splits[row],
                    "labels": found.labels_of(row),
                    "similarity": float(cosine),
                }
                for row, cosine in zip(rows, cosines, strict=True)
            ],
        }
        for image, rows, cosines in zip(images, *close, strict=True)
    ]
