"""`convert`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.nets import head_option, preprocessing_option
from vgg_keras.commands.options import ANY_PATH, FILE, NetName, json_option
from vgg_keras.commands.terminal import echo


@command()
@click.argument("source", type=ANY_PATH)
@click.argument("target", type=FILE)
@click.option("--net", type=NetName(), help="Net that SOURCE must hold [inferred from its layers].")
@click.option(
    "--partial",
    is_flag=True,
    help="Convert only the complete layers that fit, and name the others.",
)
@head_option
@preprocessing_option
@json_option
@click.pass_obj
def convert(verbose, source, target, net, partial, head, preprocessing, as_json) -> None:
    """Convert weights to another kind of file.

    SOURCE is the folder of a run or of a saved net, or a file: .h5, .weights.h5 or .keras of
    Keras, .caffemodel of Caffe, .mat of MatConvNet, a checkpoint of TensorFlow or of PyTorch
    (.ckpt, .pth, .pth.tar), .safetensors with the names of torchvision or timm, .npz or .npy. The
    ending of TARGET is .weights.h5 (for load_weights), .h5 (for keras.applications), .keras (for
    load_model; its net takes RGB in 0..255), .safetensors (with the names of torchvision) or .npz.
    """
    from vgg_keras.weights import convert as run_conversion

    with one_line_errors(verbose):
        contents = run_conversion(
            source, target, net, partial=partial, head=head, preprocessing=preprocessing
        )
        if as_json:
            echo(json.dumps({"source": str(source), "target": str(target)} | asdict(contents)))
            return
        top = f"{contents.num_classes} classes, crop {contents.crop_size}, "
        echo(
            f"{source}: net {contents.net}, {top if contents.has_top else ''}width "
            f"{contents.width:g}, with the layer names of {contents.family}"
        )
        if partial:
            echo(f"took {', '.join(contents.taken)}")
            for name, reason in contents.left.items():
                echo(f"skipped {name}: {reason}")
        echo(f"wrote {target}, {target.stat().st_size / 2**20:,.1f} MiB")
