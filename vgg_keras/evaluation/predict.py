"""What a run says of single pictures, whose classes nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgg_keras.evaluation.evaluate import conditions, plan, score
from vgg_keras.evaluation.predictions import TOP, top_classes
from vgg_keras.pipelines.checks import first_few
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.runs import Run


@dataclass(frozen=True, eq=False)
class Predicted:
    """Posteriors of a net for pictures without labels.

    Attributes:
        names: paths of the pictures, as they were given.
        posteriors: float32 `(N, classes)`; rows sum to 1.
        class_names: of the columns.
        about: of which net, and how; what can be written as JSON. `skipped` names the pictures
            that could not be read, if there are any.
    """

    names: tuple[str, ...]
    posteriors: np.ndarray
    class_names: tuple[str, ...]
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.names)

    def top(self, k: int = TOP) -> tuple[np.ndarray, np.ndarray]:
        """The k most probable classes, best first: indices and posteriors, `(N, k)` each."""
        return top_classes(self.posteriors, k)


def predict(
    run: Run,
    images: Any,
    *,
    protocol: str = "dense",
    test_scales: Sequence[int] | None = None,
    multi_scale: bool = False,
    flip: bool | None = None,
    map_average: str = "scores",
    batch_size: int = 64,
    on_bad_image: str = "stop",
) -> Predicted:
    """Posteriors of a run for some pictures (§3.2).

    Args:
        run: from `load_run`.
        images: images in any form that `as_split` takes, such as paths of JPEG, PNG, GIF or BMP
            files; the result has one row for each.
        protocol, test_scales, multi_scale, flip, map_average: see `evaluate`.
        batch_size, on_bad_image: see `PassRunner`.

    Raises:
        SourceError: an image is not a file, or no image can be read.
        BadImageError, ValueError, MemoryError: see `PassRunner.posteriors`.
    """
    pictures = as_split(images)
    passes = plan(run.recipe, protocol, test_scales, multi_scale, flip, map_average)
    places, posteriors, skipped = score(
        run, pictures, passes, batch_size=batch_size, on_bad_image=on_bad_image
    )
    if not len(places):
        raise SourceError(f"None of the images can be read: {first_few(skipped)}.")
    metadata = conditions(run, passes, protocol, map_average, skipped)
    return Predicted(tuple(pictures.names_of(places)), posteriors, run.class_names, metadata)
