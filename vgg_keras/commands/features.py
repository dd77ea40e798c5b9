"""`features`, `transfer` and `similar`: very deep features for other data (§B)."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vgg_keras.commands.shared import (
    NetName,
    Scales,
    add_options,
    bad_image_option,
    data_dir_option,
    data_option,
    devices_option,
    errors_for_people,
    json_option,
)
from vgg_keras.features.procedure import AGGREGATES, REGIONS
from vgg_keras.features.protocols import (
    C_GRID,
    CUSTOM,
    MEAN_AP,
    MEAN_CLASS_RECALL,
    TRANSFER_PROTOCOLS,
)
from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import PRECISIONS


class Numbers(click.ParamType):
    """Numbers between commas."""

    name = "numbers"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r}: numbers between commas are expected", param, ctx)


_NETS = (
    click.option(
        "--run",
        "runs",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Run folder; the features of several nets are stacked.",
    ),
    click.option(
        "--weights",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Weights file of any kind that `convert` reads; several are stacked.",
    ),
    click.option(
        "--net",
        "nets",
        multiple=True,
        type=NetName(),
        help="Of the weights, once for each [told by their layers].",
    ),
    click.option(
        "--preprocessing",
        metavar="rgb|caffe|torch",
        help="With --weights: what their nets take [told by their kind].",
    ),
    click.option(
        "--statistics",
        type=click.Path(path_type=Path),
        help="With --weights: JSON file with the mean that their input is free of.",
    ),
    click.option(
        "--layer",
        default="fc2",
        show_default=True,
        help="Whose activations; block3_pool, say, where later layers are missing.",
    ),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), help="With --run: dtype policy [the run's]."
    ),
    click.option(
        "--pool-rounding",
        type=click.Choice(("down", "up")),
        default="down",
        show_default=True,
        help="Of odd sides in pooling; Caffe's is up.",
    ),
)
_PROCEDURE = (
    click.option(
        "--test-scales", type=Scales(), help="Q, between commas [256,384,512 at crops of 224]."
    ),
    click.option(
        "--aggregate",
        type=click.Choice(AGGREGATES),
        default="mean",
        show_default=True,
        help="What becomes of the scales.",
    ),
    click.option(
        "--flip/--no-flip", default=True, show_default=True, help="Average with the mirror image."
    ),
    click.option(
        "--region",
        type=click.Choice(REGIONS),
        default="image",
        show_default=True,
        help="Whole images, the box in each, or both stacked (Table 12).",
    ),
    click.option(
        "--boxes",
        "boxes_file",
        type=click.Path(path_type=Path),
        help="CSV file with boxes of a folder: source [DIR/boxes.csv].",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        default=64,
        show_default=True,
        help="Whole images through the net at once, as many pixels as in so many crops.",
    ),
)


@click.command()
@lambda command: add_options(_NETS, command)
@data_option
@data_dir_option
@click.option("--split", "splits", multiple=True, help="Once or more [all that there are].")
@lambda command: add_options(_PROCEDURE, command)
@click.option(
    "--cache-dir",
    help="Folder for descriptors while they are made, to go on from [FILE.parts]; '' for none.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A .parquet or .npy.")
@devices_option
@bad_image_option
@json_option
@click.pass_obj
def features(
    verbose,
    runs,
    weights,
    nets,
    data,
    data_dir,
    devices,
    splits,
    cache_dir,
    out,
    as_json,
    layer,
    preprocessing,
    statistics,
    precision,
    pool_rounding,
    **options,
) -> None:
    """Describe images by a net's activations: dense, several scales, mirror images (§B)."""
    with errors_for_people(verbose):
        from vgg_keras.features.table import check_format

        check_format(out)
        _check_nets(runs, weights, nets, preprocessing or statistics)
        with quiet_tensorflow(verbose):
            from vgg_keras.distribution import make_strategy
            from vgg_keras.features.descriptors import extract_features
            from vgg_keras.features.extractor import FeatureExtractor
            from vgg_keras.pipelines.sources import open_source
            from vgg_keras.pipelines.statistics import Statistics
        strategy = make_strategy(devices)  # first: TFDS may start TensorFlow, which fixes them
        source = open_source(data, data_dir, several_labels=True)
        options_of_nets = {"precision": precision, "pool_rounding": pool_rounding}
        mean = Statistics.load(statistics).mean if statistics else None
        of_weights = {"preprocessing": preprocessing, "mean": mean}
        with strategy.scope():
            extractors = [FeatureExtractor.load(path, layer, **options_of_nets) for path in runs]
            extractors += [
                FeatureExtractor.load(
                    path, layer, net=nets[i] if nets else None, **of_weights, **options_of_nets
                )
                for i, path in enumerate(weights)
            ]
        folder = out.with_name(f"{out.name}.parts") if cache_dir is None else cache_dir or None
        found = extract_features(extractors, source, splits, cache_dir=folder, **options)
        found.save(out)
        result = {
            "file": str(out),
            "images": len(found),
            "dimensions": found.values.shape[1],
            **found.metadata,
        }
        click.echo(
            json.dumps(result)
            if as_json
            else f"{out}: {len(found)} images, {found.values.shape[1]} numbers each"
        )


def _check_nets(runs, weights, nets, of_weights) -> None:
    if bool(runs) == bool(weights):
        raise ValueError("Give --run, once or more, or --weights, once or more.")
    if runs and (nets or of_weights):
        raise ValueError("--net, --preprocessing and --statistics go with --weights.")
    if nets and len(nets) != len(weights):
        raise ValueError(
            f"Give --net once for each of the {len(weights)} --weights, or not at all."
        )


@click.command()
@click.option(
    "--features",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="From `features --out`; several are stacked.",
)
@click.option("--protocol", required=True, type=click.Choice((*TRANSFER_PROTOCOLS, CUSTOM)))
@click.option("--train-per-class", type=click.IntRange(1), help="Of random splits [30; 60].")
@click.option("--test-per-class", type=click.IntRange(1), help="At most [50; all others].")
@click.option("--splits", type=click.IntRange(1), help="How many random splits [3].")
@click.option(
    "--c-grid",
    "grid",
    type=Numbers(),
    default=C_GRID,
    metavar="C,C,...",
    help=f"Regularisation constants to choose from [{','.join(f'{c:g}' for c in C_GRID)}].",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random splits.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the result, .json.")
@json_option
@click.pass_obj
def transfer(verbose, files, out, as_json, **options) -> None:
    """Judge features by linear SVMs: mean AP (VOC) or mean class recall (Caltech) (§B)."""
    with errors_for_people(verbose):
        from vgg_keras.features.svm import transfer as run_transfer
        from vgg_keras.features.table import Features, stacked

        result = run_transfer(stacked([Features.load(file) for file in files]), **options)
        result["files"] = [str(file) for file in files]
        text = json.dumps(result)
        if out:
            from vgg_keras.pipelines.files import atomic_write

            atomic_write(out, text + "\n")
        click.echo(text if as_json else _line(result))


def _line(result: dict) -> str:
    """A result for people."""
    measure = next(key for key in (MEAN_AP, MEAN_CLASS_RECALL) if key in result)
    spread = "" if result["spread"] is None else f" ± {result['spread']:.1f}"
    splits = len(result["of_splits"])
    return (
        f"{result['protocol']}: {measure.replace('_', ' ')} {result[measure]:.1f}{spread} % of "
        f"{result['images']} images{f', {splits} splits' if splits > 1 else ''}, trained on "
        f"{result['train_images']}, C = {', '.join(f'{c:g}' for c in result['C'])}"
    )


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--features",
    "file",
    required=True,
    type=click.Path(path_type=Path),
    help="Where to look, from `features --out`.",
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--moved-to",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Run or weights file that has moved; once a net.",
)
@click.option(
    "--sheet", type=click.Path(path_type=Path), help="Draw the images with what is like them, .png."
)
@click.option("--data", help="For the sheet: the images' data, where they have moved.")
@data_dir_option
@json_option
@click.pass_obj
def similar(verbose, images, file, top, moved_to, sheet, data, data_dir, as_json) -> None:
    """Find the images whose features are most like those of IMAGE."""
    with errors_for_people(verbose):
        with quiet_tensorflow(verbose):
            from vgg_keras.features.similar import draw_sheet, nearest, query_descriptors
            from vgg_keras.features.table import Features
        found = Features.load(file)
        close = nearest(query_descriptors(found, images, moved_to=moved_to), found, top)
        _show(images, found, close, as_json)
        if sheet:
            from vgg_keras.pipelines.sources import open_source

            source = open_source(data or found.metadata["data"], data_dir, several_labels=True)
            draw_sheet(images, found, close, source, sheet)


def _show(images, found, close, as_json: bool) -> None:
    """Prints what is like each image."""
    results = [
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
    if as_json:
        click.echo(json.dumps(results))
        return
    for result in results:
        click.echo(result["image"])
        for one in result["similar"]:
            click.echo(f"  {one['similarity']:.3f}  {one['image']}  {', '.join(one['labels'])}")
