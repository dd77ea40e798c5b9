"""`export`, `verify` and `request`: a net as a SavedModel, checked, and asked on a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from vgg_keras.commands.shared import (
    Scales,
    errors_for_people,
    json_option,
    procedure_options,
)
from vgg_keras.commands.weights import (
    check_one_kind,
    run_of_weights,
    take_weights_options,
    weights_options,
)
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import SERVING_PRECISIONS


@click.command()
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help="Run folder.")
@weights_options
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for a server to watch; its last part names the model.",
)
@click.option("--version", type=click.IntRange(1), help="Number of the version [the next one].")
@click.option(
    "--top",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Classes to name for a picture.",
)
@click.option(
    "--precision",
    type=click.Choice(SERVING_PRECISIONS),
    default="float32",
    show_default=True,
    help="bfloat16 is half the size.",
)
@procedure_options
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    help="Larger pictures are refused before they are decoded [64 million].",
)
@click.option(
    "--max-aspect",
    type=click.FloatRange(1),
    help="Longer over shorter side of a picture, at most [8].",
)
@click.option(
    "--localiser",
    "localiser_folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Localisation run, for the signature localise; boxes of several are merged.",
)
@click.option(
    "--localiser-scales",
    type=Scales(),
    multiple=True,
    help="Its Q, between commas; once, or once for each [each run's S].",
)
@json_option
@click.pass_obj
def export(
    verbose,
    run_folder,
    out,
    version,
    localiser_folders,
    localiser_scales,
    max_pixels,
    max_aspect,
    pool_rounding,
    as_json,
    **options,
) -> None:
    """Write a SavedModel that TensorFlow Serving takes as it is, OUT/VERSION."""
    with errors_for_people(verbose):
        given = take_weights_options(options)
        check_one_kind(bool(run_folder), given, "once")
        with quiet_tensorflow(verbose):
            from vgg_keras.saved_models.export import check_version
            from vgg_keras.saved_models.images import Limits
            from vgg_keras.serving import export as run_export
        localisers = load_localisers(localiser_folders, localiser_scales, pool_rounding)
        check_version(out, version)
        given_limits = {"pixels": max_pixels, "aspect": max_aspect}
        limits = Limits(**{k: v for k, v in given_limits.items() if v is not None})
        source = {"run": run_folder} if run_folder else given
        run = load_source(source, pool_rounding)
        with quiet_tensorflow(verbose):
            path = run_export(
                run,
                out,
                version=version,
                limits=limits,
                localisers=localisers,
                source={name: _as_json(value) for name, value in source.items()},
                **options,
            )
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if as_json:
            click.echo(json.dumps({"path": str(path), "bytes": size}))
        else:
            click.echo(f"wrote {path}, {size / 2**20:,.1f} MiB")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("photos", nargs=-1, metavar="[PHOTO]...")
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Run folder [where the export says it was].",
)
@weights_options
@click.option(
    "--url",
    help="Server that serves the export, as for request [a fresh process that loads it].",
)
@click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Requests to time."
)
@json_option
@click.pass_obj
def verify(verbose, path, photos, run_folder, url, repeats, as_json, **options) -> None:
    """Compare every signature of an export with its net, in a fresh process or on a server.

    Photos are JPEG or PNG files; by default one that comes with Matplotlib.
    """
    with errors_for_people(verbose):
        given = take_weights_options(options)
        with quiet_tensorflow(verbose):
            from vgg_keras.saved_models.export import read_metadata
            from vgg_keras.verification import verify as run_verification
        metadata = read_metadata(path)
        if run_folder or given:
            check_one_kind(bool(run_folder), given, "once")
        source = {"run": run_folder} if run_folder else given or metadata["source"]
        run = load_source(source, metadata["pool_rounding"], metadata["class_names"])
        localisers = load_localisers(
            metadata.get("localisers"),
            metadata.get("localiser_scales"),
            metadata["pool_rounding"],
            threshold=metadata.get("merge_threshold"),
        )
        checks, load_seconds = run_verification(
            path, run, photos, localisers, url=url, repeats=repeats
        )
        passed = all(check.passed for check in checks)
        if as_json:
            found = [asdict(check) | {"passed": check.passed} for check in checks]
            click.echo(json.dumps({"checks": found, "load_seconds": load_seconds}))
        else:
            _show(checks, load_seconds)
        if not passed:
            raise click.exceptions.Exit(1)


@click.command()
@click.option(
    "--url",
    required=True,
    help="http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME, with /versions/N or without.",
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Images a request."
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
def request(verbose, url, images, batch_size, timeout, as_json) -> None:
    """Ask a server of TensorFlow Serving what is in images: JPEG or PNG files."""
    with errors_for_people(verbose):
        from vgg_keras.saved_models.client import classify, connect

        missing = [image for image in images if not Path(image).is_file()]
        if missing:
            raise ValueError(f"There is no such file: {missing[0]}")
        with quiet_tensorflow(verbose):
            server = connect(url, timeout)
        pictures = (Path(image).read_bytes() for image in images)
        answers = []
        for image, answer in zip(images, classify(server, pictures, batch_size), strict=True):
            answers.append(answer)
            if not as_json:
                _show_answer(image, answer)
        if as_json:
            click.echo(
                json.dumps([{"image": i} | asdict(a) for i, a in zip(images, answers, strict=True)])
            )
        if any(answer.error for answer in answers):
            raise click.exceptions.Exit(1)


def load_source(source: dict, pool_rounding: str, class_names=None):
    """The run of `--run` or `--weights`, or of what an export says of its source."""
    from vgg_keras.runs import load_run

    if "run" in source:
        return load_run(source["run"], precision="float32", pool_rounding=pool_rounding)
    paths = {name: Path(source[name]) for name in ("weights", "statistics") if name in source}
    options = {"precision": "float32", "pool_rounding": pool_rounding}
    return run_of_weights(dict(source) | paths, options, class_names)


def load_localisers(folders, scales, pool_rounding: str, **options):
    """The localisation runs of an export, or None."""
    if not folders:
        return None
    from vgg_keras.localisation.serving import Localisers
    from vgg_keras.runs import load_run

    load = {"precision": "float32", "pool_rounding": pool_rounding}
    runs = [load_run(folder, **load) for folder in folders]
    return Localisers(runs, scales[0] if len(scales) == 1 else scales or None, **options)


def _as_json(value):
    return str(value.absolute()) if isinstance(value, Path) else value


def _show(checks, load_seconds: float | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("signature", "request"):
        table.add_column(name)
    for name in ("difference", "allowed", "ms per image", ""):
        table.add_column(name, justify="right")
    for check in checks:
        table.add_row(
            check.signature,
            check.request,
            "" if check.skipped else f"{check.difference:.1e}",
            f"{check.tolerance:.1e}",
            "" if check.skipped else f"{1000 * check.seconds:.1f}",
            "skipped" if check.skipped else "" if check.passed else "TOO FAR",
        )
    Console().print(table)
    for check in checks:
        if check.skipped:
            click.echo(f"{check.signature} was skipped: {check.skipped}")
    if load_seconds is not None:
        click.echo(f"loaded in {load_seconds:.1f} s")
    far = sum(not check.passed for check in checks)
    click.echo(f"{far} of {len(checks)} checks differ by too much" if far else "as the Keras net")


def _show_answer(image: str, answer) -> None:
    if answer.error:
        click.echo(f"{image} {answer.error}")
        return
    click.echo(image)
    for name, probability in zip(answer.class_names, answer.probabilities, strict=True):
        click.echo(f"{100 * probability:6.1f} %  {name}")
