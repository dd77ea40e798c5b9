"""`convert`, and `weights`: the table of released nets."""

from __future__ import annotations

from dataclasses import asdict

import click

from vgg_keras.commands.base import command
from vgg_keras.commands.errors import one_line_errors
from vgg_keras.commands.nets import head_option, preprocessing_option
from vgg_keras.commands.options import ANY_PATH, FILE, NetName, json_option
from vgg_keras.commands.results import print_json, provenance
from vgg_keras.commands.terminal import echo, print_table


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

    SOURCE is the folder of a run or of a saved net, a released net such as imagenet:D, or a file:
    .h5, .weights.h5 or .keras of Keras, .caffemodel of Caffe, .mat of MatConvNet, a checkpoint of
    TensorFlow or of PyTorch (.ckpt, .pth, .pth.tar), .safetensors with the names of torchvision or
    timm, .onnx, .npz or .npy. The ending of TARGET is .weights.h5 (for load_weights), .h5 (for
    keras.applications), .keras (for load_model; its net takes RGB in 0..255), .safetensors (with
    the names of torchvision) or .npz.
    """
    from vgg_keras.weights import convert as run_conversion

    with one_line_errors(verbose):
        contents = run_conversion(
            source, target, net, partial=partial, head=head, preprocessing=preprocessing
        )
        if as_json:
            files = {"source": str(source), "target": str(target)}
            print_json([files | asdict(contents)], **provenance())
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


@command()
@json_option
@click.pass_obj
def weights(verbose, as_json) -> None:
    """List the released nets, which --weights and --init-from take by name.

    imagenet:NET is the first release of the net in this list. Weights are downloaded on first use,
    into the folder models of ~/.keras or $KERAS_HOME.
    """
    from rich.table import Table

    from vgg_keras.pretrained import RELEASES

    with one_line_errors(verbose):
        if as_json:
            rows = [asdict(r) | {"path": str(r.path), "cached": r.path.exists()} for r in RELEASES]
            print_json(rows)
            return
        table = Table(
            title="Released nets, trained on ILSVRC-2012",
            caption="imagenet:NET is the first release of the net in this list.",
        )
        for column in ("name", "net", "MB", "input", "S", "top-1 error", "top-5 error"):
            table.add_column(column, justify="left" if column in ("name", "net") else "right")
        for column in ("protocol", "licence", "cached"):
            table.add_column(column)
        for release in RELEASES:
            low, high = release.train_scale
            errors = (release.top1_error, release.top5_error)
            table.add_row(
                release.name,
                release.net,
                str(release.megabytes),
                f"{release.preprocessing}, {release.crop_size}",
                str(low) if low == high else f"[{low}; {high}]",
                *("" if error is None else f"{error:.1f} %" for error in errors),
                release.protocol,
                release.licence,
                "yes" if release.path.exists() else "no",
            )
        print_table(table, width=132)
