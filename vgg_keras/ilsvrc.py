"""The 1,000 classes of ILSVRC-2012: their WordNet ids and names, and their ids in submissions."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType


@functools.cache
def _rows() -> tuple[list[str], ...]:
    """WordNet id, names and ILSVRC2012_ID of each class, in the order of the labels."""
    file = resources.files("vgg_keras").joinpath("data/ilsvrc2012_classes.tsv")
    return tuple(line.split("\t") for line in file.read_text("utf-8").splitlines())


@functools.cache
def names_of_wnids() -> Mapping[str, str]:
    """Returns the names of the classes by WordNet id, in the order of the labels.

    A name lists all names of the WordNet synset between commas. Two classes have the name "crane":
    n02012849 is the bird, and n03126707 is the machine.

    Example:
        >>> names_of_wnids()["n01440764"]
        'tench, Tinca tinca'
    """
    return MappingProxyType({wnid: names for wnid, names, _ in _rows()})


@functools.cache
def ids_of_wnids() -> Mapping[str, int]:
    """Returns the ILSVRC2012_ID of each class, 1 to 1000, by WordNet id.

    Submissions and ILSVRC2012_validation_ground_truth.txt have these ids. They are in the order of
    meta.mat in ILSVRC's development kit, which is that of its map_clsloc.txt and not alphabetical.

    Example:
        >>> ids_of_wnids()["n02119789"], ids_of_wnids()["n01440764"]
        (1, 449)
    """
    return MappingProxyType({wnid: int(number) for wnid, _, number in _rows()})


def wnids() -> tuple[str, ...]:
    """Returns the WordNet ids in the order of the labels, which is alphabetical."""
    return tuple(names_of_wnids())


def readable(class_name: str) -> str:
    """Returns the names of a WordNet id, "tench, Tinca tinca". Other class names are unchanged."""
    return names_of_wnids().get(class_name, class_name)


def label(class_name: str) -> str:
    """Returns all names and the id, which is unique: "tench, Tinca tinca (n01440764)"."""
    names = names_of_wnids().get(class_name)
    return f"{names} ({class_name})" if names else class_name


def class_of_label(text: str) -> str:
    """Returns the WordNet id of what `label` returned; other texts are unchanged."""
    return _wnids_of_labels().get(text, text)


@functools.cache
def _wnids_of_labels() -> Mapping[str, str]:
    return {label(wnid): wnid for wnid in wnids()}


def short_label(class_name: str) -> str:
    """Returns the first name and the id, for charts and captions: "tench (n01440764)"."""
    names = names_of_wnids().get(class_name)
    return f"{names.split(',')[0]} ({class_name})" if names else class_name
