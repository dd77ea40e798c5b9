"""Top-1 and top-5 error, in percent (§4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class ErrorCount:
    """Counts errors over batches of posteriors.

    A class tied with the true one ranks above it only if its index is lower, as in a stable sort.
    """

    images: int = 0
    top1_errors: int = 0
    top5_errors: int = 0

    def add(self, posteriors: np.ndarray, labels: np.ndarray) -> None:
        """Counts a batch of posteriors or scores `(B, classes)` with labels `(B,)`."""
        rows = np.arange(len(labels))
        true = posteriors[rows, labels][:, None]
        earlier = np.arange(posteriors.shape[1])[None] < labels[:, None]
        rank = ((posteriors > true) | ((posteriors == true) & earlier)).sum(1)
        rank = np.where(np.isnan(true[:, 0]), posteriors.shape[1], rank)  # NaN is never right
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
