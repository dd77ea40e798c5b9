"""The 1,000 classes of ILSVRC-2012 as data: their WordNet ids and names."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType


@functools.cache
def names_of_wnids() -> Mapping[str, str]:
    """Names by WordNet id, in the order of the labels: "n01440764" is "tench, Tinca tinca".

    The names are those of WordNet's synset, between commas. Two classes are both just "crane":
    n02012849 is the bird, n03126707 the machine.
    """
    file = resources.files("vgg_keras").joinpath("data/ilsvrc2012_classes.tsv")
    lines = file.read_text("utf-8").splitlines()
    return MappingProxyType(dict(line.split("\t") for line in lines))


def wnids() -> tuple[str, ...]:
    """The WordNet ids in the order of the labels, which is the alphabet's."""
    return tuple(names_of_wnids())


def readable(class_name: str) -> str:
    """The names of a WordNet id, "tench, Tinca tinca"; any other class name as it is."""
    return names_of_wnids().get(class_name, class_name)


def label(class_name: str) -> str:
    """All names, and the id that tells the cranes apart: "tench, Tinca tinca (n01440764)"."""
    names = names_of_wnids().get(class_name)
    return f"{names} ({class_name})" if names else class_name


def short_label(class_name: str) -> str:
    """The first name and the id, for charts and captions: "tench (n01440764)"."""
    names = names_of_wnids().get(class_name)
    return f"{names.split(',')[0]} ({class_name})" if names else class_name
