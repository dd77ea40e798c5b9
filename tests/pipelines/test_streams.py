from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import encode, photo
from vgg_keras.pipelines import images
from vgg_keras.pipelines.boxes import Boxes
from vgg_keras.pipelines.errors import ArgumentError, SourceError
from vgg_keras.pipelines.evaluation import (
    grid_crops,
    read_images,
    validation_stream,
    whole_images,
)
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.splits import Shard
from vgg_keras.pipelines.statistics import ILSVRC, Statistics, compute_statistics
from vgg_keras.pipelines.training import steps_per_epoch, training_stream

NEUTRAL = Statistics((0, 0, 0), (1, 1, 1), ((0, 0, 0),) * 3, 1)
OPTIONS = {"crop_size": 32, "train_scale": (32, 48), "batch_size": 8, "statistics": ILSVRC}


def take(dataset, batches):
    """Images and labels of the first batches, each concatenated to one array."""
    pairs = list(itertools.islice(dataset.as_numpy_iterator(), batches))
    return [np.concatenate(arrays) for arrays in zip(*pairs, strict=True)]


def with_threads(dataset, threads):
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.autotune.enabled = threads > 1
    return dataset.with_options(options)


def single_image_split(tmp_path, pixels, copies):
    (tmp_path / "one.png").write_bytes(encode(pixels, "PNG"))
    paths = np.array([str(tmp_path / "one.png")] * copies)
    return FolderSplit("train", paths, np.zeros(copies, np.int64))


def test_the_stream_is_bit_identical_at_any_number_of_threads(folder):
    split = open_source(folder)["train"]
    runs = [take(with_threads(training_stream(split, **OPTIONS), n), 6) for n in (1, 2, 7)]
    for images_, labels in runs[1:]:
        np.testing.assert_array_equal(images_, runs[0][0])
        np.testing.assert_array_equal(labels, runs[0][1])


DIGESTS = """
import hashlib, sys
from vgg_keras.pipelines import ILSVRC, open_source, training_stream, validation_stream

def digests(spec):
    data, crops = open_source(spec), {"crop_size": 32, "batch_size": 8}
    train = training_stream(data["train"], train_scale=(32, 48), statistics=ILSVRC, **crops)
    val = validation_stream(data["val"], test_scale=40, mean=ILSVRC.mean, **crops)
    for batch in (*train.take(2), *val.take(1)):
        yield hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch)).hexdigest()
"""


@pytest.mark.slow
def test_streams_as_users_run_them_are_those_of_the_tests(folder):
    """TensorFlow rewrites the functions of streams in other processes, and not in this one."""
    here: dict = {}
    exec(DIGESTS, here)
    script = DIGESTS + "print(*digests(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(here["digests"](folder))


def test_the_stream_can_start_at_any_epoch(folder):
    split = open_source(folder)["train"]
    whole = take(training_stream(split, **OPTIONS), 9)
    later = take(training_stream(split, **OPTIONS, first_epoch=2), 3)
    np.testing.assert_array_equal(later[0], whole[0][48:])


def test_draws_depend_on_seed_and_epoch_and_not_on_batch_size(folder):
    split = open_source(folder)["train"]
    base = take(training_stream(split, **OPTIONS), 6)[0]
    assert not np.array_equal(take(training_stream(split, **OPTIONS, seed=1), 3)[0], base[:24])
    assert not np.array_equal(base[:24], base[24:])
    other = take(training_stream(split, **(OPTIONS | {"batch_size": 12})), 2)[0]
    np.testing.assert_array_equal(other, base[:24])


def test_an_epoch_has_each_image_once_and_drops_different_ones_each_time(folder):
    split = open_source(folder)["train"]
    split = dataclasses.replace(split, labels=np.arange(24))  # each label is the index
    assert steps_per_epoch(split, 7) == 3
    _, seen = take(training_stream(split, **OPTIONS), 3)
    assert sorted(seen) == list(range(24))
    _, seen = take(training_stream(split, **(OPTIONS | {"batch_size": 7})), 3 * 20)
    dropped = [set(range(24)) - set(epoch) for epoch in seen.reshape(20, 21)]
    assert all(len(three) == 3 for three in dropped)
    assert len(set.union(*dropped)) > 20  # 22.6 expected


def test_training_scales_are_uniform_and_include_both_ends(tmp_path):
    """The slope of a ramp in the crop shows the scale that was drawn."""
    ramp = np.repeat(np.arange(0, 200, 2, np.uint8)[None, :, None], 100, 0).repeat(3, 2)
    split = single_image_split(tmp_path, ramp, 600)
    stream = training_stream(
        split,
        crop_size=32,
        train_scale=(32, 35),
        batch_size=600,
        statistics=NEUTRAL,
        flip=False,
        colour_shift=0,
    )
    crops, _ = take(stream, 1)
    slope = (crops[:, 16, 20, 0] - crops[:, 16, 10, 0]) / 10
    scales = np.rint(200 / slope).astype(int)
    assert set(scales) == {32, 33, 34, 35}
    assert np.bincount(scales)[32:].min() > 110  # 150 expected, sd 11


def test_half_of_the_crops_are_mirrored(tmp_path):
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    split = single_image_split(tmp_path, ramp, 400)
    options = OPTIONS | {"batch_size": 400, "statistics": NEUTRAL, "colour_shift": 0}
    rising = [
        (c[:, 0, -1, 0] > c[:, 0, 0, 0]).mean()
        for c in (take(training_stream(split, **options, flip=f), 1)[0] for f in (True, False))
    ]
    assert 0.4 < rising[0] < 0.6
    assert rising[1] == 1.0


def test_colour_shift_has_the_covariance_of_its_components(tmp_path):
    """The shift of a constant image has the covariance sd**2 * V diag(value**2) V'."""
    split = single_image_split(tmp_path, np.full((32, 32, 3), 128, np.uint8), 1500)
    options = OPTIONS | {"batch_size": 1500, "train_scale": 32}
    crops, _ = take(training_stream(split, **options, colour_shift=0.1), 1)
    shift = crops + np.float32(ILSVRC.mean) - 128
    assert np.abs(shift - shift[:, :1, :1]).max() < 1e-3  # one draw per image
    vectors, values = np.array(ILSVRC.eigenvectors), np.array(ILSVRC.eigenvalues)
    expected = 0.01 * vectors @ np.diag(values**2) @ vectors.T
    measured = np.cov(shift[:, 0, 0].T)
    np.testing.assert_allclose(measured, expected, atol=0.1 * expected.max())
    assert np.abs(shift[:, 0, 0].mean(0)).max() < 0.4  # standard error 0.08


def test_mean_is_subtracted(tmp_path):
    split = single_image_split(tmp_path, np.full((40, 40, 3), 200, np.uint8), 8)
    crops, _ = take(training_stream(split, **OPTIONS, colour_shift=0), 1)
    np.testing.assert_allclose(
        crops[:, 5, 5], np.tile(200 - np.array(ILSVRC.mean), (8, 1)), atol=1e-3
    )


@pytest.mark.parametrize("scale", [31, (40, 39), (20, 64)])
def test_bad_scales_are_refused(folder, scale):
    with pytest.raises(ValueError, match=r"at least the crop size, 32\. Received: train_scale="):
        training_stream(open_source(folder)["train"], **(OPTIONS | {"train_scale": scale}))


@pytest.mark.parametrize("batch_size", [0, 25])
def test_bad_batch_sizes_are_refused(folder, batch_size):
    with pytest.raises(ValueError, match="from 1 to the number of training images, 24"):
        training_stream(open_source(folder)["train"], **(OPTIONS | {"batch_size": batch_size}))


class TestEvaluation:
    @pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
    def test_grid_crops_have_each_image_once_in_order(self, folder, batch_size):
        split = open_source(folder)["val"]
        batches = list(
            grid_crops(split, test_scale=40, crop_size=32, grid=1, batch_size=batch_size)
        )
        assert np.concatenate([i for i, _ in batches]).tolist() == list(range(12))
        crops = np.concatenate([c for _, c in batches])
        assert crops.shape == (12, 1, 32, 32, 3)
        encoded = Path(split.paths[7]).read_bytes()
        whole = images.rescale(images.decode(encoded), 40).numpy()
        top, left = ((np.array(whole.shape[:2]) - 32 + 1) / 2).astype(int)
        np.testing.assert_array_equal(crops[7, 0], whole[top : top + 32, left : left + 32])

    def test_whole_images_are_grouped_by_shape(self, tmp_path):
        """Each batch has several images of one shape, and no image is missing."""
        rng = np.random.default_rng(0)
        kinds = [("JPEG", 40, 60), ("PNG", 60, 40), ("JPEG", 80, 120), ("JPEG", 60, 40)] * 3
        paths = [str(tmp_path / f"{i}") for i in range(len(kinds))]
        for path, (kind, height, width) in zip(paths, kinds, strict=True):
            Path(path).write_bytes(encode(photo(rng, height, width), kind))
        split = FolderSplit("val", np.array(paths), np.zeros(len(paths), np.int64))
        batches = list(whole_images(split, test_scale=40, batch_pixels=4 * 40 * 60))
        assert sorted(len(i) for i, _ in batches) == [2, 2, 4, 4]
        assert sorted(np.concatenate([i for i, _ in batches])) == list(range(12))
        for indices, views in batches:
            for i, view in zip(indices.numpy(), views.numpy(), strict=True):
                whole = images.rescale(images.decode(Path(paths[i]).read_bytes()), 40)
                np.testing.assert_array_equal(view[0], whole)

    def test_only_wanted_images_are_read(self, folder):
        split = open_source(folder)["val"]
        wanted = np.arange(12) % 3 == 1
        for stream in (
            whole_images(split, test_scale=40, batch_pixels=9999, wanted=wanted),
            grid_crops(split, test_scale=40, crop_size=32, grid=5, batch_size=3, wanted=wanted),
        ):
            assert sorted(np.concatenate([i for i, _ in stream])) == [1, 4, 7, 10]

    @pytest.mark.parametrize("indices", [[7, 2], np.array([7, 2])])
    def test_read_images_returns_the_images_at_the_indices(self, folder, indices):
        split = open_source(folder)["val"]
        found = read_images(split, indices)
        assert sorted(found) == [2, 7]
        np.testing.assert_array_equal(
            found[7], images.decode(Path(split.paths[7]).read_bytes()).numpy()
        )

    @pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
    def test_validation_ends_with_a_smaller_batch(self, folder, batch_size):
        split = open_source(folder)["val"]
        options = {"crop_size": 32, "test_scale": 40, "mean": (0, 0, 0)}
        stream = validation_stream(split, batch_size=batch_size, **options)
        batches = list(stream)
        assert int(stream.cardinality()) == len(batches) == -(-12 // batch_size)
        assert [len(x) for x, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert stream.element_spec[0].shape.as_list() == [None, 32, 32, 3]
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), split.labels)
        crops = grid_crops(split, test_scale=40, crop_size=32, grid=1, batch_size=12)
        np.testing.assert_allclose(
            np.concatenate([x for x, _ in batches]), next(iter(crops))[1][:, 0], atol=0.1
        )

    @pytest.mark.parametrize("batch_size", [1, 5, 7, 12, 100])
    def test_the_accuracy_of_keras_counts_each_image_once(self, folder, batch_size):
        split = open_source(folder)["val"]
        options = {"crop_size": 32, "test_scale": 40, "mean": (100, 100, 100)}
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.layers.Rescaling(1 / 255),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        model.compile(
            "sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
        )
        stream = validation_stream(split, batch_size=batch_size, **options)
        images_, labels = next(iter(validation_stream(split, batch_size=12, **options)))
        history = model.fit(
            images_[:3], labels[:3], validation_data=stream, epochs=2, verbose=0
        ).history
        posteriors = model.predict(images_, verbose=0)
        expected = (posteriors.argmax(1) == labels.numpy()).mean()
        assert history["val_accuracy"][-1] == pytest.approx(expected, abs=1e-6)
        losses = -np.log(posteriors[np.arange(12), labels.numpy()])
        assert history["val_loss"][-1] == pytest.approx(losses.mean(), rel=1e-3)

    def test_validation_batches_with_boxes_are_ragged_or_filled(self, folder):
        split = open_source(folder)["val"]
        options = {"crop_size": 32, "test_scale": 40, "batch_size": 5, "mean": (0, 0, 0)}
        options["boxes"] = Boxes.of_images([[[0, 0, 1, 1]]] * 12)
        ragged = list(validation_stream(split, **options))
        filled = list(validation_stream(split, **options, fill_last=True))
        assert [t.shape.as_list() for _, t in ragged] == [[5, 5], [5, 5], [2, 5]]
        for (x, t), (images_, targets, weights) in zip(ragged, filled, strict=True):
            np.testing.assert_array_equal(images_[: len(x)], x)
            np.testing.assert_array_equal(targets[: len(x)], t)
            assert weights.numpy().tolist() == [1] * len(x) + [0] * (5 - len(x))

    def test_shards_need_full_batches(self, folder):
        with pytest.raises(ArgumentError, match="fill_last must be True") as error:
            validation_stream(
                open_source(folder)["val"],
                crop_size=32,
                test_scale=36,
                batch_size=10,
                mean=(0, 0, 0),
                shard=Shard(0, 2),
            )
        assert error.value.argument == "fill_last"

    def test_validation_can_fill_the_last_batch_with_weight_zero(self, folder):
        split = open_source(folder)["val"]
        options = {"crop_size": 32, "test_scale": 32, "batch_size": 5, "mean": (0, 0, 0)}
        stream = validation_stream(split, **options, fill_last=True)
        batches = list(stream)
        assert int(stream.cardinality()) == 3
        assert [x.shape[0] for x, _, _ in batches] == [5, 5, 5]
        assert [w.numpy().sum() for _, _, w in batches] == [5, 5, 2]

    def test_a_scale_below_the_crop_size_is_refused(self, folder):
        split, common = open_source(folder)["val"], {"crop_size": 32, "test_scale": 31}
        for build in (
            lambda: grid_crops(split, grid=1, batch_size=1, **common),
            lambda: validation_stream(split, batch_size=1, mean=(0, 0, 0), **common),
        ):
            with pytest.raises(ValueError, match=r"at least the crop size, 32\. Received: 31"):
                build()


class TestStatistics:
    def test_statistics_equal_numpy(self, tmp_path):
        rng = np.random.default_rng(0)
        paths, means, seconds = [], [], []
        for i in range(5):
            pixels = photo(rng, 20 + i, 30)
            paths.append(str(tmp_path / f"{i}.png"))
            (tmp_path / f"{i}.png").write_bytes(encode(pixels, "PNG"))
            flat = pixels.reshape(-1, 3).astype(float)
            means.append(flat.mean(0))
            seconds.append(flat.T @ flat / len(flat))
        computed = compute_statistics(FolderSplit("train", np.array(paths), np.zeros(5, np.int64)))
        mean = np.mean(means, 0)
        np.testing.assert_allclose(computed.mean, mean, rtol=1e-5)
        covariance = np.mean(seconds, 0) - np.outer(mean, mean)
        vectors = np.array(computed.eigenvectors)
        rebuilt = vectors @ np.diag(np.array(computed.eigenvalues) * 255) @ vectors.T
        np.testing.assert_allclose(rebuilt, covariance, rtol=1e-3, atol=0.5)
        assert list(computed.eigenvalues) == sorted(computed.eigenvalues, reverse=True)

    def test_grey_images_have_one_component(self, tmp_path):
        pixels = np.tile(np.arange(0, 256, 5, dtype=np.uint8)[:, None, None], (1, 9, 3))
        (tmp_path / "grey.png").write_bytes(encode(pixels, "PNG"))
        paths = np.array([str(tmp_path / "grey.png")])
        computed = compute_statistics(FolderSplit("train", paths, np.zeros(1, np.int64)))
        variance = pixels[:, 0, 0].astype(float).var()
        np.testing.assert_allclose(computed.eigenvalues, [3 * variance / 255, 0, 0], atol=1e-3)
        assert min(computed.eigenvalues) >= 0
        np.testing.assert_allclose(np.abs(computed.eigenvectors)[:, 0], 3**-0.5, rtol=1e-5)

    def test_the_constants_of_ilsvrc_are_those_that_were_published(self):
        """The mean is that of the VGG team's files. The components are an orthonormal basis."""
        assert ILSVRC.mean == (123.68, 116.779, 103.939)
        np.testing.assert_allclose(np.array(ILSVRC.eigenvalues) / 255, [0.2175, 0.0188, 0.0045])
        vectors = np.array(ILSVRC.eigenvectors)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-3)
        assert ILSVRC.images == 1_281_167

    def test_a_draw_moves_colours_along_its_component(self):
        """By the draw times the eigenvalue (Krizhevsky et al. 2012, §4.1)."""
        vectors = ((0.6, 0.8, 0.0), (0.8, -0.6, 0.0), (0.0, 0.0, 1.0))
        found = Statistics((0, 0, 0), (50.0, 20.0, 4.0), vectors, 1).shift_matrix()
        np.testing.assert_allclose(found @ [1, 0, 0], [30, 40, 0])
        np.testing.assert_allclose(found @ [0, -0.5, 0], [-8, 6, 0])
        np.testing.assert_allclose(found @ [0, 0, 2], [0, 0, 8])

    def test_statistics_are_saved_and_loaded(self, tmp_path):
        ILSVRC.save(tmp_path / "s.json")
        assert Statistics.load(tmp_path / "s.json") == ILSVRC
        assert (tmp_path / "s.json").read_text().startswith('{\n  "mean": [\n')
        with pytest.raises(dataclasses.FrozenInstanceError):
            ILSVRC.images = 1

    def test_a_file_without_statistics_is_named(self, tmp_path):
        (tmp_path / "s.json").write_text('{"mean": [1, 2]}')
        with pytest.raises(ValueError, match=r"s\.json holds no statistics"):
            Statistics.load(tmp_path / "s.json")

    def test_numbers_out_of_range_are_refused(self, tmp_path):
        rows = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
        good = Statistics((0.0, 255.0, 128.0), (255.0, 0.5, 0.0), rows, 1)
        good.save(tmp_path / "s.json")
        assert Statistics.load(tmp_path / "s.json") == good
        for name, bad in (
            ("mean", (-0.5, 0.0, 0.0)),
            ("mean", (255.5, 0.0, 0.0)),
            ("eigenvectors", ((1.5, 0.0, 0.0), *rows[1:])),
            ("eigenvectors", (*rows[:2], (0.0, 0.0, -1.5))),
        ):
            dataclasses.replace(good, **{name: bad}).save(tmp_path / "s.json")
            with pytest.raises(SourceError, match=r"s\.json holds no statistics"):
                Statistics.load(tmp_path / "s.json")


class TestShards:
    """Several processes share each batch; their shards, concatenated, are the whole batch."""

    @pytest.mark.parametrize("count", [2, 3])
    def test_training_shards_make_the_whole_batch(self, folder, count):
        options = {"crop_size": 32, "train_scale": (32, 40), "batch_size": 6, "statistics": ILSVRC}
        split = open_source(folder)["train"]
        streams = [training_stream(split, shard=Shard(i, count), **options) for i in range(count)]
        whole = training_stream(split, **options).take(5)  # up to the second epoch
        for batch, *pieces in zip(whole, *streams, strict=False):
            for tensor, *shards in zip(batch, *pieces, strict=True):
                np.testing.assert_array_equal(np.concatenate(shards), tensor)

    @pytest.mark.parametrize("batch_size", [10, 8])
    def test_validation_shards_make_the_whole_batch(self, folder, batch_size):
        """Of 12 images, the last batch has 2, which are all in the first shard, or 4."""
        options = {"crop_size": 32, "test_scale": 36, "batch_size": batch_size, "mean": (1, 2, 3)}
        options["fill_last"] = True
        split = open_source(folder)["val"]
        streams = [validation_stream(split, shard=Shard(i, 2), **options) for i in range(2)]
        assert [int(s.cardinality()) for s in streams] == [2, 2]
        for batch, *pieces in zip(validation_stream(split, **options), *streams, strict=True):
            for tensor, *shards in zip(batch, *pieces, strict=True):
                np.testing.assert_array_equal(np.concatenate(shards), tensor)

    def test_a_batch_that_processes_cannot_share_is_refused(self, folder):
        with pytest.raises(ValueError, match="multiple of the number of processes, 4"):
            validation_stream(
                open_source(folder)["val"],
                crop_size=32,
                test_scale=36,
                batch_size=10,
                mean=(0, 0, 0),
                fill_last=True,
                shard=Shard(0, 4),
            )
