"""`export`, `verify` and `request`: a net as a SavedModel or other format, and on a server."""

from __future__ import annotations

from dataclasses import asdict
from itertools import cycle
from pathlib import Path

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.images import check_images
from vgg_keras.commands.nets import (
    ChosenNet,
    chosen_nets,
    classes_option,
    net_options,
    nets_in_folders,
)
from vgg_keras.commands.options import (
    FOLDER,
    PROCEDURE,
    SCALES,
    add_options,
    json_option,
)
from vgg_keras.commands.results import print_json, provenance, timed, without_password
from vgg_keras.commands.terminal import echo, print_table
from vgg_keras.ilsvrc import class_of_label, readable
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import EXPORT_FORMATS, SERVING_PRECISIONS
from vgg_keras.text import printable

_URL = "http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME, with or without /versions/N"
_EXPORT = (
    click.option(
        "--out",
        required=True,
        type=FOLDER,
        help="Folder that a server watches; its name is the name of the model.",
    ),
    click.option(
        "--format",
        type=click.Choice(EXPORT_FORMATS),
        default="saved_model",
        show_default=True,
        help="onnx (needs tf2onnx) and litert write the signatures images and crops as files.",
    ),
    click.option(
        "--version", type=click.IntRange(1), help="Number of the version [the next one in --out]."
    ),
    click.option(
        "--top",
        type=click.IntRange(1),
        default=5,
        show_default=True,
        help="Number of classes in the answer for an image.",
    ),
    click.option(
        "--precision",
        type=click.Choice(SERVING_PRECISIONS),
        default="float32",
        show_default=True,
        help="Dtype of the variables and of the computation; bfloat16 halves the size.",
    ),
    *PROCEDURE,
    click.option(
        "--max-pixels",
        type=click.IntRange(1),
        help="Largest number of pixels of an image; larger images are refused and not decoded [64 "
        "million].",
    ),
    click.option(
        "--max-aspect",
        type=click.FloatRange(1),
        help="Largest ratio of the longer to the shorter side of an image [8].",
    ),
    click.option(
        "--localiser",
        "localisers",
        multiple=True,
        type=FOLDER,
        help="Folder of a localisation run or saved net, for the signature localise; the boxes of "
        "several are merged.",
    ),
    click.option(
        "--localiser-scales",
        type=SCALES,
        multiple=True,
        metavar="Q,...",
        help="Test scales Q of the localisation nets, once for all nets or once for each "
        "--localiser [S of each net].",
    ),
)


@command()
@net_options()
@classes_option
@add_options(_EXPORT)
@json_option
@click.pass_obj
def export(
    verbose, out, version, max_pixels, max_aspect, localisers, localiser_scales, as_json, **options
) -> None:
    """Write a net for TensorFlow Serving, ONNX Runtime or LiteRT, in the folder OUT/VERSION."""
    with one_line_errors(verbose):
        precision = options.pop("precision")
        (chosen,) = chosen_nets(options)
        with quiet_tensorflow(verbose):
            from vgg_keras.saved_models.export import check_version
            from vgg_keras.saved_models.images import Limits
            from vgg_keras.serving import export as run_export
        check_version(out, version)
        given_limits = {"pixels": max_pixels, "aspect": max_aspect}
        given_limits = {k: v for k, v in given_limits.items() if v is not None}
        limits = Limits(**given_limits) if given_limits else None
        net = chosen.load(precision="float32")
        found = _localisers(localisers, localiser_scales, net)
        with quiet_tensorflow(verbose):
            path = run_export(
                net,
                out,
                version=version,
                precision=precision,
                limits=limits,
                localisers=found,
                **options,
            )
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if as_json:
            print_json([{"path": str(path), "bytes": size}], **provenance())
        else:
            echo(f"wrote {path}, {size / 2**20:,.1f} MiB")


def _localisers(folders, scales, classifier):
    """The localisation nets of an export, or None.

    Raises:
        ArgumentError: they do not fit the classification net. It names the arguments of `export`.
    """
    if not folders:
        return None
    from vgg_keras.serving import Localisers

    pool_rounding = classifier.architecture.pool_rounding
    arguments = {"precision": "float32", "pool_rounding": pool_rounding}
    nets = [one.load() for one in nets_in_folders(folders, "localiser", arguments)]
    localisers = Localisers(nets, scales[0] if len(scales) == 1 else scales or None)
    try:
        localisers.check(classifier)
    except ArgumentError as error:
        names: dict[str | None, str | None]
        names = {"test_scales": "localiser_scales", "nets": "localisers"}
        text = str(error).replace("test_scales", "localiser_scales")
        raise ArgumentError(text, names.get(error.argument, error.argument)) from error
    return localisers


@command()
@click.argument("path", type=FOLDER)
@click.argument("photos", nargs=-1, metavar="[PHOTO]...")
@net_options(without=("pool_rounding",))
@click.option("--url", help=f"Send the requests to a server that serves the export: {_URL}.")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Number of timed requests to each signature.",
)
@json_option
@click.pass_obj
def verify(verbose, path, photos, url, repeats, as_json, **options) -> None:
    """Compare every signature of an export with its net; exit code 1 if one differs by too much.

    PATH is the folder of a version, such as exports/vgg16/1. The requests go to a fresh process
    that loads the export, or with --url to a server. PHOTO is a JPEG or PNG file [one that comes
    with Matplotlib]. By default the export is compared with the net that it was made of, loaded
    from the same path as then.
    """
    with one_line_errors(verbose):
        check_images(photos, refuse_text=False)  # the export says what it refuses
        chosen = chosen_nets(options, required=False)
        with quiet_tensorflow(verbose):
            from vgg_keras.serving import verify as run_verification
            from vgg_keras.serving.source import read_export
        net = _net_of_export(chosen[0], read_export(path)) if chosen else None
        checks, load_seconds = run_verification(path, net, photos, url=url, repeats=repeats)
        if as_json:
            found = [asdict(check) | {"passed": check.passed} for check in checks]
            print_json(found, load_seconds=load_seconds, **provenance())
        else:
            _show(checks, load_seconds)
        if not all(check.passed for check in checks):
            raise click.exceptions.Exit(1)


def _net_of_export(chosen: ChosenNet, metadata):
    """The net that an export is compared with."""
    changes = {"precision": "float32", "pool_rounding": metadata["pool_rounding"]}
    return chosen.load(metadata["class_names"], **changes)


@command()
@click.option("--url", required=True, help=f"URL of the model: {_URL}.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Number of images in a request.",
)
@click.option(
    "--signature",
    type=click.Choice(("serving_default", "localise")),
    default="serving_default",
    show_default=True,
    help="localise: classes with boxes, if the export has --localiser.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds to wait for an answer.",
)
@json_option
@click.pass_obj
def request(verbose, url, images, batch_size, signature, timeout, as_json) -> None:
    """Classify JPEG or PNG images on a server of TensorFlow Serving."""
    with one_line_errors(verbose):
        check_images(images, refuse_text=False)  # the server says what it refuses
        from vgg_keras.saved_models.client import classify, connect

        with quiet_tensorflow(verbose):
            server = connect(url, timeout)
        files = (Path(image).read_bytes() for image in images)
        answers = []
        with timed() as timer:
            given = classify(server, files, batch_size, signature)
            for image, answer in zip(images, given, strict=True):
                answers.append(answer)
                if not as_json:
                    _show_answer(image, answer)
        if as_json:
            results = [_as_result(image, a) for image, a in zip(images, answers, strict=True)]
            shared = {"url": without_password(url), "images": len(images)}
            print_json(results, **shared, **provenance(timer, len(images)))
        if any(answer.error for answer in answers):
            raise click.exceptions.Exit(1)


def _show(checks, load_seconds: float | None) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("signature", "request"):
        table.add_column(name)
    for name in ("difference", "allowed", "ms per image", ""):
        table.add_column(name, justify="right")
    for check in checks:
        table.add_row(
            check.signature,
            printable(check.request),
            "" if check.skipped else f"{check.difference:.1e}",
            f"{check.tolerance:.1e}",
            "" if check.skipped else f"{1000 * check.seconds:.1f}",
            "skipped" if check.skipped else "" if check.passed else "TOO FAR",
        )
    print_table(table)
    for check in checks:
        if check.skipped:
            echo(f"{check.signature} was skipped: {check.skipped}")
    if load_seconds is not None:
        echo(f"loaded in {load_seconds:.1f} s")
    far = sum(not check.passed for check in checks)
    echo(f"{far} of {len(checks)} checks differ by too much" if far else "as the Keras net")


def _as_result(image: str, answer) -> dict:
    """An answer of a server with the names that `predict` gives."""
    if answer.error:
        return {"image": image, "error": answer.error}
    classes = map(class_of_label, answer.class_names)
    top = [
        {"class": one, "name": readable(one), "posterior": posterior}
        for one, posterior in zip(classes, answer.probabilities, strict=True)
    ]
    for one, box in zip(top, answer.boxes, strict=False):  # of serving_default there are none
        one["box_in_pixels"] = list(box)
    return {"image": image, "top": top}


def _show_answer(image: str, answer) -> None:
    if answer.error:
        echo(f"{image} {answer.error}")
        return
    echo(image)
    boxes = [" ".join(f"{edge:.0f}" for edge in box) + "  " for box in answer.boxes]
    columns = zip(answer.class_names, answer.probabilities, boxes or cycle([""]), strict=False)
    for name, probability, box in columns:
        echo(f"{100 * probability:6.1f} %  {box}{name}")
