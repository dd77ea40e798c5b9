"""Submission files of PASCAL VOC."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from vgg_keras.errors import ArgumentError, FeaturesError
from vgg_keras.features.average_precision import average_precision
from vgg_keras.features.submissions import save_submission
from vgg_keras.features.svm import transfer
from vgg_keras.features.table import Features, normalised

CLASSES = ("cat", "dog", "tvmonitor", "other")
NET = {"net": "D", "digest": "12", "layer": "fc2", "test_scales": [32, 48], "run": "here"}


def described(*splits, name="{:06}.jpg", seed=0, each=60):
    """Images with any of four classes, some of them difficult, in the given splits."""
    rng, count = np.random.default_rng(seed), each * len(splits)
    is_present = rng.random((count, 4)) < 0.4
    directions = np.random.default_rng(7).normal(size=(4, 8))
    values = is_present @ directions + rng.normal(0, 0.7, (count, 8))
    targets = np.where(is_present, 1, -1).astype(np.int8)
    targets[is_present & (rng.random((count, 4)) < 0.2)] = 0
    of_images = rng.permutation(np.repeat(splits, each)).tolist()
    names = [f"JPEGImages/{name.format(1000 * seed + i)}" for i in range(count)]
    return Features(names, of_images, targets, normalised(values), CLASSES, dict(NET))


def unlabelled(**options):
    """Test images as `extract_features` describes them without labels, in another order."""
    found = described("own", seed=1, **options)
    order = np.random.default_rng(2).permutation(len(found))
    names = [found.names[i] for i in order]
    targets = np.zeros((len(found), 0), np.int8)
    return replace(found, names=names, values=found.values[order], targets=targets, class_names=())


def lines_of(folder, name):
    return [line.rsplit(" ", 1) for line in (folder / name).read_text().splitlines()]


class TestClassification:
    def test_scores_have_the_average_precision_that_transfer_measures(self, tmp_path):
        features = described("train", "val", "test")
        result = save_submission(tmp_path / "a", features, "voc2007")
        measured = transfer(features, "voc2007")
        assert result["C"] == measured["C"]
        test = features.of_split("test")
        of_name = {name.split("/")[1][:-4]: row for row, name in enumerate(test.names)}
        assert len(list((tmp_path / "a").iterdir())) == 4
        for k, name in enumerate(CLASSES):
            lines = lines_of(tmp_path / "a", f"comp2_cls_test_{name}.txt")
            assert [one for one, _ in lines] == sorted(of_name)
            scores = np.array([float(score) for _, score in lines])
            targets = test.targets[[of_name[one] for one, _ in lines], k]
            ap = average_precision(scores, targets, "11-point")
            assert 100 * ap == pytest.approx(measured["per_class"][name], abs=1e-9)

    def test_all_labelled_images_are_trained_on_with_the_c_of_the_protocol(self, tmp_path):
        features, test = described("train", "val"), unlabelled()
        result = save_submission(tmp_path, features, "voc2012", test, seed=3)
        assert result["C"] == transfer(features, "voc2012", seed=3)["C"]
        assert (result["train_images"], result["images"]) == (120, 60)
        counted = features.targets[:, 1] != 0
        svm = LinearSVC(C=result["C"][0], max_iter=5000)
        svm.fit(features.values[counted], features.targets[counted, 1])
        lines = lines_of(tmp_path, "comp2_cls_test_dog.txt")
        rows = np.argsort(test.names)
        assert [one for one, _ in lines] == [test.names[row][11:-4] for row in rows]
        scores = [float(score) for _, score in lines]
        expected = svm.decision_function(test.values[rows])
        np.testing.assert_allclose(scores, expected, atol=1e-2)  # liblinear's order is random

    def test_an_image_set_decides_images_and_their_order(self, tmp_path):
        features, test = described("train", "val"), unlabelled()
        test.metadata["skipped"] = ["JPEGImages/009999.jpg"]
        with pytest.raises(FeaturesError, match=r"could not be read: JPEGImages/009999\.jpg"):
            save_submission(tmp_path, features, "voc2012", test, grid=[1])
        file = tmp_path / "test.txt"
        file.write_text("001005\n001002\n\n")
        result = save_submission(
            tmp_path / "a", features, "voc2012", test, grid=[1], image_set=file
        )
        assert result["images"] == 2
        lines = lines_of(tmp_path / "a", "comp2_cls_test_cat.txt")
        assert [one for one, _ in lines] == ["001005", "001002"]
        file.write_text("001005\n009999\n")
        with pytest.raises(FeaturesError, match=r"test\.txt lists 009999, which has no features"):
            save_submission(tmp_path, features, "voc2012", test, image_set=file)


class TestActions:
    def test_a_line_has_the_number_of_the_person(self, tmp_path):
        features = described("train", "val", name="{:06}.jpg#1")
        test = unlabelled(name="{:06}.jpg#2")
        test = replace(test, names=[*test.names[:-1], test.names[0].replace("#2", "#10")])
        file = tmp_path / "test.txt"
        image = test.names[0][11:17]
        file.write_text(f"{image} 10\n{image}  2 -1\n")
        folder = tmp_path / "a"
        save_submission(folder, features, "voc2012-action", test, grid=[1], image_set=file)
        assert sorted(one.name for one in folder.iterdir()) == [
            f"comp10_action_test_{name}.txt" for name in CLASSES[:3]
        ]
        lines = lines_of(folder, "comp10_action_test_cat.txt")
        assert [one for one, _ in lines] == [f"{image} 10", f"{image} 2"]
        file.write_text(f"{image}\n")
        with pytest.raises(FeaturesError, match="an image name and an object number"):
            save_submission(folder, features, "voc2012-action", test, image_set=file)


REFUSED_MEMBERS = {
    "digest 12 and 34": {"digest": "34"},
    "layer fc2 and fc1": {"layer": "fc1"},
    r"test_scales \[32, 48\] and \[32\]": {"test_scales": [32]},
    "1 and 2 stacked": {"members": [NET, NET]},
}


class TestRefusals:
    def refused(self, folder, message, features=None, test=None, protocol="voc2012"):
        features = features or described("train", "val")
        with pytest.raises((FeaturesError, ArgumentError), match=message):
            save_submission(folder / "a", features, protocol, test or unlabelled())
        assert not (folder / "a").exists()

    @pytest.mark.parametrize("message", REFUSED_MEMBERS)
    def test_features_that_were_computed_in_another_way(self, tmp_path, message):
        test = replace(unlabelled(), metadata=NET | REFUSED_MEMBERS[message])
        self.refused(tmp_path, message, test=test)
        moved = replace(unlabelled(), metadata=NET | {"run": "there"})
        assert save_submission(tmp_path, described("train", "val"), "voc2012", moved, grid=[1])

    def test_features_of_another_size(self, tmp_path):
        test = unlabelled()
        self.refused(tmp_path, "8 and 4 dim", test=replace(test, values=test.values[:, :4]))

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["a/x.jpg", "b/x.jpg"], "different file names. Received: x$"),
            (["image 0", "y.jpg"], "Received: image 0$"),
            (["voc-train.tfrecord-00000-of-00064__0", "y.jpg"], "Received: voc-train.tfrecord"),
            (["x.jpg#1", "x.jpg#2"], "Received: x.jpg#1, x.jpg#2$"),
            (["000001.jpg", "y.jpg"], "must not be trained on. Received: 000001$"),
        ],
    )
    def test_names_that_do_not_identify_an_image(self, tmp_path, names, message):
        test = unlabelled(each=2)
        self.refused(tmp_path, message, test=replace(test, names=names))

    def test_people_without_numbers(self, tmp_path):
        message = r"and the number of a person.* Received: JPEGImages/\d+\.jpg,"
        self.refused(tmp_path, message, protocol="voc2012-action")

    @pytest.mark.parametrize("protocol", ["caltech101", "custom", "voc2010"])
    def test_protocols_without_a_submission(self, tmp_path, protocol):
        message = f"one of voc2007, voc2012, voc2012-action. Received: '{protocol}'"
        self.refused(tmp_path, message, protocol=protocol)

    @pytest.mark.parametrize("protocol", ["voc2007", "voc2012"])
    def test_missing_splits(self, tmp_path, protocol):
        features = described("trainval", "test")
        message = "splits train, val. Received: "
        self.refused(tmp_path, message, features=features, protocol=protocol)
        with pytest.raises(FeaturesError, match="split 'test' are needed"):
            save_submission(tmp_path, described("train", "val"), protocol)

    def test_classes_that_cannot_be_trained_or_written(self, tmp_path):
        features = described("train", "val")
        features.targets[:, 2] = -1
        self.refused(tmp_path, "Received: tvmonitor$", features=features)
        features = replace(described("train", "val"), class_names=("../cat", *CLASSES[1:]))
        self.refused(tmp_path, r"Received: \.\./cat$", features=features)
