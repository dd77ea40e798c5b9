"""`convert`, and the options of commands that take a weights file in place of a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from vgg_keras.commands.shared import NetName, Scales, errors_for_people, json_option

_OPTIONS = {
    "weights": click.option(
        "--weights",
        type=click.Path(path_type=Path),
        help="Weights file of any kind that `convert` reads.",
    ),
    "net": click.option(
        "--net", type=NetName(), help="With --weights: its net [told by its layers]."
    ),
    "preprocessing": click.option(
        "--preprocessing",
        metavar="rgb|caffe|torch",
        help="With --weights: what its net takes [told by its kind].",
    ),
    "statistics": click.option(
        "--statistics",
        type=click.Path(path_type=Path),
        help="With --weights: JSON file with the mean that its input is "
        "free of [told by its kind].",
    ),
    "train_scale": click.option(
        "--train-scale",
        type=Scales(),
        help="With --weights: S, or S_MIN,S_MAX [256 at crops of 224].",
    ),
}


def weights_options(command):
    """Adds `--weights` and what goes with it."""
    for option in reversed(_OPTIONS.values()):
        command = option(command)
    return command


def take_weights_options(options: dict) -> dict:
    """Takes what `weights_options` added out of a command's options, less what was not given."""
    taken = {name: options.pop(name) for name in _OPTIONS}
    return {name: value for name, value in taken.items() if value is not None}


def check_one_kind(runs: bool, given: dict, how_many: str) -> None:
    """Raises ValueError where it is not either runs or weights that are given."""
    if runs == ("weights" in given):
        raise ValueError(f"Give --run, {how_many}, or --weights.")
    if runs and given:
        flag = next(iter(given)).replace("_", "-")
        raise ValueError(f"--{flag} goes with --weights; a run has its own.")


def run_of_weights(given: dict, model_options: dict, class_names=None):
    """A weights file with what the flags say of it, as a run."""
    from vgg_keras.pipelines.statistics import Statistics
    from vgg_keras.runs import load_weights_file

    options = {k: v for k, v in (given | model_options).items() if v is not None}
    path = options.pop("weights")
    if "statistics" in options:
        options["statistics"] = Statistics.load(options["statistics"])
    if len(options.get("train_scale", ())) == 1:
        options["train_scale"] *= 2
    return load_weights_file(path, class_names=class_names, **options)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--net", type=NetName(), help="The net that it must hold [told by its layers].")
@click.option("--partial", is_flag=True, help="Take the layers there are, and name the rest.")
@click.option(
    "--preprocessing",
    metavar="rgb|caffe|torch",
    help="What the net takes: rgb and caffe (BGR) less the ILSVRC mean, torch 0..1 less"
    " mean, by sd [told by the kind of file].",
)
@json_option
@click.pass_obj
def convert(verbose, source, target, net, partial, preprocessing, as_json) -> None:
    """Write weights as another kind of file.

    SOURCE is a run folder or a file: .h5, .weights.h5 and .keras of Keras, .caffemodel, .mat of
    MatConvNet, .pth and .safetensors of torchvision or timm, .npz or .npy. TARGET ends in
    .weights.h5 (for load_weights), .h5 (for keras.applications), .safetensors (torchvision's
    names) or .npz.
    """
    from vgg_keras.weights import convert as run_conversion

    with errors_for_people(verbose):
        contents = run_conversion(source, target, net, partial=partial, preprocessing=preprocessing)
        if as_json:
            click.echo(
                json.dumps({"source": str(source), "target": str(target)} | asdict(contents))
            )
            return
        top = f"{contents.num_classes} classes, crop {contents.crop_size}, "
        click.echo(
            f"{source}: net {contents.net}, {top if contents.has_top else ''}width "
            f"{contents.width:g}, as {contents.family} names it"
        )
        if partial:
            click.echo(f"took {', '.join(contents.taken)}")
            for name, reason in contents.left.items():
                click.echo(f"left {name}: {reason}")
        click.echo(f"wrote {target}, {target.stat().st_size / 2**20:,.1f} MiB")
