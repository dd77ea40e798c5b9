"""SVM protocols: splits, choice of C, labels, and what is told of the result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import LinearSVC

from vgg_keras.errors import FeaturesError
from vgg_keras.features import transfer as module
from vgg_keras.features.average_precision import average_precision
from vgg_keras.features.protocols import PROTOCOLS, Protocol
from vgg_keras.features.table import Features, normalised
from vgg_keras.features.transfer import split_pictures, transfer


def one_label(*counts, noise=0.6, splits=None, seed=0) -> Features:
    """Blobs, so many points of each class."""
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
    """Three classes that come together, some of them difficult, in three splits."""
    rng = np.random.default_rng(seed)
    there = rng.random((n, 3)) < 0.4
    values = there @ rng.normal(size=(3, 8)) + rng.normal(0, 0.7, (n, 8))
    targets = np.where(there, 1, -1).astype(np.int8)
    targets[there & (rng.random((n, 3)) < 0.2)] = 0
    splits = rng.permutation(np.repeat(["train", "val", "test"], n // 3)).tolist()
    names = [f"{i}.jpg" for i in range(n)]
    return Features(names, splits, targets, normalised(values), ("cat", "dog", "other"), {})


class TestSplits:
    @settings(max_examples=30, deadline=None)
    @given(
        counts=st.lists(st.integers(12, 60), min_size=2, max_size=5),
        train=st.integers(2, 11),
        most=st.one_of(st.none(), st.integers(1, 30)),
        seed=st.integers(0, 99),
    )
    def test_are_disjoint_seeded_and_of_the_right_sizes(self, counts, train, most, seed):
        features = one_label(*counts)
        plan = Protocol("mean_class_recall", splits=3, train_per_class=train, test_per_class=most)
        drawn = list(split_pictures(features, plan, seed))
        labels = features.labels
        assert len(drawn) == 3
        for parts in drawn:
            assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
            sizes = [np.bincount(labels[part], minlength=len(counts)).tolist() for part in parts]
            held = max(1, round(0.2 * train))
            left = [n - train for n in counts]
            assert sizes == [
                [train - held] * len(counts),
                [held] * len(counts),
                left if most is None else [min(n, most) for n in left],
            ]
        again = list(split_pictures(features, plan, seed))
        assert all(
            (a == b).all()
            for x, y in zip(drawn, again, strict=True)
            for a, b in zip(x, y, strict=True)
        )
        others = list(split_pictures(features, plan, seed + 1))
        assert (
            any(len(set(a.fit) ^ set(b.fit)) for a, b in zip(drawn, others, strict=True))
            or max(counts) < 14
        )

    def test_of_the_papers_caltech_protocols(self):
        for name, train, most in (("caltech101", 30, 50), ("caltech256", 60, None)):
            features = one_label(*[120] * 3)
            for parts in split_pictures(features, PROTOCOLS[name]):
                assert (len(parts.fit), len(parts.select)) == (3 * train * 0.8, 3 * train * 0.2)
                assert len(parts.test) == 3 * (most or 120 - train)

    def test_too_few_pictures_are_named(self):
        with pytest.raises(
            FeaturesError, match=r"class1 has 30. Give fewer with --train-per-class"
        ):
            transfer(one_label(40, 30), "caltech101")

    def test_of_voc_2007_choose_by_val_and_train_on_both(self):
        features = several_labels()
        (parts,) = split_pictures(features, PROTOCOLS["voc2007"])
        splits = np.array(features.splits)
        assert [set(splits[part]) for part in parts] == [{"train"}, {"val"}, {"test"}]

    def test_of_voc_2012_hold_a_fifth_of_train_back(self):
        features = several_labels()
        (parts,) = split_pictures(features, PROTOCOLS["voc2012"])
        splits = np.array(features.splits)
        assert [set(splits[part]) for part in parts] == [{"train"}, {"train"}, {"val"}]
        assert [len(part) for part in parts] == [64, 16, 80]
        assert not set(parts.fit) & set(parts.select)

    def test_a_missing_split_is_named(self):
        with pytest.raises(FeaturesError, match=r"train, val, test. Received: all"):
            transfer(one_label(9, 9), "voc2007")


class TestResults:
    def test_of_caltech_equal_scikit_learn(self):
        features = one_label(40, 45, 50, noise=0.9)
        result = transfer(features, "caltech101", train_per_class=20, grid=[3.0])
        plan = Protocol("", splits=3, train_per_class=20, test_per_class=50)
        recalls = []
        for parts in split_pictures(features, plan, choosing=False):
            machine = LinearSVC(C=3.0, random_state=0, max_iter=5000)
            machine.fit(features.values[parts.fit], features.labels[parts.fit])
            predicted = machine.predict(features.values[parts.test])
            recalls.append(100 * balanced_accuracy_score(features.labels[parts.test], predicted))
        assert result["of_splits"] == pytest.approx(recalls)
        assert result["mean_class_recall"] == pytest.approx(np.mean(recalls))
        assert result["spread"] == pytest.approx(np.std(recalls, ddof=1))
        assert result["train_images"] == 60
        assert result["images"] == 75
        assert np.mean(list(result["per_class"].values())) == pytest.approx(np.mean(recalls))

    @pytest.mark.parametrize(("protocol", "rule"), [("voc2007", "11-point"), ("voc2012", "area")])
    def test_of_voc_are_one_classifier_a_class_without_difficult_pictures(self, protocol, rule):
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

    def test_a_class_that_is_not_tested_is_named_and_not_counted(self, caplog):
        features = several_labels()
        features.targets[np.array(features.splits) == "test", 1] = -1
        with caplog.at_level("WARNING"):
            result = transfer(features, "voc2007", grid=[1.0])
        assert list(result["per_class"]) == ["cat", "other"]
        assert "no picture tested has them: dog" in caplog.text

    def test_a_class_without_training_pictures_has_chance(self):
        features = several_labels()
        features.targets[np.array(features.splits) != "test", 1] = -1
        assert 0 < transfer(features, "voc2007", grid=[1.0])["per_class"]["dog"] < 80

    def test_choice_of_c_is_the_best_on_the_held_back_part(self, monkeypatch):
        seen, whole = [], module._measured

        def measured(features, plan, fit, test, c, seed):
            found = whole(features, plan, fit, test, c, seed)
            seen.append((c, len(fit), len(test), np.nanmean(found)))
            return found

        monkeypatch.setattr(module, "_measured", measured)
        result = transfer(one_label(40, 40), "caltech101", splits=1, grid=[100, 0.01, 1])
        *choosing, last = seen
        assert [(c, fit, test) for c, fit, test, _ in choosing] == [
            (0.01, 48, 12),
            (1.0, 48, 12),
            (100.0, 48, 12),
        ]
        best = max(choosing, key=lambda one: (one[3], -one[0]))
        assert result["C"] == [best[0]] == [last[0]]
        assert last[1:3] == (60, 20)  # fitted again with what chose

    def test_features_tell_and_noise_does_not(self):
        good = transfer(one_label(40, 40, 40, noise=0.1), "caltech101")
        poor = transfer(one_label(40, 40, 40, noise=50), "caltech101")
        assert good["mean_class_recall"] > 99
        assert 15 < poor["mean_class_recall"] < 55


class TestCustom:
    def test_follows_from_splits_and_labels(self):
        splits = ["train", "train", "val"] * 20
        result = transfer(one_label(30, 30, splits=splits), "custom", grid=[1.0])
        assert result["split"] == "val"
        assert "mean_class_recall" in result
        result = transfer(several_labels(), "custom", grid=[1.0])
        assert result["split"] == "test"
        assert "mean_ap" in result

    def test_random_splits_where_numbers_are_given(self):
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
            ({"protocol": "caltech101", "train_per_class": 0}, "1 or more. Received: 0"),
            ({"protocol": "caltech101", "train_per_class": 1}, "or a single C given"),
        ],
    )
    def test_of_what_cannot_be(self, options, message):
        with pytest.raises(ValueError, match=message):
            transfer(one_label(5, 5), **options)

    def test_of_numbers_for_given_splits(self):
        with pytest.raises(ValueError, match="train_per_class go with random splits"):
            transfer(several_labels(), "voc2007", train_per_class=5)

    def test_of_several_labels_where_one_is_needed(self):
        with pytest.raises(FeaturesError, match=r"must have one label. Received: .*jpg with"):
            transfer(several_labels(), "caltech101")
