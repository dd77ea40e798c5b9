"""Descriptors equal plain NumPy; batches, caches and kills do not change them."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import encode, photo, write_folder
from tests.tiny import CROP, MEAN, lively
from tests.vgg_keras.features.conftest import rows_of_length_1
from vgg_keras import weights
from vgg_keras.errors import ArgumentError
from vgg_keras.evaluation.rows import RowFiller
from vgg_keras.features.descriptors import compute_descriptors, default_scales, extract_features
from vgg_keras.features.extractor import FeatureExtractor
from vgg_keras.features.procedure import SCALES as PAPER_SCALES
from vgg_keras.features.procedure import check_procedure
from vgg_keras.pipelines.errors import BadImageError, SourceError
from vgg_keras.pipelines.images import decode, rescale
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.trained import TrainedNet
from vgg_keras.weights import WeightsError

SCALES = (32, 40, 57)


def by_hand(model, layer, paths, scale, mean=MEAN, box=None):
    """Descriptors of one scale, image by image and flip by flip: `(N, D)`, not normalised."""
    net, rows = keras.Model(model.input, model.get_layer(layer).output), []
    for path in paths:
        image = decode(tf.io.read_file(path))
        if box is not None:
            image = image[box[1] : box[3], box[0] : box[2]]
        image = rescale(image, scale).numpy() - np.float32(mean)
        maps = [net(view[None]).numpy()[0] for view in (image, image[:, ::-1])]
        rows.append(np.mean([activations.mean((0, 1)) for activations in maps], 0))
    return np.array(rows)


@pytest.fixture(scope="module")
def tables(trained, source):
    """Descriptors of the validation images at each of `SCALES` by hand, by net and layer."""

    @functools.cache
    def computed(net, layer):
        model = trained[net].model
        return [by_hand(model, layer, source["val"].paths, scale) for scale in SCALES]

    return computed


@pytest.fixture(scope="module")
def rows_once(tmp_path_factory):
    """Options with which a net gives its rows of a scale once, however they are aggregated."""
    return {"test_scales": SCALES, "cache_dir": tmp_path_factory.mktemp("rows")}


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
    def test_descriptors_of_several_scales_equal_numpy(
        self, trained, extractors, source, tables, rows_once, layer, aggregate, expected
    ):
        net = extractors[0] if layer == "fc2" else FeatureExtractor.of_net(trained[0], layer)
        ours = compute_descriptors(net, source["val"], aggregate=aggregate, **rows_once)
        assert ours.dtype == np.float32
        assert ours.std(0).max() > 1e-3  # the images differ
        np.testing.assert_allclose(ours, expected(tables(0, layer)), rtol=1e-4, atol=1e-6)

    def test_descriptors_without_a_cache_equal_numpy(self, extractors, source, tables):
        ours = compute_descriptors(
            extractors[0], source["val"], test_scales=SCALES, aggregate="stack"
        )
        np.testing.assert_allclose(ours, side_by_side(tables(0, "fc2")), rtol=1e-4, atol=1e-6)

    def test_descriptors_of_two_nets_equal_numpy(self, extractors, source, tables, rows_once):
        ours = extract_features(extractors, source, ["val"], **rows_once)
        parts = [averaged(tables(net, "fc2")) for net in (0, 1)]
        np.testing.assert_allclose(ours.values, side_by_side(parts), rtol=1e-4, atol=1e-6)
        assert [member["net"] for member in ours.members] == ["A", "B"]

    @pytest.mark.parametrize("region", ["box", "image+box"])
    def test_descriptors_of_boxes_equal_numpy(
        self, trained, extractors, images, source, tmp_path, region
    ):
        split, box = source["val"], (3, 5, 28, 31)
        lines = [f"val,{p.split('/')[-2]},{p.split('/')[-1]},3,5,27,30\n" for p in split.paths]
        file = tmp_path / "boxes.csv"
        file.write_text("split,class,file,x_min,y_min,x_max,y_max\n" + "".join(lines))
        net = extractors[0]
        ours = extract_features(
            [net], source, ["val"], region=region, boxes_file=file, test_scales=[40]
        )
        whole, cut = (
            rows_of_length_1(by_hand(trained[0].model, "fc2", split.paths, 40, box=edges))
            for edges in (None, box)
        )
        expected = cut if region == "box" else side_by_side([whole, cut])
        np.testing.assert_allclose(ours.values, expected, rtol=1e-4, atol=1e-6)

    def test_rows_have_length_1(self, extractors, source, rows_once):
        for aggregate in ("mean", "max", "stack"):
            found = extract_features(extractors, source, ["val"], aggregate=aggregate, **rows_once)
            np.testing.assert_allclose(np.linalg.norm(found.values, axis=1), 1, rtol=1e-6)


class TestInvariance:
    def test_batch_size_and_grouping_do_not_change_descriptors(self, extractors, source):
        net, split = extractors[0], source["val"]
        reference = compute_descriptors(net, split, test_scales=40)
        for batch_size in (1, 3, 500):
            other = compute_descriptors(net, split, test_scales=40, batch_size=batch_size)
            np.testing.assert_allclose(other, reference, atol=1e-6)
        stacked = {"test_scales": SCALES, "aggregate": "stack"}
        np.testing.assert_allclose(
            compute_descriptors(net, split, batch_size=3, **stacked),
            compute_descriptors(net, split, **stacked),
            atol=1e-6,
        )
        some = split.without(split.paths[::2])
        np.testing.assert_allclose(
            compute_descriptors(net, some, test_scales=40),
            reference[1::2],
            atol=1e-6,
        )

    def test_a_mirrored_image_has_the_same_descriptor(self, extractors, tmp_path):
        image = photo(np.random.default_rng(0), 40, 57)
        for i, pixels in enumerate((image, image[:, ::-1])):
            (tmp_path / "c").mkdir(exist_ok=True)
            (tmp_path / f"c/{i}.png").write_bytes(encode(np.ascontiguousarray(pixels), "PNG"))
        split = open_source(f"folder:{tmp_path}")["all"]
        net = extractors[0]
        both, single = (
            compute_descriptors(net, split, test_scales=[40], flip=f) for f in (True, False)
        )
        np.testing.assert_allclose(both[0], both[1], atol=1e-6)
        assert abs(single[0] - single[1]).max() > 1e-4

    def test_a_cache_and_a_kill_do_not_change_descriptors(
        self, extractors, source, tmp_path, monkeypatch
    ):
        net, options = extractors[0], {"test_scales": (32, 40), "batch_size": 4}
        expected = compute_descriptors(net, source["train"], **options)
        batches = iter(range(4))
        whole = RowFiller._refuse_infinite

        def killed(self, one, indices, rows):
            if next(batches, None) is None:
                raise KeyboardInterrupt
            whole(self, one, indices, rows)

        with monkeypatch.context() as patch:
            patch.setattr(RowFiller, "_refuse_infinite", killed)
            with pytest.raises(KeyboardInterrupt):
                compute_descriptors(net, source["train"], cache_dir=tmp_path, **options)
        tables = [np.load(file) for file in tmp_path.glob("*.npy")]
        done = sum(int((~np.isnan(table)).all(1).sum()) for table in tables)
        assert 0 < done < 24
        seen = []
        monkeypatch.setattr(
            RowFiller,
            "_refuse_infinite",
            lambda self, one, indices, rows: seen.extend(indices.tolist()),
        )
        resumed = compute_descriptors(net, source["train"], cache_dir=tmp_path, **options)
        assert len(seen) == 48 - done
        np.testing.assert_allclose(resumed, expected, atol=1e-6)

    def test_a_truncated_cache_file_is_repaired(self, extractors, source, tmp_path):
        net = extractors[0]
        expected = compute_descriptors(net, source["val"], test_scales=[32], cache_dir=tmp_path)
        (file,) = tmp_path.glob("*.npy")
        file.write_bytes(file.read_bytes()[:-1001])
        mended = compute_descriptors(net, source["val"], test_scales=[32], cache_dir=tmp_path)
        np.testing.assert_allclose(mended, expected, atol=1e-6)


class TestNets:
    def test_partial_weights_are_enough_up_to_their_last_layer(self, source, tmp_path):
        model = lively("E")
        whole, part = tmp_path / "whole.npz", tmp_path / "part.npz"
        weights.save(model, whole)
        with np.load(whole) as arrays:
            np.savez(part, **{k: arrays[k] for k in arrays if k.split("_")[0] <= "block3"})
        for layer in ("block3_pool", "block2_conv2"):
            net = FeatureExtractor.load(part, layer, net="E")
            ours = compute_descriptors(net, source["val"], test_scales=[40])
            expected = averaged([by_hand(model, layer, source["val"].paths, 40, ILSVRC.mean)])
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)
        with pytest.raises(WeightsError, match=r"lacks block4_conv1.*needs. It has block1_conv1"):
            FeatureExtractor.load(part, "block4_pool", net="E")
        with pytest.raises(WeightsError, match=r"lacks block4_conv1.*fc2, which the layer fc2"):
            FeatureExtractor.load(part, net="E")

    def test_a_complete_file_of_any_size_is_accepted(self, source, tmp_path):
        model = lively("A")
        weights.save(model, tmp_path / "a.npz")
        net = FeatureExtractor.load(tmp_path / "a.npz")
        assert (net.metadata["net"], net.metadata["crop_size"], net.min_side) == ("A", CROP, CROP)
        expected = averaged([by_hand(model, "fc2", source["val"].paths, 40, ILSVRC.mean)])
        ours = compute_descriptors(net, source["val"], test_scales=[40])
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)

    def test_scales_are_the_papers_in_proportion(self, extractors):
        net = extractors[0]
        assert default_scales(net) == (37, 55, 73)
        metadata = net.metadata | {"crop_size": 224}
        assert default_scales(dataclasses.replace(net, metadata=metadata)) == (256, 384, 512)

    def test_the_same_weights_have_one_digest(self, source, tmp_path):
        """A fitted model, a saved net and a weights file: `similar` finds the net by its digest."""
        model = lively("A")
        model.save_weights(tmp_path / "a.weights.h5")
        fitted = TrainedNet.of_model(model, mean=ILSVRC.mean)
        fitted.save(tmp_path / "saved")
        for layer in ("fc2", "block2_pool"):
            digest = FeatureExtractor.load(tmp_path / "a.weights.h5", layer).digest
            for net in (
                fitted,
                TrainedNet.load(tmp_path / "saved"),
                TrainedNet.load(tmp_path / "a.weights.h5"),
            ):
                assert FeatureExtractor.of_net(net, layer).digest == digest
        assert FeatureExtractor.of_net(TrainedNet.of_model(lively("A", 1), mean=MEAN)).digest != (
            FeatureExtractor.of_net(fitted).digest
        )

    def test_metadata_are_those_of_the_net_and_the_layer(self, trained, tmp_path):
        net = FeatureExtractor.of_net(trained[0], "block3_pool")
        of_net = trained[0].metadata()
        assert net.metadata == {**of_net, "layer": "block3_pool", "mean": list(net.mean)}
        weights.save(lively("A"), tmp_path / "a.npz")
        net = FeatureExtractor.load(
            tmp_path / "a.npz", mean=MEAN, preprocessing="caffe", pool_rounding="up"
        )
        assert net.mean == MEAN
        assert net.metadata == {
            "weights": str(tmp_path / "a.npz"),
            "net": "A",
            "layer": "fc2",
            "crop_size": CROP,
            "width": 1 / 16,
            "pool_rounding": "up",
            "precision": "float32",
            "input": f"BGR in 0..255 minus ({', '.join(f'{v:.6g}' for v in MEAN[::-1])})",
            "preprocessing": "caffe",
            "source_mean": list(MEAN),
            "mean": list(MEAN),
        }

    def test_arguments_of_weights_files_are_refused_for_a_run(self, folders, trained):
        with pytest.raises(ArgumentError, match="preprocessing goes with a weights file"):
            FeatureExtractor.load(folders[0], preprocessing="caffe")

    def test_an_unknown_layer_is_refused(self, trained):
        with pytest.raises(ValueError, match=r"block1_conv1, .*fc2, predictions. Received: 'fc7'"):
            FeatureExtractor.of_net(trained[0], "fc7")


class TestExtractFeatures:
    def test_features_have_names_splits_and_labels(self, extractors, source):
        found = extract_features([extractors[0]], source, test_scales=[32])
        assert found.values.shape == (36, 256)
        assert found.splits == ["train"] * 24 + ["val"] * 12
        assert found.names[0] == "train/blue/000.jpg"
        assert (
            found.labels.tolist() == source["train"].labels.tolist() + [0] * 4 + [1] * 4 + [2] * 4
        )
        assert found.metadata["test_scales"] == [32]
        assert found.metadata["splits"] == ["train", "val"]

    def test_trained_nets_are_accepted_with_a_layer(self, trained, source):
        found = extract_features(trained, source, "val", layer="block3_pool", test_scales=32)
        nets = [FeatureExtractor.of_net(net, "block3_pool") for net in trained]
        expected = extract_features(nets, source, ["val"], test_scales=[32])
        np.testing.assert_array_equal(found.values, expected.values)
        assert found.metadata == expected.metadata
        assert [member["layer"] for member in found.members] == ["block3_pool"] * 2

    def test_a_split_is_accepted(self, extractors, source):
        of_source = extract_features(extractors[0], source, "val", test_scales=32)
        of_split = extract_features(extractors[0], source["val"], test_scales=32)
        np.testing.assert_array_equal(of_split.values, of_source.values)
        assert of_split.splits == ["val"] * 12
        assert of_split.metadata["data"] == "own data"
        assert of_split.labels.tolist() == of_source.labels.tolist()
        unlabelled = as_split([*source["val"].paths[:2]])
        assert extract_features(extractors[0], unlabelled, test_scales=32).targets.shape == (2, 0)

    def test_progress_obeys_verbose(self, extractors, source, capsys):
        extract_features(extractors[0], source, "val", test_scales=32, verbose=0)
        assert capsys.readouterr().err == ""
        extract_features(extractors[0], source, "val", test_scales=32, verbose=1)
        assert "12/12 images" in capsys.readouterr().err

    def test_unreadable_images_stop_or_are_named(self, extractors, tmp_path):
        spec = write_folder(tmp_path / "data", train=2, val=1)
        bad = tmp_path / "data/train/green/001.jpg"
        bad.write_bytes(bad.read_bytes()[:200])
        net, source = extractors[0], open_source(spec)
        with pytest.raises(BadImageError, match=r"green/001\.jpg"):
            extract_features([net], source, test_scales=[32])
        found = extract_features([net], source, test_scales=[32], on_bad_image="skip")
        assert len(found) == 8
        assert found.metadata["skipped"] == [str(bad)]
        assert "train/green/001.jpg" not in found.names

    def test_a_missing_split_is_named_before_others_are_computed(
        self, extractors, source, tmp_path
    ):
        with pytest.raises(SourceError, match="no split 'none'"):
            extract_features([extractors[0]], source, ["val", "none"], cache_dir=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_missing_boxes_are_named(self, extractors, source):
        with pytest.raises(SourceError, match=r"expected in .*boxes\.csv"):
            extract_features([extractors[0]], source, region="box", test_scales=[32])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"aggregate": "sum"}, r"mean, max, stack\. Received: 'sum'"),
            ({"region": "boxes"}, r"image, box, image\+box\. Received: 'boxes'"),
            ({"test_scales": [40, 40]}, r"different scales\. Received: \(40, 40\)"),
            ({"test_scales": [31]}, r"at least the crop size, 32\. Received: 31"),
        ],
    )
    def test_bad_arguments_are_refused(self, extractors, source, options, message):
        with pytest.raises(ValueError, match=message):
            extract_features([extractors[0]], source, **options)

    def test_procedures_are_refused_by_argument(self):
        check_procedure("mean", [256])
        check_procedure("stack", PAPER_SCALES, "image+box")
        assert PAPER_SCALES == (256, 384, 512)
        for bad in (("sum", [256]), ("mean", []), ("mean", [256, 256]), ("mean", [256], "boxes")):
            with pytest.raises(ArgumentError, match="Received: "):
                check_procedure(*bad)

    def test_a_net_that_gives_nan_is_refused(self, source, tmp_path):
        model = lively("A")
        model.get_layer("fc2").bias.assign(np.full(256, np.nan))
        weights_file = tmp_path / "nan.weights.h5"
        model.save_weights(weights_file)
        with pytest.raises(WeightsError, match="fc2"):
            FeatureExtractor.load(weights_file)
        net = FeatureExtractor.of_net(TrainedNet.of_model(model, mean=MEAN))
        with pytest.raises(ArgumentError, match="The net gives NaN or Inf for"):
            extract_features(net, source, ["val"], test_scales=[32])
