"""Fills tables that have one row for each image of a split.

A row is a posterior, a descriptor or a set of boxes. What computes it is passed in; showing the
images, batching, progress, caching and errors are the same for all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from vgg_keras.errors import ArgumentError, OutOfMemoryError
from vgg_keras.evaluation.meter import Meter
from vgg_keras.evaluation.procedure import VIEWS
from vgg_keras.forward import is_out_of_memory
from vgg_keras.pipelines.checks import check_at_least, check_choice, check_test_scale, first_few
from vgg_keras.pipelines.evaluation import grid_crops, whole_images
from vgg_keras.pipelines.screening import naming_bad_images
from vgg_keras.pipelines.splits import Split
from vgg_keras.recipes import BAD_IMAGE_POLICIES

_CHUNK = 512  # images that go through all passes before their rows are combined

# From views, float32 (B, V, H, W, 3) with RGB in 0..255, and the indices of their images in the
# split, int64 (B,), to the mean row over the views, (B, ...).
Score = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True, eq=False)
class RowPass:
    """A pass over all images in one form, and the function that computes the rows.

    Attributes:
        name: for progress.
        views: a name of `VIEWS`.
        test_scale: Q.
        flip: whether `score` shows the mirror image too, which doubles the memory of a batch.
        crop_size: side of a crop in pixels, and the smallest side that `score` takes.
        score: computes the rows.
        precision: dtype policy of the net, for messages.
        devices: number of devices that share a batch.
    """

    name: str
    views: str
    test_scale: int
    flip: bool
    crop_size: int
    score: Score
    precision: str = "float32"
    devices: int = 1

    @property
    def cost(self) -> float:
        """Pixels of an image that the net sees, by its smaller side; for the time left."""
        pixels = VIEWS[self.views].grid ** 2 * self.crop_size**2 or self.test_scale**2
        return float(pixels * (1 + self.flip))


@dataclass(frozen=True, eq=False)
class Table:
    """Rows to fill, and how.

    Attributes:
        rows: float32 `(images, ...)`, in memory or in a file.
        is_done: from the rows to bool `(images,)`, which of them are complete.
        passes: how a row is computed. Tables that are filled together can share a pass, which is
            computed once, if they have `combine`.
        combine: from the rows of an image, one for each pass, to its row in the table; not needed
            for a single pass.
    """

    rows: np.ndarray
    is_done: Callable[[np.ndarray], np.ndarray]
    passes: Sequence[RowPass]
    combine: Callable[[list[np.ndarray]], np.ndarray] | None = None


class RowFiller:
    """Fills tables with rows for the images of a split.

    Args:
        split: images.
        batch_size: number of crops that pass through the net together on a device; whole images
            are batched up to as many pixels. It does not change the result.
        on_bad_image: "stop", or "skip" to leave a row of NaN for an image that cannot be read.
        verbose: 0 for no progress; 1 or "auto" for a bar on a terminal and lines elsewhere.

    Raises:
        ArgumentError: an argument has a value that is not allowed.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int = 64,
        on_bad_image: str = "stop",
        verbose: int | str = "auto",
    ):
        check_at_least("batch_size", batch_size, 1)
        check_choice("on_bad_image", on_bad_image, BAD_IMAGE_POLICIES)
        self.split = split
        self.batch_size = batch_size
        self.on_bad_image = on_bad_image
        self.verbose = verbose

    def fill(self, tables: Sequence[Table]) -> None:
        """Computes the rows that are not complete yet.

        Raises:
            BadImageError: an image cannot be read, and `on_bad_image` is "stop".
            ArgumentError: a scale is below the crop size, or a net gives NaN or Inf.
            OutOfMemoryError: a batch does not fit; the message says what would.
        """
        for one in (one for table in tables for one in table.passes):
            check_test_scale(one.test_scale, one.crop_size)
        to_do = {table: ~table.is_done(table.rows) for table in tables}
        wanted = {one: np.zeros(len(self.split), bool) for table in tables for one in table.passes}
        for table, rows in to_do.items():
            for one in table.passes:
                wanted[one] |= rows
        total = sum(one.cost * rows.sum() for one, rows in wanted.items())
        combined = [table for table in tables if table.combine]
        with Meter(total, self.verbose) as meter:
            for table in tables:
                if table not in combined:
                    self._fill_directly(table, to_do[table], meter)
            if combined:
                self._fill_in_chunks({table: to_do[table] for table in combined}, wanted, meter)

    def _fill_directly(self, table: Table, wanted: np.ndarray, meter: Meter) -> None:
        (one,) = table.passes
        if wanted.any():
            for indices, rows in self._computed(one, wanted, meter):
                table.rows[indices] = rows

    def _fill_in_chunks(
        self, to_do: Mapping[Table, np.ndarray], wanted: Mapping[RowPass, np.ndarray], meter: Meter
    ) -> None:
        """All passes of some images, then the next images, so that a kill costs one chunk."""
        passes = dict.fromkeys(one for table in to_do for one in table.passes)
        indices_to_do = np.flatnonzero(np.any(list(to_do.values()), 0))
        for first in range(0, len(indices_to_do), _CHUNK):
            in_chunk = np.zeros(len(self.split), bool)
            in_chunk[indices_to_do[first : first + _CHUNK]] = True
            found = {one: self._by_index(one, wanted[one] & in_chunk, meter) for one in passes}
            for table, rows in to_do.items():
                assert table.combine is not None
                for index in np.flatnonzero(rows & in_chunk).tolist():
                    parts = [found[one][index] for one in table.passes if index in found[one]]
                    if len(parts) == len(table.passes):
                        table.rows[index] = table.combine(parts)

    def _by_index(self, one: RowPass, wanted: np.ndarray, meter: Meter) -> dict[int, np.ndarray]:
        """The rows of the wanted images that can be read, by index."""
        found: dict[int, np.ndarray] = {}
        if wanted.any():
            for indices, rows in self._computed(one, wanted, meter):
                found.update(zip(indices.tolist(), rows, strict=True))
        return found

    def _computed(
        self, one: RowPass, wanted: np.ndarray, meter: Meter
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices `(B,)` and rows `(B, ...)` of the wanted images, batch by batch."""
        meter.start(one.name, int(wanted.sum()), one.cost)
        at_once = max(1, self.batch_size // (1 + one.flip))
        for indices, views in self._batches(one, wanted):
            parts = [views[:, i : i + at_once] for i in range(0, views.shape[1], at_once)]
            with self._explaining_memory(indices, views.shape):
                sums = [one.score(part, indices).numpy() * part.shape[1] for part in parts]
            rows = sum(sums) / np.float32(views.shape[1])
            self._refuse_infinite(one, indices.numpy(), rows)
            yield indices.numpy(), rows
            meter.advance(len(indices))
        meter.finish()

    def _batches(self, one: RowPass, wanted: np.ndarray) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        # A generator: errors of the code that uses a batch are not taken for those of an image.
        with naming_bad_images(self.split):
            yield from self.stream(one, wanted)

    def stream(self, one: RowPass, wanted: np.ndarray | None = None) -> tf.data.Dataset:
        """(indices `(B,)`, pixels `(B, V, H, W, 3)`) of the wanted images."""
        grid, flips = VIEWS[one.views].grid, 1 + one.flip
        batch_size = self.batch_size * one.devices
        options: dict[str, Any] = {
            "test_scale": one.test_scale,
            "wanted": wanted,
            "skip_unreadable": self.on_bad_image == "skip",
        }
        if not grid:
            pixels = batch_size * one.crop_size**2 // flips
            return whole_images(self.split, batch_pixels=pixels, **options)
        images = max(1, batch_size // (flips * grid**2))
        return grid_crops(
            self.split, crop_size=one.crop_size, grid=grid, batch_size=images, **options
        )

    def _refuse_infinite(self, one: RowPass, indices: np.ndarray, rows: np.ndarray) -> None:
        bad = indices[~np.isfinite(rows).reshape(len(rows), -1).all(1)]
        if len(bad):
            raise ArgumentError(
                f"The net gives NaN or Inf for {self.split.names_of(bad)[0]}. Its weights "
                f"hold NaN or Inf, or overflow in {one.precision}."
            )

    @contextlib.contextmanager
    def _explaining_memory(self, indices: tf.Tensor, shape: tf.TensorShape) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            if not is_out_of_memory(error):
                raise
            b, v, h, w, _ = shape
            names = first_few(self.split.names_of(indices.numpy()))
            advice = (
                f"Give a smaller batch_size than {self.batch_size}"
                if b * v > 1 and self.batch_size > 1
                else "Remove it, or test at a smaller scale"
            )
            raise OutOfMemoryError(
                f"{b} image{'s' * (b > 1)} of {h} x {w} pixels ({v} an image) did not fit into "
                f"memory: {names}. {advice}."
            ) from error
