"""Scores a run on the central crop of every image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np

from pipelines.evaluation import centre_crops
from pipelines.screening import naming_bad_images
from pipelines.sources import SourceError, Split
from vgg_keras.evaluation.metrics import ErrorCount
from vgg_keras.runs import Run


def centre_posteriors(
    run: Run, split: Split, test_scales: Sequence[int], batch_size: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Soft-max posteriors of central crops, averaged over the test scales.

    Yields:
        (float32 `(B, classes)`, int64 labels `(B,)`) for every picture once, in order.
    """
    batches = centre_crops(
        split,
        crop_size=run.recipe.crop_size,
        test_scales=test_scales,
        batch_size=batch_size,
        mean=run.statistics.mean,
    )
    for crops, labels in batches:
        flat = keras.ops.reshape(crops, (-1, *crops.shape[2:]))  # (B * scales, h, w, 3)
        posteriors = keras.ops.softmax(run.model.predict_on_batch(flat))
        by_scale = keras.ops.reshape(posteriors, (-1, len(test_scales), posteriors.shape[-1]))
        yield keras.ops.convert_to_numpy(keras.ops.mean(by_scale, 1)), labels.numpy()


def evaluate_centre(
    run: Run,
    split: Split,
    class_names: Sequence[str],
    test_scales: Sequence[int] = (),
    batch_size: int = 64,
) -> dict:
    """Errors of a run on a split.

    Args:
        run: what to score.
        split: pictures.
        class_names: of the split's data set; they must be the run's.
        test_scales: Q; by default the scale of training, or the middle of its range (§4.1).
        batch_size: has no influence on the result.

    Returns:
        `top1_error` and `top5_error` in percent, `images`, `protocol`, `test_scales`, and the
        run's `net`, `train_scale` and path.

    Raises:
        SourceError: the classes are not those of the run.
    """
    if tuple(class_names) != run.class_names:
        raise SourceError(
            f"The data have other classes than the run {run.path} was trained on: "
            f"{len(class_names)} ({', '.join(class_names[:3])}, ...) against "
            f"{len(run.class_names)} ({', '.join(run.class_names[:3])}, ...)."
        )
    scales = list(test_scales) or [run.recipe.validation_scale]
    count = ErrorCount()
    with naming_bad_images(split):
        for posteriors, labels in centre_posteriors(run, split, scales, batch_size):
            count.add(posteriors, labels)
    return {
        "run": str(run.path),
        "net": run.recipe.net,
        "train_scale": list(run.recipe.train_scale),
        "protocol": "centre",
        "test_scales": scales,
        "images": count.images,
        "top1_error": count.top1_error,
        "top5_error": count.top5_error,
    }
