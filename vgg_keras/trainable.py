"""Which layers of a net are trained: `trainable` of a recipe, and the stages that it leads to.

`trainable` is "all", "fc" (the three FC layers) or names of layers, separated by commas.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vgg_keras.errors import ArgumentError
from vgg_keras.nets import FC_NAMES, get_net

if TYPE_CHECKING:
    from vgg_keras.recipes import Recipe

ALL, FC = "all", "fc"


@dataclass(frozen=True)
class Stage:
    """Epochs of a training that train the same layers.

    Attributes:
        recipe: how they are trained; its `trainable` are the layers.
        first_epoch: the first of these epochs, counted from 0.
        end: the epoch after the last one.
    """

    recipe: Recipe
    first_epoch: int
    end: int


def as_trainable(trainable: str, net: str) -> str:
    """The layers, each once and in the order of the net.

    Raises:
        ArgumentError: `trainable` is neither "all" nor "fc" nor names of layers of the net.
    """
    if trainable in (ALL, FC):
        return trainable
    names = (*get_net(net).conv_names, *FC_NAMES)
    given = {name.strip() for name in trainable.split(",")}
    if unknown := sorted(given.difference(names)):
        raise ArgumentError(
            f"trainable must be all, fc or names of layers of net {net}: {', '.join(names)}. "
            f"Received: {', '.join(map(repr, unknown))}",
            "trainable",
        )
    whole = {names: ALL, FC_NAMES: FC}
    ordered = tuple(name for name in names if name in given)
    return whole.get(ordered, ",".join(ordered))


def is_trained(layer: str, trainable: str) -> bool:
    """Whether a layer is one of `trainable`."""
    return trainable == ALL or layer in _names(trainable)


def fc_layers(trainable: str) -> str:
    """The FC layers of `trainable`; "" if there are none."""
    return FC if trainable == ALL else ",".join(n for n in FC_NAMES if is_trained(n, trainable))


def _names(trainable: str) -> Collection[str]:
    return FC_NAMES if trainable == FC else trainable.split(",")
