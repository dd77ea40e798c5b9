"""AP and class recall equal scikit-learn, the official VOC code and worked examples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, recall_score

from vgg_keras.features.average_precision import RULES, average_precision, class_recalls


def ranked(scores, targets):
    """Recall and precision after each image, as VOCevalcls of the development kits counts them."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])  # ties keep index order
    order = [i for i in order if targets[i] != 0]
    positives = sum(targets[i] == 1 for i in order)
    hits, recall, precision = 0, [], []
    for n, i in enumerate(order, 1):
        hits += targets[i] == 1
        recall.append(hits / positives)
        precision.append(hits / n)
    return recall, precision


def official_2007(scores, targets):
    recall, precision = ranked(scores, targets)
    best = [
        max([p for r, p in zip(recall, precision, strict=True) if r >= i / 10], default=0)
        for i in range(11)
    ]
    return sum(best) / 11


def official_2012(scores, targets):
    recall, precision = ranked(scores, targets)
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for i in reversed(range(len(precision) - 1)):
        precision[i] = max(precision[i], precision[i + 1])
    return sum(
        (recall[i] - recall[i - 1]) * precision[i]
        for i in range(1, len(recall))
        if recall[i] != recall[i - 1]
    )


# Few different scores, so that there are ties.
ranked_images = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([1, -1, -1, 0])), min_size=1, max_size=40
).filter(lambda rows: any(target == 1 for _, target in rows))


class TestAveragePrecision:
    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            # Hits at ranks 1, 3 and 5: precision 1, 2/3, 3/5 at recall 1/3, 2/3, 1.
            ("11-point", (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11),
            ("area", (1 + 2 / 3 + 3 / 5) / 3),
            ("steps", (1 + 2 / 3 + 3 / 5) / 3),
        ],
    )
    def test_a_worked_example_has_the_expected_ap(self, rule, expected):
        scores, targets = np.array([5.0, 4, 3, 2, 1]), np.array([1, -1, 1, -1, 1])
        assert average_precision(scores, targets, rule) == pytest.approx(expected)

    def test_rules_differ_where_precision_rises_again(self):
        """Hits at ranks 2 and 3: precision 1/2, then 2/3, which is the envelope at both."""
        scores, targets = np.array([4.0, 3, 2, 1]), np.array([-1, 1, 1, -1])
        found = {rule: average_precision(scores, targets, rule) for rule in RULES}
        assert found == pytest.approx({"11-point": 2 / 3, "area": 2 / 3, "steps": 7 / 12})

    @settings(max_examples=200, deadline=None)
    @given(ranked_images)
    def test_ap_equals_the_official_code_with_ties(self, rows):
        scores, targets = map(np.array, zip(*rows, strict=True))
        assert average_precision(scores, targets, "11-point") == pytest.approx(
            official_2007(scores, targets)
        )
        assert average_precision(scores, targets, "area") == pytest.approx(
            official_2012(scores, targets)
        )

    @settings(max_examples=200, deadline=None)
    @given(ranked_images)
    def test_ap_equals_scikit_learn_with_ties(self, rows):
        scores, targets = map(np.array, zip(*rows, strict=True))
        counted = targets != 0
        theirs = average_precision_score(targets[counted] == 1, scores[counted])
        assert average_precision(scores, targets, "steps") == pytest.approx(theirs)

    @pytest.mark.parametrize("rule", RULES)
    def test_difficult_images_are_ignored(self, rule):
        rng = np.random.default_rng(0)
        scores, targets = rng.normal(size=50), rng.choice([1, -1, 0], 50)
        without = average_precision(scores[targets != 0], targets[targets != 0], rule)
        assert average_precision(scores, targets, rule) == without

    @pytest.mark.parametrize("rule", RULES)
    def test_ap_of_a_class_without_images_is_nan(self, rule):
        assert np.isnan(average_precision(np.arange(3.0), np.array([-1, 0, -1]), rule))
        assert np.isnan(average_precision(np.zeros(0), np.zeros(0, int), rule))

    def test_ap_of_the_best_ranking_is_1(self):
        for rule in RULES:
            assert average_precision(np.arange(5.0), np.array([-1, -1, 1, 1, 1]), rule) == 1

    def test_nan_and_unknown_rules_are_refused(self):
        with pytest.raises(ValueError, match="Received: NaN"):
            average_precision(np.array([np.nan, 1]), np.array([1, -1]))
        with pytest.raises(ValueError, match=r"steps. Received: 'mean'"):
            average_precision(np.zeros(1), np.ones(1), "mean")


class TestClassRecalls:
    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40),
    )
    def test_mean_equals_scikit_learn_with_empty_classes(self, rows):
        labels, predicted = map(np.array, zip(*rows, strict=True))
        found = class_recalls(predicted, labels, 6)
        assert (np.isnan(found) == ~np.isin(np.arange(6), labels)).all()
        theirs = recall_score(labels, predicted, average="macro", zero_division=np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            balanced = balanced_accuracy_score(labels, predicted)
        assert np.nanmean(found) == pytest.approx(theirs) == pytest.approx(balanced)
