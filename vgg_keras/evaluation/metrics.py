"""Top-1 and top-5 error, in percent (§4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def ranks(posteriors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Number of classes that rank above the true one, int64 `(B,)`; 0 if it is the first.

    A class tied with the true one ranks above it only if its index is lower, as in a stable sort.

    Args:
        posteriors: posteriors or scores, `(B, classes)`. NaN for the true class ranks last.
        labels: true classes, `(B,)`.
    """
    true = posteriors[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(posteriors.shape[1])[None] < labels[:, None]
    above = ((posteriors > true) | ((posteriors == true) & earlier)).sum(1)
    return np.where(np.isnan(true[:, 0]), posteriors.shape[1], above)


@dataclass
class ErrorCount:
    """Counts errors over batches of posteriors, see `ranks`."""

    images: int = 0
    top1_errors: int = 0
    top5_errors: int = 0

    def add(self, posteriors: np.ndarray, labels: np.ndarray) -> None:
        """Counts a batch of posteriors or scores `(B, classes)` with labels `(B,)`."""
        rank = ranks(posteriors, labels)
        self.images += len(labels)
        self.top1_errors += int((rank >= 1).sum())
        self.top5_errors += int((rank >= 5).sum())

    @property
    def top1_error(self) -> float:
        """Percent of the images whose class is not the most probable one."""
        return 100.0 * self.top1_errors / max(self.images, 1)

    @property
    def top5_error(self) -> float:
        """Percent of the images whose class is not among the five most probable ones."""
        return 100.0 * self.top5_errors / max(self.images, 1)
