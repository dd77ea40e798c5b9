"""Features judged by linear SVMs on a data set of their own (§B)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from vgg_keras.errors import FeaturesError
from vgg_keras.features.average_precision import average_precision, class_recalls
from vgg_keras.features.protocols import (
    C_GRID,
    CUSTOM,
    MEAN_AP,
    PROTOCOLS,
    SELECTION_SHARE,
    Protocol,
    custom_protocol,
)
from vgg_keras.features.table import Features

log = logging.getLogger(__name__)

_ITERATIONS = 5000  # of liblinear, whose own 1000 are too few for large C


class Parts(NamedTuple):
    """Places of the pictures that classifiers are fitted to, that choose C, and of the tested."""

    fit: np.ndarray
    select: np.ndarray
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
    """How well a linear SVM recognises classes by features, by a protocol of §B.

    C is that of the grid whose classifiers, fitted without the validation part, do best on it, of
    equals the least; then they are fitted to both parts.

    Args:
        features: from `extract` or `Features.load`.
        protocol: a name of `PROTOCOLS`, or "custom".
        train_per_class, test_per_class, splits: of random splits, in place of the protocol's.
        grid: regularisation constants; with a single one nothing is chosen.
        seed: of splits, and of liblinear.

    Returns:
        What can be written as JSON: `mean_ap` or `mean_class_recall` in percent, the mean over
        splits; `spread`, their standard deviation, None for one; `of_splits`; `per_class`, means
        over splits; `C` of each; `train_images`, `images`; and the features' own `metadata`.

    Raises:
        FeaturesError: splits or pictures that the protocol needs are missing, or pictures have
            several labels where one is needed.
        ValueError: an unknown protocol, or numbers that cannot be.
    """
    plan = _plan(features, protocol, train_per_class, test_per_class, splits)
    grid = sorted(float(c) for c in grid)
    if not grid or grid[0] <= 0:
        raise ValueError(f"grid must be positive numbers, one or more. Received: {grid}")
    drawn = list(split_pictures(features, plan, seed, choosing=len(grid) > 1))
    chosen, of_classes = [], []
    for parts in drawn:
        c = grid[0] if len(grid) == 1 else _choose(features, plan, parts, grid, seed)
        both = np.concatenate([parts.fit, parts.select])
        chosen.append(c)
        of_classes.append(_measured(features, plan, both, parts.test, c, seed))
    table = 100 * np.array(of_classes)  # (splits, classes)
    empty = [
        n for n, gone in zip(features.class_names, np.isnan(table).all(0), strict=True) if gone
    ]
    unscored = [name for name in empty if name not in plan.unscored]
    if unscored:
        log.warning("not counted, for no picture tested has them: %s", ", ".join(unscored))
    means = np.nanmean(table, 1)
    return {
        "protocol": protocol,
        plan.measure: float(means.mean()),
        "spread": float(means.std(ddof=1)) if len(means) > 1 else None,
        "of_splits": means.tolist(),
        "C": chosen,
        "train_images": len(drawn[0].fit) + len(drawn[0].select),
        "images": len(drawn[0].test),
        "train_per_class": plan.train_per_class or None,
        "data": features.metadata.get("data", "?"),
        "split": "+".join(plan.test) or "random",
        "seed": seed,
        "per_class": {
            name: float(np.nanmean(column))
            for name, column in zip(features.class_names, table.T, strict=True)
            if not np.isnan(column).all()
        },
        "dimensions": features.values.shape[1],
        "features": features.metadata,
    }


def _plan(
    features: Features,
    protocol: str,
    train_per_class: int | None,
    test_per_class: int | None,
    splits: int | None,
) -> Protocol:
    """The protocol with the numbers that are given."""
    if protocol not in (*PROTOCOLS, CUSTOM):
        raise ValueError(
            f"protocol must be one of {', '.join((*PROTOCOLS, CUSTOM))}. Received: {protocol!r}"
        )
    numbers = {
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "splits": splits,
    }
    given: dict[str, Any] = {name: n for name, n in numbers.items() if n is not None}
    if protocol == CUSTOM:
        one_label = bool((features.targets == 1).sum(1).max(initial=0) == 1)
        # Numbers of random splits are given where those are wanted.
        there: set[str] = set() if "train_per_class" in given else set(features.splits)
        plan = custom_protocol(there, one_label and not (features.targets == 0).any())
    else:
        plan = PROTOCOLS[protocol]
    if plan.train and given:
        raise ValueError(
            f"{', '.join(given)} go with random splits; {protocol} has {', '.join(plan.train)} to "
            f"train on and {', '.join(plan.test)} to test on."
        )
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more. Received: {value}")
    if not plan.train and plan.measure == MEAN_AP:
        raise FeaturesError(
            "Random splits are drawn class by class, so each picture must have one."
        )
    return replace(plan, **given)


def split_pictures(
    features: Features, plan: Protocol, seed: int = 0, *, choosing: bool = True
) -> Iterator[Parts]:
    """The parts of each split of a protocol: disjoint, and the same for the same seed.

    Args:
        choosing: whether there is anything to choose; else nothing is held back for it.

    Raises:
        FeaturesError: a split is missing, or a class has too few pictures.
    """
    if plan.train:
        yield _given_parts(features, plan, np.random.default_rng([seed, 0]), choosing)
        return
    labels = features.labels
    counts = np.bincount(labels, minlength=len(features.class_names))
    least = plan.train_per_class + 1
    if counts.min() < least:
        name = features.class_names[counts.argmin()]
        raise FeaturesError(
            f"{plan.train_per_class} pictures a class to train on and one to test on are needed; "
            f"{name} has {counts.min()}. Give fewer with --train-per-class."
        )
    for k in range(plan.splits):
        rng = np.random.default_rng([seed, k])
        drawn = [rng.permutation(np.flatnonzero(labels == c)) for c in range(len(counts))]
        train, held = plan.train_per_class, _held_back(plan.train_per_class) if choosing else 0
        end = None if plan.test_per_class is None else train + plan.test_per_class
        yield Parts(
            np.concatenate([places[held:train] for places in drawn]),
            np.concatenate([places[:held] for places in drawn]),
            np.concatenate([places[train:end] for places in drawn]),
        )


def _held_back(count: int) -> int:
    """How many of some training pictures choose C."""
    if count < 2:
        raise FeaturesError(
            f"To choose C two training pictures a class are needed, or a single C given. "
            f"Received: {count}"
        )
    return max(1, round(SELECTION_SHARE * count))


def _given_parts(
    features: Features, plan: Protocol, rng: np.random.Generator, choosing: bool
) -> Parts:
    """Parts by the data's own splits."""
    splits = np.array(features.splits)
    wanted = (*plan.train, *plan.validation, *plan.test)
    missing = [name for name in wanted if not (splits == name).any()]
    if missing:
        there = ", ".join(dict.fromkeys(features.splits))
        raise FeaturesError(
            f"The protocol needs pictures of the splits {', '.join(wanted)}. Received: {there}"
        )
    fit, select, test = (
        np.flatnonzero(np.isin(splits, names)) for names in (plan.train, plan.validation, plan.test)
    )
    if choosing and not plan.validation:
        mixed = rng.permutation(fit)
        held = _held_back(len(fit))
        fit, select = np.sort(mixed[held:]), np.sort(mixed[:held])
    return Parts(fit, select, test)


def _choose(
    features: Features, plan: Protocol, parts: Parts, grid: Sequence[float], seed: int
) -> float:
    """The C whose classifiers do best on the validation part."""
    best, chosen = -1.0, grid[0]
    for c in grid:
        of_classes = _measured(features, plan, parts.fit, parts.select, c, seed)
        mean = float(np.nanmean(of_classes)) if not np.isnan(of_classes).all() else 0.0
        if mean > best:
            best, chosen = mean, c
    return chosen


def _measured(
    features: Features, plan: Protocol, fit: np.ndarray, test: np.ndarray, c: float, seed: int
) -> np.ndarray:
    """AP or recall of each class, float64 `(classes,)`; NaN where there is none."""
    values, classes = features.values, features.class_names
    if plan.measure != MEAN_AP:
        labels = features.labels
        if len(np.unique(labels[fit])) < 2:
            raise FeaturesError("Pictures of two classes or more are needed to train on.")
        machine = _fitted(values[fit], labels[fit], c, seed)
        return class_recalls(machine.predict(values[test]), labels[test], len(classes))
    found = np.full(len(classes), np.nan)
    for k, name in enumerate(classes):
        if name not in plan.unscored:
            targets = features.targets[:, k]
            scores = _scores(values, targets, fit, test, c, seed)
            found[k] = average_precision(scores, targets[test], plan.rule)
    return found


def _scores(values, targets, fit, test, c: float, seed: int) -> np.ndarray:
    """Of one class against the rest; difficult pictures are not trained on."""
    fit = fit[targets[fit] != 0]
    kinds = np.unique(targets[fit])
    if len(kinds) < 2:  # nothing to tell apart
        return np.zeros(len(test))
    return _fitted(values[fit], targets[fit], c, seed).decision_function(values[test])


def _fitted(values: np.ndarray, labels: np.ndarray, c: float, seed: int):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    machine = LinearSVC(C=c, max_iter=_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(values, labels)
    if machine.n_iter_ >= _ITERATIONS:
        log.info("liblinear stopped after %d iterations at C = %g", _ITERATIONS, c)
    return machine
