"""The nets that a command works on: `--run`, `--weights` and the options that go with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from vgg_keras.commands.options import FILE, RUN, WEIGHTS, NetName, TrainScale, add_options
from vgg_keras.nets import POOL_ROUNDINGS
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.recipes import PREPROCESSING_NAMES
from vgg_keras.run_files import EVALUATION_CACHE

preprocessing_option = click.option(
    "--preprocessing",
    type=click.Choice(PREPROCESSING_NAMES),
    help="Preprocessing that the weights were trained with: rgb (RGB minus the ILSVRC mean), caffe "
    "(BGR minus the ILSVRC mean), torch (RGB from 0 to 1, minus a mean, divided by a standard "
    "deviation), or vggface (BGR minus VGGFace's mean) [inferred from the kind of file].",
)
head_option = click.option(
    "--head",
    metavar="NAME",
    help="Name of the last layer in the weights file, such as fc8_voc [that of its family].",
)
pool_rounding_option = click.option(
    "--pool-rounding",
    type=click.Choice(tuple(POOL_ROUNDINGS)),
    help="How pooling rounds an odd side: down, or up as in Caffe [that of a saved net, otherwise "
    "down].",
)
classes_option = click.option(
    "--classes",
    type=FILE,
    help="With --weights: file that names the outputs of the net, one name a line or as a JSON "
    "list or object [ILSVRC's classes for 1,000 outputs, otherwise 0, 1, ...].",
)
_OF_A_FILE = ("net", "head", "preprocessing", "statistics", "train_scale", "classes")
_OF_A_MODEL = ("precision", "pool_rounding")


def net_options(several: str = "", without: Collection[str] = ()):
    """A decorator that adds `--run`, `--weights` and what goes with them.

    Args:
        several: what becomes of several nets, for the help text; only one is taken if empty.
        without: parameters to leave out.
    """
    many, more = bool(several), f"; {several}" * bool(several)
    options = {
        "run": click.option(
            "--run",
            type=RUN,
            multiple=many,
            help=f"Folder of a run or of a saved net{more}.",
        ),
        "weights": click.option(
            "--weights",
            type=WEIGHTS,
            multiple=many,
            help="Weights file of any kind that `vgg-keras convert` reads, or a released net such "
            f"as imagenet:D, which `vgg-keras weights` lists{more}.",
        ),
        "net": click.option(
            "--net",
            type=NetName(),
            multiple=many,
            help="With --weights: the net in the file [inferred from its layers]"
            f"{'; once for each file' * many}.",
        ),
        "head": head_option,
        "preprocessing": preprocessing_option,
        "statistics": click.option(
            "--statistics",
            type=FILE,
            help="With --weights: JSON file with the RGB mean that was subtracted from the images "
            "the weights were trained on [inferred from the kind of file].",
        ),
        "train_scale": click.option(
            "--train-scale",
            type=TrainScale(),
            metavar="S|S_MIN:S_MAX",
            help="With --weights: training scale S of the net [that of a released net; otherwise "
            "256, in proportion to the crop size].",
        ),
        "pool_rounding": pool_rounding_option,
    }
    return add_options([option for name, option in options.items() if name not in without])


@dataclass(frozen=True)
class ChosenNet:
    """A net that the options of a command name; it is not yet loaded.

    Attributes:
        where: folder of a run or saved net, weights file, or name of a released net.
        is_folder: whether it is a folder.
        arguments: of `TrainedNet.load`.
    """

    where: Path
    is_folder: bool
    arguments: dict[str, Any] = field(default_factory=dict)

    def facts(self):
        """The facts of a run or saved net, without its model."""
        from vgg_keras.net_files import read_facts

        return read_facts(self.where, **self.arguments)

    def load(self, class_names: Sequence[str] | None = None, **changes: Any):
        """The net.

        Args:
            class_names: names of the outputs if the net is a weights file and the options do not
                name them.
            changes: arguments of `TrainedNet.load` that replace those of the options.
        """
        from vgg_keras.trained import TrainedNet

        arguments = self.arguments | changes
        if not self.is_folder:
            arguments.setdefault("class_names", class_names)
        return TrainedNet.load(self.where, **arguments)

    @property
    def cache_dir(self) -> Path:
        """Folder of the row cache by default."""
        if self.is_folder:
            return self.where / EVALUATION_CACHE
        return self.file.with_suffix(".evaluation")

    @property
    def file(self) -> Path:
        """The folder or weights file; of a released net its file in the cache of Keras."""
        from vgg_keras.pretrained import local_path

        return local_path(self.where)


def chosen_nets(options: dict[str, Any], *, required: bool = True) -> list[ChosenNet]:
    """Takes the options of `net_options` and `--precision` out of a command's options.

    Args:
        options: of the command, by parameter name.
        required: whether there must be a net.

    Raises:
        ArgumentError: both `--run` and `--weights` are given or, if required, neither; or an
            option does not go with them.
    """
    runs, weights, names = (_several(options.pop(key)) for key in ("run", "weights", "net"))
    of_file = {name: options.pop(name, None) for name in _OF_A_FILE if name != "net"}
    of_file = {name: value for name, value in of_file.items() if value is not None}
    of_model = {name: options.pop(name, None) for name in _OF_A_MODEL}
    if runs and weights:
        raise ArgumentError(
            f"Give either --run or --weights. Received: both; take away --run {runs[0]} or "
            f"--weights {weights[0]}"
        )
    if required and not (runs or weights):
        raise ArgumentError(
            "Give either --run or --weights. Received: neither; --weights imagenet:D is a released "
            "net"
        )
    if not weights and (names or of_file):
        flag = "net" if names else next(iter(of_file)).replace("_", "-")
        raise ArgumentError(f"--{flag} goes with --weights; a run or saved net has its own.")
    if names and len(names) != len(weights):
        raise ArgumentError(
            f"Give --net once for each of the {len(weights)} --weights, or not at all. "
            f"Received: {', '.join(names)}"
        )
    if "statistics" in of_file:
        from vgg_keras.pipelines.statistics import Statistics

        of_file["mean"] = Statistics.load(of_file.pop("statistics")).mean
    if "classes" in of_file:
        of_file["class_names"] = read_class_list(of_file.pop("classes"))
    return nets_in_folders(runs, "run", of_model) + [
        ChosenNet(path, False, of_model | of_file | ({"net": names[i]} if names else {}))
        for i, path in enumerate(weights)
    ]


def read_class_list(file: Path) -> list[str]:
    """Reads the names of the outputs of a net, in their order.

    Args:
        file: text with one name a line; or, in a .json file, a list of names, an object from
            numbers to names as in {"0": "cat"}, or one from names to numbers, as
            `flow_from_directory` of Keras gives it.

    Raises:
        ArgumentError: the file holds something else. The message names it.
    """
    from vgg_keras.pipelines.contents import naming_file, parse_json

    kind: Any = list[str] | dict[str, str | int]
    with naming_file(file, ArgumentError, "does not name classes"):
        if file.suffix == ".json":
            found = parse_json(file.read_bytes(), kind)
            if isinstance(found, dict):
                pairs = [(int(k), v) if isinstance(v, str) else (v, k) for k, v in found.items()]
                if sorted(number for number, _ in pairs) != list(range(len(pairs))):
                    raise ValueError(f"its numbers must be 0 to {len(pairs) - 1}, once each")
                found = [name for _, name in sorted(pairs)]
        else:
            found = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
            found = [line for line in found if line]
        if not found:
            raise ValueError("it is empty")
        return found


def nets_in_folders(
    folders: Sequence[Path], argument: str, arguments: dict[str, Any]
) -> list[ChosenNet]:
    """The nets of runs and saved nets.

    Args:
        folders: those that an option names.
        argument: name of the option, for the message.
        arguments: of `TrainedNet.load`.

    Raises:
        ArgumentError: a folder is missing.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ArgumentError(f"There is no folder {folder}.", argument)
    return [ChosenNet(folder, True, arguments) for folder in folders]


def _several(value: Any) -> tuple:
    """The values of an option that may be given once or several times."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)
