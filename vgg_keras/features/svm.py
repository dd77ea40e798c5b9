"""Scores of features by linear SVMs on another data set (Appendix B)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vgg_keras.errors import ArgumentError, FeaturesError
from vgg_keras.features.average_precision import average_precision, class_recalls
from vgg_keras.features.protocols import (
    C_GRID,
    CUSTOM,
    MEAN_AP,
    SELECTION_SHARE,
    TRANSFER_PROTOCOLS,
    Protocol,
    custom_protocol,
)
from vgg_keras.features.recognised import recognised
from vgg_keras.features.table import Features
from vgg_keras.pipelines.checks import check_at_least, check_choice

if TYPE_CHECKING:  # scikit-learn is imported when the first SVM is trained
    from sklearn.svm import LinearSVC

log = logging.getLogger(__name__)

_ITERATIONS = 5000  # of liblinear; its default of 1000 is too few for large C


class Subsets(NamedTuple):
    """Row indices of the images to train on, of those that select C, and of those to test on."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def transfer(
    features: Features,
    protocol: str,
    *,
    train_per_class: int | None = None,
    test_per_class: int | None = None,
    splits: int | None = None,
    grid: Sequence[float] = C_GRID,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores features by how well linear SVMs recognise classes from them (§B).

    The validation images select C from `grid`; ties select the smallest. The final classifiers are
    trained on the training and the validation images.

    Args:
        features: from `extract_features` or `Features.load`.
        protocol: a name of `TRANSFER_PROTOCOLS`, or "custom", see `custom_protocol`.
        train_per_class, test_per_class, splits: numbers for random splits, in place of those of
            the protocol.
        grid: regularisation constants C to choose from. A single C is used without a selection.
        seed: seed of the random splits and of liblinear.

    Returns:
        A dictionary for JSON: `mean_ap` or `mean_class_recall` in percent, the mean over splits;
        `spread`, the standard deviation over splits, None for a single one; `of_splits`;
        `per_class`; `C` of each split; `train_images`, `images`; the metadata of the features. With
        `mean_class_recall`, `recognised` says which test images were recognised.

    Raises:
        FeaturesError: splits or images that the protocol needs are missing, or images have several
            labels and the protocol needs one.
        ArgumentError: an argument has a value that is not allowed.

    Example:
        transfer(Features.load("caltech.parquet"), "caltech101")["mean_class_recall"]
    """
    plan = _plan(features, protocol, train_per_class, test_per_class, splits)
    grid = sorted_grid(grid)
    drawn = list(split_images(features, plan, seed, selecting=len(grid) > 1))
    selected = [select_c(features, plan, subsets, grid, seed) for subsets in drawn]
    measured = [
        _measured(features, plan, np.concatenate(subsets[:2]), subsets.test, c, seed)
        for subsets, c in zip(drawn, selected, strict=True)
    ]
    table = 100 * np.array([of_classes for of_classes, _ in measured])
    means = np.nanmean(table, 1)
    return {
        "protocol": protocol,
        plan.measure: float(means.mean()),
        "spread": float(means.std(ddof=1)) if len(means) > 1 else None,
        "of_splits": means.tolist(),
        "C": selected,
        **_tested_on(features, plan, drawn[0]),
        "seed": seed,
        "per_class": _per_class(features, plan, table),
        "dimensions": features.values.shape[1],
        "features": features.metadata,
        **recognised(features, [subsets.test for subsets in drawn], [one for _, one in measured]),
    }


def _tested_on(features: Features, plan: Protocol, subsets: Subsets) -> dict[str, Any]:
    """The images of a split, for the result."""
    return {
        "train_images": len(subsets.train) + len(subsets.validation),
        "images": len(subsets.test),
        "train_per_class": plan.train_per_class or None,
        "data": features.metadata.get("data", "?"),
        "split": "+".join(plan.test) or "random",
    }


def sorted_grid(grid: Sequence[float]) -> list[float]:
    """The constants C in ascending order, so that ties select the smallest."""
    found = sorted(float(c) for c in grid)
    if not found or found[0] <= 0:
        raise ArgumentError(f"grid must be one or more positive numbers. Received: {found}", "grid")
    return found


def _per_class(features: Features, plan: Protocol, table: np.ndarray) -> dict[str, float]:
    """The mean over splits of each class that has a value; a warning names the others."""
    is_empty = np.isnan(table).all(0).tolist()
    columns = list(zip(features.class_names, table.T, is_empty, strict=True))
    untested = [name for name, _, empty in columns if empty and name not in plan.unscored]
    if untested:
        log.warning("ignored, because no test image has the class: %s", ", ".join(untested))
    return {name: float(np.nanmean(column)) for name, column, empty in columns if not empty}


def _plan(
    features: Features,
    protocol: str,
    train_per_class: int | None,
    test_per_class: int | None,
    splits: int | None,
) -> Protocol:
    """The protocol, with the numbers that are given in place of its own."""
    check_choice("protocol", protocol, (*TRANSFER_PROTOCOLS, CUSTOM))
    numbers = {
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "splits": splits,
    }
    given: dict[str, Any] = {name: n for name, n in numbers.items() if n is not None}
    if protocol == CUSTOM:
        one_label = bool((features.targets == 1).sum(1).max(initial=0) == 1)
        # A number of training images asks for random splits.
        existing: set[str] = set() if "train_per_class" in given else set(features.splits)
        plan = custom_protocol(existing, one_label and not (features.targets == 0).any())
    else:
        plan = TRANSFER_PROTOCOLS[protocol]
    if plan.train and given:
        raise ArgumentError(
            f"{', '.join(given)} must not be given without random splits; {protocol} trains on "
            f"{', '.join(plan.train)} and tests on {', '.join(plan.test)}. Received: "
            f"{', '.join(f'{name}={n}' for name, n in given.items())}",
            next(iter(given)),
        )
    for name, value in given.items():
        check_at_least(name, value, 1)
    if not plan.train and plan.measure == MEAN_AP:
        raise FeaturesError(
            "Random splits are drawn class by class, so every image must have one label."
        )
    return replace(plan, **given)


def split_images(
    features: Features, plan: Protocol, seed: int = 0, *, selecting: bool = True
) -> Iterator[Subsets]:
    """The subsets of each split of a protocol: disjoint, and the same for the same seed.

    Args:
        features: features of the images.
        plan: the protocol.
        seed: seed of the random splits.
        selecting: whether C is selected; if not, no training images are held back for it.

    Raises:
        FeaturesError: a split is missing, or a class has too few images.
    """
    if plan.train:
        yield _by_named_splits(features, plan, np.random.default_rng([seed, 0]), selecting)
        return
    labels = features.labels
    counts = np.bincount(labels, minlength=len(features.class_names))
    if counts.min() < plan.train_per_class + 1:
        raise FeaturesError(
            f"Every class must have {plan.train_per_class} images to train on and 1 to test on. "
            f"Received: {features.class_names[counts.argmin()]} has {counts.min()}. Give a smaller "
            f"train_per_class."
        )
    for k in range(plan.splits):
        rng = np.random.default_rng([seed, k])
        drawn = [rng.permutation(np.flatnonzero(labels == c)) for c in range(len(counts))]
        train, held = plan.train_per_class, _held_back(plan.train_per_class) if selecting else 0
        end = None if plan.test_per_class is None else train + plan.test_per_class
        yield Subsets(
            np.concatenate([indices[held:train] for indices in drawn]),
            np.concatenate([indices[:held] for indices in drawn]),
            np.concatenate([indices[train:end] for indices in drawn]),
        )


def _held_back(count: int) -> int:
    """How many of `count` training images select C."""
    if count < 2:
        raise FeaturesError(
            f"To select C, at least two training images for each class are needed; or give a "
            f"single C. Received: {count}"
        )
    return max(1, round(SELECTION_SHARE * count))


def _by_named_splits(
    features: Features, plan: Protocol, rng: np.random.Generator, selecting: bool
) -> Subsets:
    """The subsets of a protocol that uses the splits of the data."""
    splits = np.array(features.splits)
    wanted = (*plan.train, *plan.validation, *plan.test)
    if not set(wanted) <= set(features.splits):
        existing = ", ".join(dict.fromkeys(features.splits))
        raise FeaturesError(
            f"The protocol needs images of the splits {', '.join(wanted)}. Received: {existing}"
        )
    train, validation, test = (
        np.flatnonzero(np.isin(splits, names)) for names in (plan.train, plan.validation, plan.test)
    )
    if selecting and not plan.validation:
        mixed = rng.permutation(train)
        held = _held_back(len(train))
        train, validation = np.sort(mixed[held:]), np.sort(mixed[:held])
    return Subsets(train, validation, test)


def select_c(
    features: Features, plan: Protocol, subsets: Subsets, grid: Sequence[float], seed: int
) -> float:
    """The C whose classifiers score best on the validation images; a single C as it is."""
    if len(grid) == 1:
        return grid[0]
    best, selected = -1.0, grid[0]
    for c in grid:
        of_classes, _ = _measured(features, plan, subsets.train, subsets.validation, c, seed)
        mean = float(np.nanmean(of_classes)) if not np.isnan(of_classes).all() else 0.0
        if mean > best:
            best, selected = mean, c
    return selected


def _measured(
    features: Features, plan: Protocol, train: np.ndarray, test: np.ndarray, c: float, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Trains and tests classifiers.

    Returns:
        AP or recall of each class, float64 `(classes,)`; NaN for a class without test images. With
        recall, whether each test image was recognised, bool `(len(test),)`, else None.
    """
    values, classes = features.values, features.class_names
    if plan.measure != MEAN_AP:
        labels = features.labels
        if len(np.unique(labels[train])) < 2:
            raise FeaturesError("Images of at least two classes are needed to train on.")
        predicted = _fitted(values[train], labels[train], c, seed).predict(values[test])
        recalls = class_recalls(predicted, labels[test], len(classes))
        return recalls, predicted == labels[test]
    found = np.full(len(classes), np.nan)
    for k, name in enumerate(classes):
        if name not in plan.unscored:
            svm = fitted_for_class(features, k, train, c, seed)
            scores = svm.decision_function(values[test]) if svm else np.zeros(len(test))
            found[k] = average_precision(scores, features.targets[test, k], plan.rule)
    return found, None


def fitted_for_class(
    features: Features, k: int, train: np.ndarray, c: float, seed: int
) -> LinearSVC | None:
    """The classifier of class `k` against the rest.

    Images in which the class is difficult are not trained on. The result is None if all others have
    the class, or none has it.
    """
    targets = features.targets[train, k]
    train, targets = train[targets != 0], targets[targets != 0]
    if len(np.unique(targets)) < 2:
        return None
    return _fitted(features.values[train], targets, c, seed)


def _fitted(values: np.ndarray, labels: np.ndarray, c: float, seed: int) -> LinearSVC:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    svm = LinearSVC(C=c, max_iter=_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        svm.fit(values, labels)
    if svm.n_iter_ >= _ITERATIONS:
        log.info("liblinear stopped after %d iterations at C = %g", _ITERATIONS, c)
    return svm
