"""Intervals of paired differences: their coverage, and what they do when the outcomes change."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from benchmarks.intervals import intervals, simulated
from vgg_keras.reproduction.paired import paired_difference

SHAPES = st.tuples(st.integers(1, 4), st.integers(2, 12))
OUTCOMES = SHAPES.flatmap(lambda shape: st.tuples(*[arrays(bool, shape)] * 2))


def coverage(gains, truth, groups=None):
    """The share of runs whose interval holds the truth."""
    low, high = intervals(gains, groups).T
    return np.mean((low <= truth) & (truth <= high))


class TestCoverage:
    RUNS = 500
    ERROR = 3 * np.sqrt(0.95 * 0.05 / RUNS)

    @pytest.mark.parametrize("seeds", [2, 3, 5])
    @pytest.mark.parametrize("of_seeds", [0, 0.02])
    def test_other_seeds_and_images_are_covered(self, seeds, of_seeds):
        rng = np.random.default_rng(seeds)
        gains = simulated(rng, seeds, 300, 0.01, of_seeds, self.RUNS)
        assert coverage(gains, 0.01) >= 0.95 - self.ERROR

    def test_with_one_seed_other_images_are_covered_and_no_more(self):
        gains = simulated(np.random.default_rng(1), 1, 300, 0.01, 0, self.RUNS)
        assert coverage(gains, 0.01) == pytest.approx(0.95, abs=self.ERROR)

    def test_large_effects_of_seeds_are_covered_exactly(self):
        gains = simulated(np.random.default_rng(2), 3, 1000, 0.01, 0.05, self.RUNS)
        assert coverage(gains, 0.01) == pytest.approx(0.95, abs=self.ERROR)


class TestSplits:
    """Three nets, each tested on three random splits."""

    RUNS, SEEDS, SPLITS = 300, 3, 3
    GROUPS = np.repeat(np.arange(SEEDS), SPLITS)

    def gains(self, of_seeds, of_splits):
        """Gains of images, whose expectation is 0.01, with effects of these deviations."""
        rng = np.random.default_rng(4)
        effects = np.repeat(rng.normal(0, of_seeds, (self.RUNS, self.SEEDS, 1)), self.SPLITS, 1)
        rows = self.SEEDS * self.SPLITS
        return simulated(rng, rows, 300, 0.01 + effects, of_splits, self.RUNS)

    @pytest.mark.parametrize(("of_seeds", "of_splits"), [(0.1, 0.005), (0.02, 0.02)])
    def test_other_seeds_are_covered(self, of_seeds, of_splits):
        error = 3 * np.sqrt(0.95 * 0.05 / self.RUNS)
        gains = self.gains(of_seeds, of_splits)
        assert coverage(gains, 0.01, self.GROUPS) >= 0.95 - error
        if of_seeds > of_splits:
            assert coverage(gains, 0.01) < 0.8  # if the splits counted as seeds

    def test_the_gain_of_a_seed_is_the_mean_over_its_splits(self):
        gains = self.gains(0.02, 0.02)[0]
        zeros = np.zeros_like(gains)
        found = paired_difference(zeros, gains, groups=self.GROUPS)
        expected = paired_difference(zeros[:3], gains.reshape(3, 3, -1).mean(1))
        assert (found.seeds, found.splits, found.images) == (3, 3, 300)
        for name in ("points", "low", "high"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name))

    def test_images_count_as_often_as_the_splits_of_a_seed_test_them(self):
        first, second = np.zeros((3, 4)), np.array([[1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]])
        weights = np.array([[1, 1, 1, 1], [3, 0, 1, 0], [0, 1, 1, 0]])
        found = paired_difference(first, second, weights, [0, 0, 1])
        assert found.points == pytest.approx(100 * ((0.5 + 0.75) / 2 + 0.5) / 2)
        assert (found.seeds, found.splits, found.images) == (2, 2, 4)

    def test_the_splits_of_one_seed_are_replicates_of_the_split_alone(self):
        gains = self.gains(0, 0.02)[0, :3]
        zeros = np.zeros_like(gains)
        found = paired_difference(zeros, gains, groups=[0, 0, 0])
        expected = paired_difference(zeros, gains)
        assert (found.seeds, found.splits) == (1, 3)
        assert (expected.seeds, expected.splits) == (3, 1)
        assert (found.low, found.high) == (expected.low, expected.high)


def test_with_one_seed_the_interval_is_that_of_a_bootstrap():
    gains = simulated(np.random.default_rng(3), 1, 2000, 0.02, 0, 1)[0]
    found = paired_difference(np.zeros_like(gains), gains)
    drawn = stats.bootstrap((gains[0],), np.mean, rng=0, n_resamples=5000, method="percentile")
    assert found.points == pytest.approx(100 * gains.mean())
    interval = 100 * np.array(drawn.confidence_interval)
    np.testing.assert_allclose([found.low, found.high], interval, atol=0.1)


def test_the_interval_of_the_seeds_is_that_of_student():
    """Images on which each seed gains the same have no other noise."""
    of_seeds = np.array([0.0, 0.1, 0.4])
    gains = np.repeat(of_seeds[:, None], 5000, 1)
    found = paired_difference(np.zeros_like(gains), gains)
    error = of_seeds.std(ddof=1) / np.sqrt(3)
    expected = 100 * (of_seeds.mean() + stats.t.ppf([0.025, 0.975], 2) * error)
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.05)


@given(OUTCOMES)
def test_swapped_sides_give_the_opposite_difference(outcomes):
    first, second = outcomes
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there.points == pytest.approx(-back.points)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


@given(OUTCOMES, st.integers(2, 5))
@settings(deadline=None)
def test_more_images_narrow_the_interval(outcomes, times):
    few = paired_difference(*outcomes)
    many = paired_difference(*(np.tile(one, times) for one in outcomes))
    assert many.points == pytest.approx(few.points)
    assert many.images == times * few.images
    assert many.high - many.low <= few.high - few.low + 1e-9
    if len(outcomes[0]) == 1 and few.high - few.low < 200:  # that is all there is
        assert many.high - many.low < few.high - few.low


@given(OUTCOMES)
def test_a_tie_holds_zero(outcomes):
    found = paired_difference(outcomes[0], outcomes[0])
    assert found.points == 0
    assert found.low < 0 < found.high


@given(OUTCOMES, st.integers(1, 3))
def test_images_of_weight_0_change_nothing(outcomes, more):
    first, second = outcomes
    filling = [(0, 0), (0, more)]
    weights = np.pad(np.ones(first.shape), filling)
    padded = paired_difference(np.pad(first, filling), np.pad(second, filling), weights)
    found = paired_difference(first, second)
    assert (padded.seeds, padded.images) == (found.seeds, found.images)
    bounds = [(one.points, one.low, one.high) for one in (padded, found)]
    np.testing.assert_allclose(*bounds, atol=1e-9)


def test_an_image_that_a_seed_lacks_counts_for_the_others():
    first, second = np.zeros((2, 4)), np.array([[1, 1, 0, 0], [1, 0, 0, 1]])
    weights = np.array([[1, 1, 1, 1], [3, 0, 1, 0]])
    found = paired_difference(first, second, weights)
    assert found.points == pytest.approx(100 * (0.5 + 0.75) / 2)
    assert (found.seeds, found.images) == (2, 4)


def test_a_single_image_says_nothing():
    found = paired_difference(np.zeros((3, 1)), np.ones((3, 1)))
    assert (found.points, found.low, found.high) == (100, -100, 100)


def test_fifty_thousand_images_take_less_than_a_second():
    gains = np.ones((3, 50_000))
    started = time.perf_counter()
    paired_difference(np.zeros_like(gains), gains)
    assert time.perf_counter() - started < 1
