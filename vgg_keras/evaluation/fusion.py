"""Fusion of nets: the mean of their posteriors (§4.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vgg_keras.errors import PredictionsError
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.metadata import PROVENANCE_KEY, shared
from vgg_keras.pipelines.checks import are_same_names, first_few, indices_of


def fuse(predictions: Sequence[Predictions]) -> Predictions:
    """Averages the posteriors of several nets for the same images (§4.4).

    A fusion among the predictions is weighted by its number of nets, so that every net has the same
    weight.

    Raises:
        PredictionsError: there are fewer than two predictions, or their classes, images or labels
            differ.

    Example:
        fuse([evaluate(d, data), evaluate(e, data)]).result()
    """
    if len(predictions) < 2:
        raise PredictionsError(
            f"Fusion takes two or more predictions. Received: {len(predictions)}"
        )
    first = predictions[0]
    total = np.zeros_like(first.posteriors)
    for one in predictions:
        total += np.float32(len(one.members)) * one.posteriors[_rows_of(first, one)]
    nets = [
        {key: value for key, value in net.items() if key != PROVENANCE_KEY}
        for one in predictions
        for net in one.members
    ]
    metadata = {"members": nets, "protocol": "mixed", **shared(nets, _SHARED)}
    return Predictions(
        first.names, first.labels, total / np.float32(len(nets)), first.class_names, metadata
    )


_SHARED = ("protocol", "data", "split", "skipped", "seed")


def _rows_of(first: Predictions, other: Predictions) -> np.ndarray:
    """Rows of `other` in the order of the images of `first`."""
    if not are_same_names(other.class_names, first.class_names):
        raise PredictionsError(
            f"Predictions of different classes cannot be fused: {first.net_names} has "
            f"{len(first.class_names)} ({first_few(first.class_names)}), {other.net_names} "
            f"{len(other.class_names)} ({first_few(other.class_names)})."
        )

    def differ(name: str) -> PredictionsError:
        return PredictionsError(
            f"Predictions of different validation sets cannot be fused: {first.net_names} has "
            f"{len(first)} images, {other.net_names} {len(other)}; only one of them has {name}."
        )

    rows = indices_of(first.names, other.names, differ)
    if len(other) > len(first):
        raise differ(min(set(other.names) - set(first.names)))
    relabelled = np.flatnonzero(other.labels[rows] != first.labels)
    if len(relabelled):
        i = relabelled[0]
        ours, others = (
            first.class_names[label] if label >= 0 else "unlabelled"
            for label in (first.labels[i], other.labels[rows[i]])
        )
        raise PredictionsError(
            f"Predictions with different labels cannot be fused: {first.names[i]} is "
            f"{ours} for {first.net_names} and {others} for {other.net_names}."
        )
    return rows
