"""How often the intervals of paired differences hold the true gain, by simulation.

    python benchmarks/intervals.py

Prints a Markdown table. Beside the intervals of `paired_difference` are those of a percentile
bootstrap that draws seeds and images together.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import numpy as np

from vgg_keras.reproduction.paired import paired_difference

GAIN = 0.01
SEEDS, IMAGES, EFFECTS = (1, 2, 3, 5), (200, 2000), (0, 0.005, 0.02)


def simulated(
    rng: np.random.Generator,
    seeds: int,
    images: int,
    gain: float | np.ndarray,
    of_seeds: float,
    runs: int,
) -> np.ndarray:
    """Gains of images, -1, 0 or 1, `(runs, seeds, images)`, whose expectation is `gain`.

    The sides differ on a tenth of the images, and on half of those that are hard, a fifth of all.
    On each of these one side is better by a random amount, for all seeds. The gain of a seed has
    the standard deviation `of_seeds`.
    """
    is_hard = rng.random((runs, 1, images)) < 0.2
    of_images = np.where(is_hard, np.clip(rng.normal(0, 0.15, is_hard.shape), -0.3, 0.3), 0)
    expected = gain + rng.normal(0, of_seeds, (runs, seeds, 1)) + of_images
    differ = np.maximum(np.where(is_hard, 0.5, 0.1), abs(expected))
    drawn = rng.random((runs, seeds, images))
    return np.where(drawn < (differ + expected) / 2, 1, np.where(drawn < differ, -1, 0))


def intervals(gains: np.ndarray, groups: Sequence[int] | None = None) -> np.ndarray:
    """Our intervals, `(runs, 2)`; `groups` is the seed of each row, by default its own."""
    found = [paired_difference(np.zeros_like(one), one, groups=groups) for one in gains]
    return np.array([(one.low, one.high) for one in found]) / 100


def bootstrap_intervals(gains: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Percentile intervals of a bootstrap over seeds and images, `(runs, 2)`."""
    _, seeds, images = gains.shape
    found = []
    for one in gains:
        of_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, resamples) / seeds
        of_images = rng.multinomial(images, [1 / images] * images, resamples) / images
        means = ((of_seeds @ one) * of_images).sum(1)
        found.append(np.percentile(means, [2.5, 97.5]))
    return np.array(found)


def _cells(found: np.ndarray) -> str:
    holds = (found[:, 0] <= GAIN) & (found[:, 1] >= GAIN)
    width = 100 * np.median(found[:, 1] - found[:, 0])
    return f"{100 * holds.mean():.1f} % | {width:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--bootstrap-runs", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args()
    print("| seeds | images | s.d. of seeds | coverage | width | bootstrap: coverage | width |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    rng = np.random.default_rng(0)
    for seeds, images, effect in itertools.product(SEEDS, IMAGES, EFFECTS):
        if seeds == 1 and effect:
            continue  # the interval of one seed does not speak of others
        gains = simulated(rng, seeds, images, GAIN, effect, options.runs)
        plain = bootstrap_intervals(gains[: options.bootstrap_runs], rng, options.resamples)
        cells = f"| {seeds} | {images} | {100 * effect:g} | {_cells(intervals(gains))} "
        print(f"{cells}| {_cells(plain)} |", flush=True)


if __name__ == "__main__":
    main()
