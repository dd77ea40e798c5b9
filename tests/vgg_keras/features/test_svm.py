"""Linear SVM protocols: splits, selection of C, labels and results."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import LinearSVC

from vgg_keras.errors import FeaturesError
from vgg_keras.features import svm as module
from vgg_keras.features.average_precision import average_precision
from vgg_keras.features.protocols import (
    C_GRID,
    SELECTION_SHARE,
    TRANSFER_PROTOCOLS,
    Protocol,
    custom_protocol,
)
from vgg_keras.features.svm import split_images, transfer
from vgg_keras.features.table import Features, normalised


def one_label(*counts, noise=0.6, splits=None, seed=0) -> Features:
    """Gaussian clusters with the given numbers of points."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    values = np.eye(len(counts), 8)[labels] + rng.normal(0, noise, (len(labels), 8))
    targets = np.where(np.arange(len(counts)) == labels[:, None], 1, -1).astype(np.int8)
    names = [f"{i}.jpg" for i in range(len(labels))]
    return Features(
        names,
        splits or ["all"] * len(labels),
        targets,
        normalised(values),
        tuple(f"class{k}" for k in range(len(counts))),
        {"net": "A"},
    )


def several_labels(n=240, seed=0) -> Features:
    """Images with any of three classes, some of them difficult, in three splits."""
    rng = np.random.default_rng(seed)
    is_present = rng.random((n, 3)) < 0.4
    values = is_present @ rng.normal(size=(3, 8)) + rng.normal(0, 0.7, (n, 8))
    targets = np.where(is_present, 1, -1).astype(np.int8)
    targets[is_present & (rng.random((n, 3)) < 0.2)] = 0
    splits = rng.permutation(np.repeat(["train", "val", "test"], n // 3)).tolist()
    names = [f"{i}.jpg" for i in range(n)]
    return Features(names, splits, targets, normalised(values), ("cat", "dog", "other"), {})


class TestProtocols:
    def test_protocols_are_those_of_appendix_b(self):
        """VOC has given splits. Caltech has the mean of 3 random ones: 30 training images of each
        class and up to 50 test images (Caltech-101), or 60 and all others (Caltech-256)."""
        numbers = {
            name: (plan.splits, plan.train_per_class, plan.test_per_class)
            for name, plan in TRANSFER_PROTOCOLS.items()
        }
        voc = dict.fromkeys(["voc2007", "voc2012", "voc2012-action"], (1, 0, None))
        assert numbers == voc | {"caltech101": (3, 30, 50), "caltech256": (3, 60, None)}
        assert C_GRID == (0.1, 1, 10, 100)
        assert SELECTION_SHARE == 0.2

    @pytest.mark.parametrize(
        ("splits", "expected"),
        [
            ({"train", "val", "test"}, (("train",), ("val",), ("test",), 1, 0)),
            ({"train", "val", "test", "x"}, (("train",), ("val",), ("test",), 1, 0)),
            ({"train", "test"}, (("train",), (), ("test",), 1, 0)),
            ({"train", "b", "a"}, (("train",), (), ("a", "b"), 1, 0)),
            ({"train"}, ((), (), (), 3, 30)),
            ({"val", "test"}, ((), (), (), 3, 30)),
        ],
    )
    @pytest.mark.parametrize("one_label", [False, True])
    def test_custom_protocols_depend_on_splits_and_labels(self, splits, expected, one_label):
        plan = custom_protocol(splits, one_label)
        found = (plan.train, plan.validation, plan.test, plan.splits, plan.train_per_class)
        assert found == expected
        measure = ("mean_class_recall", "") if one_label else ("mean_ap", "area")
        assert (plan.measure, plan.rule) == measure

    def test_protocols_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            TRANSFER_PROTOCOLS["voc2007"].splits = 2


class TestSplits:
    @settings(max_examples=30, deadline=None)
    @given(
        counts=st.lists(st.integers(12, 60), min_size=2, max_size=5),
        train=st.integers(2, 11),
        most=st.one_of(st.none(), st.integers(1, 30)),
        seed=st.integers(0, 99),
    )
    def test_random_splits_are_disjoint_seeded_and_of_the_right_sizes(
        self, counts, train, most, seed
    ):
        features = one_label(*counts)
        plan = Protocol("mean_class_recall", splits=3, train_per_class=train, test_per_class=most)
        drawn = list(split_images(features, plan, seed))
        labels = features.labels
        assert len(drawn) == 3
        for subsets in drawn:
            assert len(np.unique(np.concatenate(subsets))) == sum(map(len, subsets))
            sizes = [
                np.bincount(labels[subset], minlength=len(counts)).tolist() for subset in subsets
            ]
            validation = max(1, round(0.2 * train))
            left = [n - train for n in counts]
            assert sizes == [
                [train - validation] * len(counts),
                [validation] * len(counts),
                left if most is None else [min(n, most) for n in left],
            ]
        again = list(split_images(features, plan, seed))
        assert all(
            (a == b).all()
            for x, y in zip(drawn, again, strict=True)
            for a, b in zip(x, y, strict=True)
        )
        others = list(split_images(features, plan, seed + 1))
        assert (
            any(len(set(a.train) ^ set(b.train)) for a, b in zip(drawn, others, strict=True))
            or max(counts) < 14
        )

    def test_caltech_splits_have_the_sizes_of_the_paper(self):
        for name, train, most in (("caltech101", 30, 50), ("caltech256", 60, None)):
            features = one_label(*[120] * 3)
            for subsets in split_images(features, TRANSFER_PROTOCOLS[name]):
                assert (len(subsets.train), len(subsets.validation)) == (
                    3 * train * 0.8,
                    3 * train * 0.2,
                )
                assert len(subsets.test) == 3 * (most or 120 - train)

    def test_a_class_with_too_few_images_is_named(self):
        with pytest.raises(FeaturesError, match=r"class1 has 30. Give a smaller train_per_class"):
            transfer(one_label(40, 30), "caltech101")

    def test_voc_2007_selects_on_val_and_trains_on_both(self):
        features = several_labels()
        (subsets,) = split_images(features, TRANSFER_PROTOCOLS["voc2007"])
        splits = np.array(features.splits)
        assert [set(splits[subset]) for subset in subsets] == [{"train"}, {"val"}, {"test"}]

    def test_voc_2012_selects_on_a_fifth_of_train(self):
        features = several_labels()
        (subsets,) = split_images(features, TRANSFER_PROTOCOLS["voc2012"])
        splits = np.array(features.splits)
        assert [set(splits[subset]) for subset in subsets] == [{"train"}, {"train"}, {"val"}]
        assert [len(subset) for subset in subsets] == [64, 16, 80]
        assert not set(subsets.train) & set(subsets.validation)

    def test_a_missing_split_is_named(self):
        with pytest.raises(FeaturesError, match=r"train, val, test. Received: all"):
            transfer(one_label(9, 9), "voc2007")


class TestResults:
    def test_caltech_results_equal_scikit_learn(self):
        features = one_label(40, 45, 50, noise=0.9)
        result = transfer(features, "caltech101", train_per_class=20, grid=[3.0])
        plan = Protocol("", splits=3, train_per_class=20, test_per_class=50)
        recalls = []
        for subsets in split_images(features, plan, selecting=False):
            machine = LinearSVC(C=3.0, random_state=0, max_iter=5000)
            machine.fit(features.values[subsets.train], features.labels[subsets.train])
            predicted = machine.predict(features.values[subsets.test])
            recalls.append(100 * balanced_accuracy_score(features.labels[subsets.test], predicted))
        assert result["of_splits"] == pytest.approx(recalls)
        assert result["mean_class_recall"] == pytest.approx(np.mean(recalls))
        assert result["spread"] == pytest.approx(np.std(recalls, ddof=1))
        assert result["train_images"] == 60
        assert result["images"] == 75
        assert np.mean(list(result["per_class"].values())) == pytest.approx(np.mean(recalls))

    @pytest.mark.parametrize(("protocol", "rule"), [("voc2007", "11-point"), ("voc2012", "area")])
    def test_voc_has_one_classifier_per_class_and_ignores_difficult_images(self, protocol, rule):
        features = several_labels()
        result = transfer(features, protocol, grid=[1.0])
        splits = np.array(features.splits)
        train = np.isin(splits, ["train", "val"] if protocol == "voc2007" else ["train"])
        test = splits == ("test" if protocol == "voc2007" else "val")
        for k, name in enumerate(features.class_names):
            targets = features.targets[:, k]
            fit = train & (targets != 0)
            machine = LinearSVC(C=1.0, random_state=0, max_iter=5000)
            machine.fit(features.values[fit], targets[fit])
            scores = machine.decision_function(features.values[test])
            ap = 100 * average_precision(scores, targets[test], rule)
            assert result["per_class"][name] == pytest.approx(ap, abs=0.5)  # order of the rows
        assert result["mean_ap"] == pytest.approx(np.mean(list(result["per_class"].values())))
        assert result["spread"] is None

    def test_distractors_are_not_scored(self):
        result = transfer(several_labels(), "voc2012-action", grid=[1.0])
        assert list(result["per_class"]) == ["cat", "dog"]

    def test_a_class_that_is_not_tested_is_named_and_ignored(self, caplog):
        features = several_labels()
        features.targets[np.array(features.splits) == "test", 1] = -1
        with caplog.at_level("WARNING"):
            result = transfer(features, "voc2007", grid=[1.0])
        assert list(result["per_class"]) == ["cat", "other"]
        assert "no test image has the class: dog" in caplog.text

    def test_a_class_without_training_images_is_at_chance(self):
        features = several_labels()
        features.targets[np.array(features.splits) != "test", 1] = -1
        assert 0 < transfer(features, "voc2007", grid=[1.0])["per_class"]["dog"] < 80

    def test_c_is_the_best_on_the_validation_images(self, monkeypatch):
        seen, whole = [], module._measured

        def measured(features, plan, fit, test, c, seed):
            found = whole(features, plan, fit, test, c, seed)
            seen.append((c, len(fit), len(test), np.nanmean(found[0])))
            return found

        monkeypatch.setattr(module, "_measured", measured)
        result = transfer(one_label(40, 40), "caltech101", splits=1, grid=[100, 0.01, 1])
        *selecting, last = seen
        assert [(c, fit, test) for c, fit, test, _ in selecting] == [
            (0.01, 48, 12),
            (1.0, 48, 12),
            (100.0, 48, 12),
        ]
        best = max(selecting, key=lambda one: (one[3], -one[0]))
        assert result["C"] == [best[0]] == [last[0]]
        assert last[1:3] == (60, 20)  # trained again, with the validation images

    def test_features_score_high_and_noise_scores_low(self):
        good = transfer(one_label(40, 40, 40, noise=0.1), "caltech101")
        poor = transfer(one_label(40, 40, 40, noise=50), "caltech101")
        assert good["mean_class_recall"] > 99
        assert 15 < poor["mean_class_recall"] < 55


class TestCustom:
    def test_the_measure_depends_on_splits_and_labels(self):
        splits = ["train", "train", "val"] * 20
        result = transfer(one_label(30, 30, splits=splits), "custom", grid=[1.0])
        assert result["split"] == "val"
        assert "mean_class_recall" in result
        result = transfer(several_labels(), "custom", grid=[1.0])
        assert result["split"] == "test"
        assert "mean_ap" in result

    def test_random_splits_are_drawn_if_numbers_are_given(self):
        splits = ["train", "train", "val"] * 20
        features = one_label(30, 30, splits=splits)
        result = transfer(features, "custom", train_per_class=5, splits=4, grid=[1.0])
        assert len(result["of_splits"]) == 4
        assert result["train_images"] == 10


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"protocol": "voc2008"}, "voc2007.*custom. Received: 'voc2008'"),
            ({"protocol": "caltech101", "grid": [0.0, 1.0]}, "positive numbers"),
            (
                {"protocol": "caltech101", "train_per_class": 0},
                "1 or more. Received: train_per_class=0",
            ),
            ({"protocol": "caltech101", "train_per_class": 1}, "or give a single C"),
        ],
    )
    def test_bad_arguments_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            transfer(one_label(5, 5), **options)

    def test_numbers_for_given_splits_are_refused(self):
        with pytest.raises(
            ValueError, match="train_per_class must not be given without random splits"
        ):
            transfer(several_labels(), "voc2007", train_per_class=5)

    def test_several_labels_are_refused_if_one_is_needed(self):
        with pytest.raises(FeaturesError, match=r"must have one label. Received: .*jpg with"):
            transfer(several_labels(), "caltech101")
