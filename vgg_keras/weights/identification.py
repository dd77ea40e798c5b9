"""The family, net and size that are inferred from the tensors of a file."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from vgg_keras.nets import CHANNELS, FC_NAMES, HIDDEN_UNITS, NETS, STRIDE, Net, scaled
from vgg_keras.weights.naming import CONVENTIONS, Convention, Key, Shape


@dataclass(frozen=True)
class Match:
    """The family and net that the names of a file's tensors match best.

    Attributes:
        family: names and layout of the weights.
        net: first net that has all the layers of the file.
        prefix: what precedes all names in the file, such as "module.".
        conv_kernels: number of conv. kernels in the file that have the sides of the net's.
        others: prefixes of further nets that match as well.
    """

    family: Convention
    net: Net
    prefix: str
    conv_kernels: int
    others: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the file has all conv. kernels of the net."""
        return self.conv_kernels == len(self.net.conv_names)


def identify(shapes: Mapping[str, Shape]) -> Match | None:
    """Returns the family and net that match the tensors best; None if no name is known.

    Args:
        shapes: shapes of the tensors by their names in the file.
    """
    best: tuple[int, int, int] = (0, 0, 0)
    match: Match | None = None
    for family in CONVENTIONS:
        for prefix in _prefixes(family, shapes):
            for net in NETS.values():
                names = family.names(net, prefix)
                found = _likeness(net, names, shapes)
                if not found[1] and not any(layer in FC_NAMES for layer, _ in names):
                    continue  # the numbers of a sequence alone tell nothing
                # Of equally good families and nets the first is taken.
                compared = 3 if match is None or match.family == family else 2
                if found[:compared] > best[:compared]:
                    best, match = found, Match(family, net, prefix, found[1])
                elif match and found == best and (match.family, match.net) == (family, net):
                    match = replace(match, others=(*match.others, prefix))
    return match


def _likeness(
    net: Net, names: Mapping[Key, str], shapes: Mapping[str, Shape]
) -> tuple[int, int, int]:
    """How well a file matches a net: its tensors, its conv. kernels, less its missing layers."""
    known = {key for key, name in names.items() if name in shapes}
    missing = set(net.conv_names) - {layer for layer, _ in known}
    return len(known), _sides_that_fit(net, sizes_of(names, shapes)), -len(missing)


_PREFIX = re.compile(r"[./]|^vgg\d+_")  # a module or scope, or a number that Gluon gives a net
_LONGEST_NAME = 256
_MAX_PREFIXES = 4  # of one family in a file. One net needs one.


def _prefixes(family: Convention, shapes: Mapping[str, Shape]) -> list[str]:
    """What precedes a family's names in a file, the most frequent first."""
    known = _known_names(family)
    found = Counter(
        name[:start]
        for name in shapes
        if len(name) <= _LONGEST_NAME
        for start in (0, *(mark.end() for mark in _PREFIX.finditer(name)))
        if name[start:] in known
    )
    return [prefix for prefix, _ in found.most_common(_MAX_PREFIXES)]


@functools.cache
def _known_names(family: Convention) -> frozenset[str]:
    return frozenset(name for net in NETS.values() for name in family.names(net).values())


def sizes_of(names: Mapping[Key, str], shapes: Mapping[str, Shape]) -> dict[Key, int]:
    """Returns the number of values in each tensor that the file has."""
    return {key: math.prod(shapes[name]) for key, name in names.items() if name in shapes}


def _sides_that_fit(net: Net, sizes: Mapping[Key, int]) -> int:
    """Number of conv. kernels with the net's side. Nets C and D differ only in these sides."""
    fitting, inputs = 0, 3
    sides = [side for block in net.kernels for side in block]
    for layer, side in zip(net.conv_names, sides, strict=True):
        outputs = sizes.get((layer, "bias"), 0)
        fitting += sizes.get((layer, "kernel")) == side**2 * inputs * outputs
        inputs = outputs
    return fitting


def geometry(net: Net, sizes: Mapping[Key, int]) -> tuple[int, int, float]:
    """Returns the number of classes, crop size and width that are inferred from the tensors.

    Values that the tensors do not determine are 1000, 224 and 1.
    """
    num_classes = sizes.get(("predictions", "bias"), 1000)
    crop_size = 224
    outputs = sizes.get((net.conv_names[-1], "bias"), 0) * sizes.get(("fc1", "bias"), 0)
    if outputs and ("fc1", "kernel") in sizes:
        crop_size = STRIDE * max(1, math.isqrt(sizes["fc1", "kernel"] // outputs))
    return max(1, num_classes), crop_size, _width(net, sizes)


def _width(net: Net, sizes: Mapping[Key, int]) -> float:
    """The width with the fewest decimals that gives every layer its number of channels.

    Where no width does so, the FC layers are a head of its own and the conv. layers decide.
    """
    full = {name: CHANNELS[int(name[len("block")]) - 1] for name in net.conv_names}
    hidden = dict.fromkeys(FC_NAMES[:2], HIDDEN_UNITS)
    pairs = [
        sorted(
            (units, sizes[layer, "bias"]) for layer, units in of.items() if (layer, "bias") in sizes
        )
        for of in (full | hidden, full, hidden)
    ]
    widths = ((width, of) for of in pairs for width in _candidates(of))
    found = (w for w, of in widths if all(scaled(units, w) == given for units, given in of))
    of_convs_or_fc = next(filter(None, pairs[1:]), [(1, 1)])
    return next(found, of_convs_or_fc[-1][1] / of_convs_or_fc[-1][0] or 1.0)


def _candidates(pairs: list[tuple[int, int]]) -> Iterator[float]:
    """Widths that may turn numbers of channels at full width into those of a file."""
    if not pairs:
        return
    least = max((given - 0.5) / units for units, given in pairs)
    most = min((given + 0.5) / units for units, given in pairs)
    middle = (least + most) / 2
    yield pairs[-1][1] / pairs[-1][0] or 1.0
    yield from (round(middle, decimals) for decimals in range(1, 9))
    yield middle
