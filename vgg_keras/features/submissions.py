"""Submission files of PASCAL VOC, as its evaluation server takes them (Appendix B).

A submission is a folder with one file for each class, COMPETITION_test_CLASS.txt. A line has the
identifier of a test image, which is its file name without suffix, and the score of the class. For
actions the number of the person among the objects of the image stands between them. The form is
that of the development kit of VOC 2012 (Everingham & Winn, 2012, §3.3 and §6.3). `comp2_cls` and
`comp10_action` are the competitions of methods that are trained on other data too, here on the data
of the net.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vgg_keras.errors import FeaturesError
from vgg_keras.features.protocols import ACTION, C_GRID, TRANSFER_PROTOCOLS, Protocol
from vgg_keras.features.svm import fitted_for_class, select_c, sorted_grid, split_images
from vgg_keras.features.table import Features
from vgg_keras.pipelines.checks import check_choice, first_few, indices_of
from vgg_keras.pipelines.files import atomic_write

_TEST = "test"
_FILE_NAME = re.compile(r"(?:.*/)?([^/#\s]+)\.[A-Za-z]{3,4}(?:#([0-9]+))?")
_CLASS_NAME = re.compile(r"[\w-]+")
# Metadata of a member that decide its descriptors, but not where the net was when it made them.
_DECISIVE = (
    "net",
    "layer",
    "digest",
    "mean",
    "pool_rounding",
    "precision",
    "test_scales",
    "aggregate",
    "flip",
    "region",
)


def save_submission(
    folder: str | os.PathLike,
    features: Features,
    protocol: str,
    test: Features | None = None,
    *,
    image_set: str | os.PathLike | None = None,
    grid: Sequence[float] = C_GRID,
    seed: int = 0,
) -> dict[str, Any]:
    """Trains linear SVMs on all labelled images, and writes their scores for test images.

    C is selected as in `transfer` with the same protocol. The classifiers are then trained on the
    splits `train` and `val`.

    Args:
        folder: folder of the submission; files of other names in it are left as they are.
        features: features of the labelled images.
        protocol: a protocol of VOC: "voc2007", "voc2012" or "voc2012-action".
        test: features of the test images, computed in the same way; their labels are not used. By
            default those of the split `test` of `features`.
        image_set: list of the test images, such as `ImageSets/Main/test.txt`: one line for each,
            with its identifier, for actions also the number of the person. It decides which images
            are written, and their order; by default all in alphabetical order.
        grid, seed: see `transfer`.

    Returns:
        A dictionary for JSON: the folder as `submission`, and those keys of `transfer` that are no
        measure.

    Raises:
        FeaturesError: splits, classes or images are missing; the features were computed in other
            ways; or the file names of the test images are missing or not distinct.
        ArgumentError: an argument has a value that is not allowed.
        WriteError: a file cannot be written.

    Example:
        save_submission("results/VOC2012/Main", trainval_features, "voc2012", test_features)
    """
    plan = _labelled_only(protocol)
    grid = sorted_grid(grid)
    (subsets,) = split_images(features, plan, seed, selecting=len(grid) > 1)
    train = np.concatenate(subsets)
    test = features.of_split(_TEST) if test is None else test
    _check_same_procedure(features, test)
    rows, ids = _listed(test, plan.competition == ACTION, image_set)
    _check_unseen(ids, [features.names[row] for row in train])
    c = select_c(features, plan, subsets, grid, seed)
    _write(Path(folder), plan, ids, _scores(features, plan, train, test.values[rows], c, seed))
    return {
        "protocol": protocol,
        "submission": str(folder),
        "C": [c],
        "train_images": len(train),
        "images": len(ids),
        "data": test.metadata.get("data", "?"),
        "seed": seed,
        "dimensions": test.values.shape[1],
        "features": features.metadata,
    }


def _labelled_only(protocol: str) -> Protocol:
    """The protocol without the test set, whose labels are never trained on."""
    allowed = [name for name, plan in TRANSFER_PROTOCOLS.items() if plan.competition]
    check_choice("protocol", protocol, allowed)
    plan = TRANSFER_PROTOCOLS[protocol]
    return replace(plan, test=tuple(name for name in plan.test if name != _TEST))


def _scores(
    features: Features, plan: Protocol, train: np.ndarray, values: np.ndarray, c: float, seed: int
) -> dict[str, np.ndarray]:
    """The scores of each class for the test images."""
    wanted = [(k, name) for k, name in enumerate(features.class_names) if name not in plan.unscored]
    unnamed = [name for _, name in wanted if not _CLASS_NAME.fullmatch(name)]
    if unnamed:
        raise FeaturesError(
            f"Classes of a submission are parts of file names: letters, digits, _ and -. Received: "
            f"{first_few(unnamed)}"
        )
    found = {}
    for k, name in wanted:
        svm = fitted_for_class(features, k, train, c, seed)
        if svm is None:
            raise FeaturesError(
                f"Each class needs images to train on that have it and others that do not. "
                f"Received: {name}"
            )
        found[name] = svm.decision_function(values)
    return found


def _write(folder: Path, plan: Protocol, ids: Sequence[str], scores: dict[str, np.ndarray]) -> None:
    for name, of_class in scores.items():
        lines = [f"{one} {float(score)!r}\n" for one, score in zip(ids, of_class, strict=True)]
        atomic_write(folder / f"{plan.competition}_test_{name}.txt", "".join(lines))


def _check_same_procedure(features: Features, test: Features) -> None:
    """Raises FeaturesError if test images were not described as those to train on were."""
    rule = "Features of test images must be computed as those to train on."
    some, others = features.members, test.members
    if len(some) != len(others):
        raise FeaturesError(f"{rule} Received: {len(some)} and {len(others)} stacked")
    for one, other in zip(some, others, strict=True):
        for key in _DECISIVE:
            if key in one and key in other and one[key] != other[key]:
                raise FeaturesError(f"{rule} Received: {key} {one[key]} and {other[key]}")
    if features.values.shape[1] != test.values.shape[1]:
        sizes = f"{features.values.shape[1]} and {test.values.shape[1]}"
        raise FeaturesError(f"{rule} Received: {sizes} dimensions")


def _listed(
    test: Features, with_objects: bool, image_set: str | os.PathLike | None
) -> tuple[np.ndarray, list[str]]:
    """Row indices of the test images to write, and their identifiers."""
    ids = _ids(test.names, with_objects)
    if image_set is not None:
        listed = _read_image_set(Path(image_set), with_objects)
    elif skipped := test.metadata.get("skipped"):
        raise FeaturesError(
            f"A submission needs all images, and some could not be read: {first_few(skipped)}."
        )
    else:
        listed = sorted(ids)

    def missing(one: str) -> FeaturesError:
        return FeaturesError(f"{image_set} lists {one}, which has no features.")

    return indices_of(listed, ids, missing), listed


def _ids(names: Sequence[str], with_objects: bool) -> list[str]:
    """The identifier of each image, and of a person in it."""
    found = [_FILE_NAME.fullmatch(name) for name in names]
    unnamed = [
        name
        for name, match in zip(names, found, strict=True)
        if match is None or bool(match[2]) != with_objects
    ]
    ids = [" ".join(filter(None, match.groups())) for match in found if match]
    shared = [one for one, count in Counter(ids).items() if count > 1]
    of_person = " and the number of a person, as voc-action: has them" if with_objects else ""
    for wrong in filter(None, (unnamed, shared)):
        raise FeaturesError(
            f"Test images must have different file names{of_person}. Received: {first_few(wrong)}"
        )
    return ids


def _read_image_set(file: Path, with_objects: bool) -> list[str]:
    """The identifiers that a list names."""
    fields = 2 if with_objects else 1
    text = file.read_bytes().decode("utf-8-sig", "replace")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or any(len(line) < fields for line in lines):
        what = "an image name and an object number" if with_objects else "an image name"
        raise FeaturesError(f"Each line of {file} must have {what}.")
    return [" ".join(line[:fields]) for line in lines]


def _check_unseen(ids: Sequence[str], trained: Sequence[str]) -> None:
    """Raises FeaturesError if an image is both trained and tested on."""
    stems = {match[1] for name in trained if (match := _FILE_NAME.fullmatch(name))}
    seen = [one for one in ids if one.split()[0] in stems]
    if seen:
        raise FeaturesError(f"Test images must not be trained on. Received: {first_few(seen)}")
