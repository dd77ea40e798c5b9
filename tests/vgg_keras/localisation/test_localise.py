"""Both localisation protocols, and their cache of boxes."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import CLASSES
from tests.tiny import MEAN
from tests.vgg_keras.localisation.conftest import journal_of
from vgg_keras import TrainedNet, evaluate
from vgg_keras.architecture import Architecture
from vgg_keras.errors import ArgumentError, PredictionsError, SourceError
from vgg_keras.facts import NetFacts
from vgg_keras.localisation.answers import Dense
from vgg_keras.localisation.dense import make_finder
from vgg_keras.localisation.localise import centre_of_true_class, localise, localise_together
from vgg_keras.localisation.procedure import (
    ANSWERS,
    check_localises,
    check_together,
    metadata_of_nets,
    scales_by_net,
)
from vgg_keras.localisation.results import Localised
from vgg_keras.nets import num_outputs
from vgg_keras.pipelines.boxes import Boxes, iou
from vgg_keras.pipelines.sources import open_source
from vgg_keras.recipes import LocalisationRecipe, Recipe


class TestProcedure:
    """Which nets and scales go together."""

    def facts(self, regression="per-class", names=("a", "b"), crop=64, pool="down", **options):
        outputs = num_outputs(len(names), regression)
        architecture = Architecture("A", outputs, crop, pool_rounding=pool)
        options = {"train_scale": (80, 96), "regression": regression} | options
        return NetFacts(architecture, MEAN, names, **options)

    def test_an_image_has_five_answers(self):
        assert ANSWERS == 5

    def test_scales_are_those_of_training_or_given(self):
        nets = [self.facts(), self.facts(train_scale=70)]
        assert scales_by_net(nets, None) == scales_by_net(nets, []) == [(88,), (70,)]
        assert scales_by_net(nets, 64) == [(64,), (64,)]
        assert scales_by_net(nets, (64, 65)) == [(64, 65), (64, 65)]
        assert scales_by_net(nets, [[64], (65, 66)]) == [(64,), (65, 66)]
        with pytest.raises(ArgumentError, match="Received: 3 for 2 nets"):
            scales_by_net(nets, [[64]] * 3)
        with pytest.raises(ArgumentError, match=r"at least the crop size, 64\. Received: 63"):
            scales_by_net(nets, [[64], [64, 63]])

    def test_nets_of_one_kind_go_together(self):
        nets, classifiers = [self.facts(), self.facts("single-class")], [self.facts(None)] * 2
        check_together(nets, classifiers)
        check_localises(nets[0])
        with pytest.raises(ArgumentError, match="A localisation net is needed"):
            check_localises(classifiers[0])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"names": ("b", "a")}, "other classes"),
            ({"crop": 32}, r"same crop_size.*64 \(one\) and 32 \(two\)"),
            ({"pool": "up"}, r"same pool_rounding.*down \(one\) and up \(two\)"),
        ],
    )
    def test_nets_that_differ_are_refused(self, options, message):
        one = self.facts(origin={"model": "one"})
        for argument, regression in (("nets", "per-class"), ("classifiers", None)):
            both = {"nets": [one], "classifiers": [self.facts(None)]}
            both[argument].append(self.facts(regression, origin={"model": "two"}, **options))
            with pytest.raises(ArgumentError, match=message):
                check_together(**both)

    @pytest.mark.parametrize("empty", ["nets", "classifiers"])
    def test_no_net_is_refused(self, empty):
        both = {"nets": [self.facts()], "classifiers": [self.facts(None)]} | {empty: []}
        with pytest.raises(ArgumentError, match=f"{empty} must hold at least one net"):
            check_together(**both)

    def test_nets_of_the_wrong_task_are_refused(self):
        with pytest.raises(ArgumentError, match="A localisation net is needed"):
            check_together([self.facts(), self.facts(None)], [self.facts(None)])
        with pytest.raises(ArgumentError, match="which is a localisation net"):
            check_together([self.facts()], [self.facts(None), self.facts()])

    def test_metadata_name_the_task_and_the_scales(self):
        tuned = self.facts(recipe=LocalisationRecipe(crop_size=64, trainable="fc"))
        plain = self.facts(recipe=Recipe(crop_size=64))
        found = metadata_of_nets([tuned, plain], [(80,), (80, 96)])["members"]
        assert [one["test_scales"] for one in found] == [[80], [80, 96]]
        assert {one["regression"] for one in found} == {"per-class"}
        assert [one.get("tuned") for one in found] == ["fc", None]


class TestScores:
    def test_any_true_box_of_the_class_counts(self):
        truth = Boxes.of_images([[[0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1]]] * 3)
        good, bad = [0.5, 0.5, 1, 0.9], [0.2, 0.2, 0.7, 0.7]
        found = Localised(
            ("a", "b", "c"),
            np.array([1, 1, 1]),
            truth,
            np.array([[0, 1], [1, 0], [0, 2]]),
            np.float32([[good, good], [bad, good], [good, good]]),
            tuple("xyz"),
            {},
        )
        assert found.hits().tolist() == [[False, True], [False, False], [False, False]]
        result = found.result()
        assert result["top1_localisation_error"] == 100
        np.testing.assert_allclose(result["top5_localisation_error"], 200 / 3)

    def test_both_protocols_have_boxes_for_every_image(self, net, classifier, data):
        source = open_source(data)
        centre = centre_of_true_class(net, source, test_scale=40)
        assert centre.result()["images"] == 15
        assert centre.boxes.shape == (15, 1, 4)
        full = localise([net], source, classifiers=[classifier], test_scales=(40, 64))
        assert full.classes.shape == (15, 3)
        assert all(sorted(row) == [0, 1, 2] for row in full.classes.tolist())
        assert ((full.boxes >= 0) & (full.boxes <= 1)).all()
        small = localise(
            [net], source, classifiers=[classifier], test_scales=(40, 64), batch_size=1
        )
        np.testing.assert_allclose(small.boxes, full.boxes, atol=1e-5)

    def test_centre_protocol_equals_validation_in_training(self, net, data):
        best = min(entry["val_localisation_error"] for entry in journal_of(net))
        found = centre_of_true_class(net, open_source(data)).result()
        np.testing.assert_allclose(found["gt_class_localisation_error"], best, atol=1e-3)

    def test_the_same_net_twice_gives_the_same_boxes(self, net, classifier, data):
        source = open_source(data)
        one = localise([net], source, classifiers=[classifier], test_scales=(64,))
        two = localise([net, net], source, classifiers=[classifier], test_scales=(64,))
        np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-5)

    def test_models_without_a_recipe_give_what_run_folders_give(self, net, classifier, data):
        """The nets are made by `of_model` and given singly instead of in lists."""
        facts = {"class_names": CLASSES, "train_scale": (36, 44)}
        boxes = TrainedNet.of_model(net.logits, mean=net.mean, regression="per-class", **facts)
        rater = TrainedNet.of_model(classifier.model, mean=classifier.mean, **facts)
        assert boxes.recipe is rater.recipe is None
        source = open_source(data)
        expected = localise([net], source, classifiers=[classifier])
        found = localise(boxes, source, classifiers=rater)
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        assert found.metadata["model"] == "A"
        assert found.metadata["test_scales"] == expected.metadata["test_scales"] == [40]
        assert expected.metadata["tuned"] == "all"
        assert "tuned" not in found.metadata
        centre = centre_of_true_class(boxes, source)
        np.testing.assert_array_equal(centre.boxes, centre_of_true_class(net, source).boxes)

    def test_the_boxes_file_of_the_recipe_is_for_folders(self, net, data, tmp_path):
        """Other data state their own boxes."""
        recipe = dataclasses.replace(net.recipe, boxes=str(tmp_path / "none.csv"))
        changed, source = dataclasses.replace(net, recipe=recipe), open_source(data)
        with pytest.raises(SourceError, match=r"none\.csv"):
            centre_of_true_class(changed, source)
        other = dataclasses.replace(source, spec="tfds:other")
        np.testing.assert_array_equal(
            centre_of_true_class(changed, other).boxes, centre_of_true_class(net, source).boxes
        )

    def test_is_silent_if_verbose_is_0(self, net, classifier, data, capfd):
        source = open_source(data)
        localise(net, source, classifiers=classifier, verbose=0)
        centre_of_true_class(net, source, verbose=0)
        assert capfd.readouterr() == ("", "")
        centre_of_true_class(net, source)
        assert "centre Q=40  15/15 images" in capfd.readouterr().err

    def test_boxes_of_mirror_images_are_mirrored_back(self, net, classifier):
        """The boxes of an image and of its mirror image are the same, mirrored."""
        image = np.random.default_rng(3).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
        find = make_finder(net, [classifier], flip=True)
        classes = tf.constant([[2, 0]])
        found = find(image, classes).numpy()[0]  # (A, P, 5), the mirror image last
        assert found.shape == (2, 2 * 2 * 3, 5)
        turned = find(image[:, :, ::-1], classes).numpy()[0]
        plain, mirrored = np.split(found, 2, 1)
        of_turned = np.split(turned, 2, 1)[0]
        expected = of_turned.copy()
        expected[..., 0], expected[..., 2] = 1 - of_turned[..., 2], 1 - of_turned[..., 0]
        np.testing.assert_allclose(mirrored, expected, atol=1e-5)
        assert np.abs(mirrored - plain).max() > 0.01

    def test_cached_boxes_are_not_computed_again(self, net, classifier, data, tmp_path):
        source = open_source(data)
        options = {"classifiers": [classifier], "test_scales": (40,), "cache_dir": tmp_path}
        found = localise([net], source, **options)
        (file,) = tmp_path.glob("answers-*.npy")
        table = np.load(file, mmap_mode="r+")
        np.testing.assert_array_equal(table, found.boxes)
        table[0] = 0.5  # a complete row with other values
        table[1] = np.nan  # an incomplete row, as a kill leaves it
        table.flush()
        again = localise([net], source, **options)
        assert (again.boxes[0] == 0.5).all()
        np.testing.assert_allclose(again.boxes[1:], found.boxes[1:], atol=1e-6)
        localise([net], source, **options, threshold=0.1)
        assert len(list(tmp_path.glob("answers-*.npy"))) == 2

    @pytest.mark.slow
    def test_tests_share_passes(self, net, classifier, data, tmp_path, map_counter):
        """Together as alone, to the bit; no net sees an image twice at a scale."""
        other = dataclasses.replace(net, origin={"run": "other"}, mean=(90.0, 100.0, 110.0))
        rater = dataclasses.replace(classifier, origin={"run": "rater"}, mean=(150.0, 90.0, 110.0))
        one, two = (40,), (40, 48)
        tests = [
            Dense.checked(net, classifier, one),
            Dense.checked(net, rater, two, flip=False),
            Dense.checked(net, classifier, two),
            Dense.checked([other, net], [classifier, rater], [one, two], threshold=0.4),
        ]
        source, options = open_source(data), {"verbose": 0, "cache_dir": tmp_path}
        alone = [localise_together([test], source, verbose=0)[0] for test in tests]
        assert len({found.boxes.tobytes() for found in alone}) == len(alone)
        localise_together(tests[:1], source, **options)  # as a kill leaves it
        map_counter.clear()
        together = localise_together(tests, source, **options)
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_array_equal(found.boxes, expected.boxes)
            assert found.metadata == expected.metadata
        images = len(together[0].boxes)
        with_flips, plain = 2 * images, images
        assert map_counter == {
            (Path(net.name).name, 40): with_flips + plain,
            (Path(net.name).name, 48): with_flips + plain,
            (Path(classifier.name).name, 40): with_flips,
            (Path(classifier.name).name, 48): with_flips,
            ("rater", 40): with_flips + plain,
            ("rater", 48): with_flips + plain,
            ("other", 40): with_flips,
        }
        map_counter.clear()
        localise_together(tests, source, **options)
        assert not map_counter

    def test_another_data_set_with_the_same_names_has_its_own_boxes(
        self, net, classifier, data, tmp_path
    ):
        options = {"classifiers": [classifier], "test_scales": (40,), "verbose": 0}
        shutil.copytree(data.removeprefix("folder:"), tmp_path / "other")
        for image in (tmp_path / "other/val").glob("*/*"):
            stat = image.stat()
            pixels = tf.io.decode_image(tf.io.read_file(str(image)), 3, expand_animations=False)
            tf.io.write_file(str(image), tf.io.encode_jpeg(255 - pixels))
            os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other = open_source(f"folder:{tmp_path / 'other'}")
        localise([net], open_source(data), cache_dir=tmp_path / "cache", **options)
        found = localise([net], other, cache_dir=tmp_path / "cache", **options)
        expected = localise([net], other, **options)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-6)

    def test_classes_are_taken_from_predictions(self, net, classifier, data):
        source = open_source(data)
        given = evaluate(classifier, source, protocol="centre")
        given.posteriors[:] = np.roll(np.eye(3, dtype=np.float32), 1, 1)[given.labels]
        options = {"classifiers": [classifier], "test_scales": (40,)}
        found = localise([net], source, predictions=given, **options)
        assert found.classes[:, 0].tolist() == ((found.labels + 1) % 3).tolist()
        few = type(given)(given.names[1:], given.labels[1:], given.posteriors[1:], CLASSES)
        with pytest.raises(PredictionsError, match=r"lack .*blue/0\.jpg"):
            localise([net], source, predictions=few, **options)

    def test_each_net_may_have_its_own_scales(self, net, classifier, data):
        source, options = open_source(data), {"classifiers": [classifier]}
        found = localise([net, net], source, test_scales=[(40,), (40, 64)], **options)
        assert [m["test_scales"] for m in found.metadata["members"]] == [[40], [40, 64]]
        with pytest.raises(ValueError, match="3 for 2 nets"):
            localise([net, net], source, test_scales=[(40,)] * 3, **options)

    def test_nets_that_do_not_fit_together_are_refused(self, net, classifier, data):
        source = open_source(data)
        with pytest.raises(ValueError, match="A localisation net is needed"):
            localise([classifier], source, classifiers=[classifier])
        with pytest.raises(ValueError, match="which is a localisation net"):
            localise([net], source, classifiers=[net])
        with pytest.raises(ValueError, match="at least the crop size"):
            localise([net], source, classifiers=[classifier], test_scales=(16,))
        other = dataclasses.replace(classifier, class_names=("a", "b", "c"))
        with pytest.raises(ValueError, match="other classes"):
            localise([net], source, classifiers=[other])
        other = dataclasses.replace(
            classifier,
            architecture=dataclasses.replace(classifier.architecture, pool_rounding="up"),
        )
        with pytest.raises(ArgumentError, match="same pool_rounding") as caught:
            localise([net], source, classifiers=[other])
        assert caught.value.argument == "nets"
        with pytest.raises(ArgumentError, match="at least one net") as caught:
            localise([net], source, classifiers=[])
        assert caught.value.argument == "classifiers"
        with pytest.raises(ArgumentError, match="on_bad_image must be one of stop, skip"):
            localise([net], source, classifiers=[classifier], on_bad_image="ignore")


def test_hits_are_those_of_each_image():
    """Images of no, one and several true boxes."""
    rng = np.random.default_rng(0)
    corners = rng.random((40, 5, 2, 2), np.float32)
    boxes = np.concatenate([corners.min(2), corners.max(2)], -1)
    truth = Boxes.of_images([boxes[i, 1 : 1 + i % 3] for i in range(40)])
    classes = np.tile(np.arange(5), (40, 1))
    labels = np.arange(40) % 2
    found = Localised(tuple(map(str, range(40))), labels, truth, classes, boxes, tuple("abcde"), {})
    expected = [
        [c == labels[i] and iou(box, truth[i]).numpy().max(initial=0) > 0.5 for c, box in of_image]
        for i, of_image in enumerate(map(enumerate, boxes))
    ]
    assert np.array_equal(found.hits(), expected)
    assert found.hits().any()
