"""Descriptors against plain NumPy, and what must not change them."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import encode, photo, write_folder
from tests.tiny import CROP, MEAN, lively
from tests.vgg_keras.features.conftest import rows_of_length_1
from vgg_keras import weights
from vgg_keras.features.descriptors import DescriptorRunner, describe, extract, scales_of
from vgg_keras.features.nets import FeatureExtractor
from vgg_keras.pipelines.errors import BadImageError, SourceError
from vgg_keras.pipelines.images import decode, rescale
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.weights import WeightsError

SCALES = (32, 40, 57)


def by_hand(model, layer, paths, scale, mean=MEAN, box=None):
    """One scale, picture by picture and flip by flip: unnormalised, `(N, D)`."""
    net, rows = keras.Model(model.input, model.get_layer(layer).output), []
    for path in paths:
        image = decode(tf.io.read_file(path))
        if box is not None:
            image = image[box[1] : box[3], box[0] : box[2]]
        image = rescale(image, scale).numpy() - np.float32(mean)
        maps = [net(view[None]).numpy()[0] for view in (image, image[:, ::-1])]
        rows.append(np.mean([activations.mean((0, 1)) for activations in maps], 0))
    return np.array(rows)


def averaged(tables):
    return rows_of_length_1(sum(tables) / len(tables))


def greatest(tables):
    return rows_of_length_1(np.maximum.reduce(tables))


def side_by_side(tables):
    return rows_of_length_1(np.hstack([rows_of_length_1(table) for table in tables]))


class TestAgainstNumpy:
    @pytest.mark.parametrize(
        ("layer", "aggregate", "expected"),
        [
            ("fc2", "mean", averaged),
            ("fc2", "max", greatest),
            ("fc2", "stack", side_by_side),
            ("block3_pool", "stack", side_by_side),
        ],
    )
    def test_of_several_scales(self, runs, nets, source, layer, aggregate, expected):
        split = source["val"]
        net = nets[0] if layer == "fc2" else FeatureExtractor.of_run(runs[0], layer)
        ours = describe(net, split, test_scales=SCALES, aggregate=aggregate)
        tables = [by_hand(runs[0].model, layer, split.paths, scale) for scale in SCALES]
        assert ours.dtype == np.float32
        assert ours.std(0).max() > 1e-3  # the pictures differ
        np.testing.assert_allclose(ours, expected(tables), rtol=1e-4, atol=1e-6)

    def test_of_two_nets(self, runs, nets, source):
        split = source["val"]
        ours = extract(nets, source, ["val"], test_scales=SCALES)
        parts = [
            averaged([by_hand(run.model, "fc2", split.paths, scale) for scale in SCALES])
            for run in runs
        ]
        np.testing.assert_allclose(ours.values, side_by_side(parts), rtol=1e-4, atol=1e-6)
        assert [member["net"] for member in ours.members] == ["A", "B"]

    @pytest.mark.parametrize("region", ["box", "image+box"])
    def test_of_boxes(self, runs, nets, pictures, source, tmp_path, region):
        split, box = source["val"], (3, 5, 28, 31)
        lines = [f"val,{p.split('/')[-2]},{p.split('/')[-1]},3,5,27,30\n" for p in split.paths]
        file = tmp_path / "boxes.csv"
        file.write_text("split,class,file,x_min,y_min,x_max,y_max\n" + "".join(lines))
        net = nets[0]
        ours = extract([net], source, ["val"], region=region, boxes_file=file, test_scales=[40])
        whole, cut = (
            rows_of_length_1(by_hand(runs[0].model, "fc2", split.paths, 40, box=edges))
            for edges in (None, box)
        )
        expected = cut if region == "box" else side_by_side([whole, cut])
        np.testing.assert_allclose(ours.values, expected, rtol=1e-4, atol=1e-6)

    def test_rows_have_length_1(self, nets, source):
        for aggregate in ("mean", "max", "stack"):
            found = extract(nets, source, ["val"], test_scales=SCALES, aggregate=aggregate)
            np.testing.assert_allclose(np.linalg.norm(found.values, axis=1), 1, rtol=1e-6)


class TestIsTheSame:
    def test_with_any_batch_size_and_grouping(self, nets, source):
        net = nets[0]
        reference = describe(net, source["train"], test_scales=SCALES, aggregate="stack")
        for batch_size in (1, 3, 500):
            other = describe(
                net, source["train"], test_scales=SCALES, aggregate="stack", batch_size=batch_size
            )
            np.testing.assert_allclose(other, reference, atol=1e-6)
        some = source["train"].without(source["train"].paths[::2])
        np.testing.assert_allclose(
            describe(net, some, test_scales=SCALES, aggregate="stack"), reference[1::2], atol=1e-6
        )

    def test_for_a_mirrored_picture(self, nets, tmp_path):
        image = photo(np.random.default_rng(0), 40, 57)
        for i, pixels in enumerate((image, image[:, ::-1])):
            (tmp_path / "c").mkdir(exist_ok=True)
            (tmp_path / f"c/{i}.png").write_bytes(encode(np.ascontiguousarray(pixels), "PNG"))
        split = open_source(f"folder:{tmp_path}")["all"]
        net = nets[0]
        both, single = (describe(net, split, test_scales=[40], flip=f) for f in (True, False))
        np.testing.assert_allclose(both[0], both[1], atol=1e-6)
        assert abs(single[0] - single[1]).max() > 1e-4

    def test_whether_kept_or_not_and_after_a_kill(self, nets, source, tmp_path, monkeypatch):
        net, options = nets[0], {"test_scales": (32, 40), "batch_size": 4}
        expected = describe(net, source["train"], **options)
        batches = iter(range(4))
        whole = DescriptorRunner._refuse_nan

        def killed(self, places, rows):
            if next(batches, None) is None:
                raise KeyboardInterrupt
            whole(self, places, rows)

        with monkeypatch.context() as patch:
            patch.setattr(DescriptorRunner, "_refuse_nan", killed)
            with pytest.raises(KeyboardInterrupt):
                describe(net, source["train"], cache_dir=tmp_path, **options)
        tables = [np.load(file) for file in tmp_path.glob("*.npy")]
        done = sum(int((~np.isnan(table)).all(1).sum()) for table in tables)
        assert 0 < done < 24
        seen = []
        monkeypatch.setattr(
            DescriptorRunner,
            "_refuse_nan",
            lambda self, places, rows: seen.extend(places.numpy().tolist()),
        )
        resumed = describe(net, source["train"], cache_dir=tmp_path, **options)
        assert len(seen) == 48 - done
        np.testing.assert_allclose(resumed, expected, atol=1e-6)

    def test_after_a_file_was_cut_short(self, nets, source, tmp_path):
        net = nets[0]
        expected = describe(net, source["val"], test_scales=[32], cache_dir=tmp_path)
        (file,) = tmp_path.glob("*.npy")
        file.write_bytes(file.read_bytes()[:-1001])
        mended = describe(net, source["val"], test_scales=[32], cache_dir=tmp_path)
        np.testing.assert_allclose(mended, expected, atol=1e-6)


class TestNets:
    def test_partial_weights_are_enough_up_to_their_last_layer(self, source, tmp_path):
        model = lively("E")
        whole, part = tmp_path / "whole.npz", tmp_path / "part.npz"
        weights.save(model, whole)
        with np.load(whole) as arrays:
            np.savez(part, **{k: arrays[k] for k in arrays if k.split("_")[0] <= "block3"})
        for layer in ("block3_pool", "block2_conv2"):
            net = FeatureExtractor.of_weights(part, "E", layer)
            ours = describe(net, source["val"], test_scales=[40])
            expected = averaged([by_hand(model, layer, source["val"].paths, 40, ILSVRC.mean)])
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)
        with pytest.raises(WeightsError, match=r"lacks block4_conv1.*needs. It has block1_conv1"):
            FeatureExtractor.of_weights(part, "E", "block4_pool")
        with pytest.raises(WeightsError, match=r"lacks block4_conv1.*fc2, which the layer fc2"):
            FeatureExtractor.of_weights(part, "E")

    def test_a_whole_file_of_any_size_will_do(self, source, tmp_path):
        model = lively("A")
        weights.save(model, tmp_path / "a.npz")
        net = FeatureExtractor.of_weights(tmp_path / "a.npz")
        assert (net.metadata["net"], net.metadata["crop_size"], net.smallest) == ("A", CROP, CROP)
        expected = averaged([by_hand(model, "fc2", source["val"].paths, 40, ILSVRC.mean)])
        ours = describe(net, source["val"], test_scales=[40])
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)

    def test_scales_are_the_papers_in_proportion(self, nets):
        net = nets[0]
        assert scales_of(net) == (37, 55, 73)
        metadata = net.metadata | {"crop_size": 224}
        assert scales_of(dataclasses.replace(net, metadata=metadata)) == (256, 384, 512)

    def test_an_unknown_layer_is_refused(self, runs):
        with pytest.raises(ValueError, match=r"block1_conv1, .*fc2, predictions. Received: 'fc7'"):
            FeatureExtractor.of_run(runs[0], "fc7")


class TestExtract:
    def test_has_names_splits_and_labels(self, nets, source):
        found = extract([nets[0]], source, test_scales=[32])
        assert found.values.shape == (36, 256)
        assert found.splits == ["train"] * 24 + ["val"] * 12
        assert found.names[0] == "train/blue/000.jpg"
        assert (
            found.labels.tolist() == source["train"].labels.tolist() + [0] * 4 + [1] * 4 + [2] * 4
        )
        assert found.metadata["test_scales"] == [32]
        assert found.metadata["splits"] == ["train", "val"]

    def test_unreadable_pictures_stop_or_are_named(self, nets, tmp_path):
        spec = write_folder(tmp_path / "data", train=2, val=1)
        bad = tmp_path / "data/train/green/001.jpg"
        bad.write_bytes(bad.read_bytes()[:200])
        net, source = nets[0], open_source(spec)
        with pytest.raises(BadImageError, match=r"green/001\.jpg"):
            extract([net], source, test_scales=[32])
        found = extract([net], source, test_scales=[32], on_bad_image="skip")
        assert len(found) == 8
        assert found.metadata["skipped"] == [str(bad)]
        assert "train/green/001.jpg" not in found.names

    def test_boxes_that_are_missing_are_named(self, nets, source):
        with pytest.raises(SourceError, match=r"expected in .*boxes\.csv"):
            extract([nets[0]], source, region="box", test_scales=[32])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"aggregate": "sum"}, r"mean, max, stack\. Received: 'sum'"),
            ({"region": "boxes"}, r"image, box, image\+box\. Received: 'boxes'"),
            ({"test_scales": [40, 40]}, r"different scales\. Received: \(40, 40\)"),
            ({"test_scales": [31]}, r"at least the crop size, 32\. Received: 31"),
        ],
    )
    def test_of_what_cannot_be_is_refused(self, nets, source, options, message):
        with pytest.raises(ValueError, match=message):
            extract([nets[0]], source, **options)

    def test_of_a_net_that_gives_nan_is_refused(self, source, tmp_path):
        model = lively("A")
        model.get_layer("fc2").bias.assign(np.full(256, np.nan))
        net = FeatureExtractor.of_weights
        weights_file = tmp_path / "nan.weights.h5"
        model.save_weights(weights_file)
        with pytest.raises(WeightsError, match="fc2"):
            net(weights_file)
