"""Commands and groups that refuse what click accepts without a word, and print whole sentences."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import click

from vgg_keras.commands.options import Several

_ARGUMENTS = "vgg_keras.arguments"  # key of a context's `meta`
# Flags of other projects, such as Keras' arguments and the training scripts of torchvision and
# timm, for each of our flags. click finds only flags whose letters are nearly those given.
OTHER_NAMES = {
    "--val-fraction": "--validation-split --val-split --validation-fraction --valid-split "
    "--val-size --test-size --split-ratio",
    "--data": "--dataset --data-path --data-root --train-dir --train-data --input",
    "--out": "--output --output-dir --output-file --output-path --save-dir --save --dest",
    "--net": "--model --arch --architecture --backbone",
    "--run": "--model --checkpoint --ckpt --load",
    "--weights": "--model --checkpoint --ckpt --pretrained --pretrained-weights",
    "--init-from": "--pretrained --checkpoint --initial-checkpoint --init-weights --weights",
    "--trainable": "--freeze --freeze-layers --unfreeze",
    "--crop-size": "--image-size --img-size --input-size --imgsz --train-crop-size",
    "--test-scales": "--image-size --img-size --input-size --scales --val-resize-size",
    "--learning-rate": "--lr --initial-lr --base-lr",
    "--weight-decay": "--wd --decay --l2 --regularization",
    "--dropout": "--drop --dropout-rate",
    "--plateau-patience": "--patience --patience-epochs",
    "--plateau-factor": "--factor --gamma --decay-rate --lr-decay",
    "--epochs": "--max-epochs --num-train-epochs",
    "--batch-size": "--bs --minibatch",
    "--devices": "--gpu --gpus --num-gpus --device --ngpus",
    "--precision": "--amp --mixed-precision --dtype --fp16 --bf16",
    "--seed": "--random-seed --random-state",
    "--top": "--topk --top-k",
    "--flip": "--hflip --horizontal-flip",
    "--resume": "--continue --restore",
    "--classes": "--labels --class-names",
    "--num-classes": "--classes --nclasses",
    "--url": "--host --server --endpoint --address",
    "--on-bad-image": "--ignore-errors --skip-errors",
}


def _set_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Commands take the switch as `ctx.obj`, where that of the group before them is too."""
    ctx.obj = value or bool(ctx.obj)


class Command(click.Command):
    """A command of `vgg-keras`. It has the switch `--verbose`.

    It refuses an option that is given twice but takes one value; click takes the last value and
    forgets the others. For a flag that other projects have it names ours. In the list of commands
    its first sentence is not cut.
    """

    def __init__(self, *args: Any, **attributes: Any):
        super().__init__(*args, **attributes)
        verbose = click.Option(
            ["--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbose,
            help="Show the messages of TensorFlow, and the tracebacks of errors.",
        )
        self.params.append(verbose)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        try:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
        except click.NoSuchOption as error:
            own = {flag for option in self.params for flag in option.opts}
            meant = [flag for flag, others in OTHER_NAMES.items() if flag in own]
            meant = [flag for flag in meant if error.option_name in OTHER_NAMES[flag].split()]
            if meant:
                ctx.fail(f"{error.message.rstrip('.')}. Did you mean {' or '.join(meant)}?")
            raise
        for option, times in Counter(given).items():
            is_single = isinstance(option, click.Option) and not (option.multiple or option.count)
            if times > 1 and is_single and not option.is_eager and not ctx.resilient_parsing:
                flag = "/".join((*option.opts, *option.secondary_opts))
                commas = ", with commas between values" * isinstance(option.type, Several)
                ctx.fail(f"{flag} must be given once{commas}. Received: {times} times")
        return super().parse_args(ctx, args)

    def get_short_help_str(self, limit: int = 0) -> str:
        """The first sentence of the help, whatever the limit."""
        sentence, *_ = " ".join((self.help or "").split()).split(". ")
        return sentence.removesuffix(".")


class Group(Command, click.Group):
    """A group of commands; those that are added with `@group.command()` are `Command`s."""

    command_class = Command


def arguments_of(ctx: click.Context) -> list[str]:
    """The arguments that a command was given, as in `sys.argv`, without those of its groups."""
    return ctx.meta[_ARGUMENTS]


command = functools.partial(click.command, cls=Command)
group = functools.partial(click.group, cls=Group)
