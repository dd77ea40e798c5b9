"""Splits of own data have the same pixels as files, and each error has its own message."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.conftest import encode, photo
from vgg_keras.pipelines import (
    ILSVRC,
    Source,
    Split,
    compute_statistics,
    decode,
    find_bad_images,
    grid_crops,
    open_source,
    training_stream,
    validation_stream,
    whole_images,
)
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.errors import ArgumentError, SourceError
from vgg_keras.pipelines.sources.own import as_split

LABELS = [0, 0, 0, 1, 1, 1, 2, 2]
SIZES = [(40, 40), (40, 60), (60, 40), (40, 40), (33, 47), (40, 60), (50, 35), (40, 40)]


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return [photo(rng, *size) for size in SIZES]


@pytest.fixture(scope="module")
def files(arrays, tmp_path_factory):
    """The same images as PNG files in class folders, as a split."""
    root = tmp_path_factory.mktemp("data")
    for i, (label, array) in enumerate(zip(LABELS, arrays, strict=True)):
        (root / str(label)).mkdir(exist_ok=True)
        (root / str(label) / f"{i}.png").write_bytes(encode(array, "PNG"))
    return open_source(f"folder:{root}")["all"]


def dataset_of(arrays, labels=LABELS):
    encoded = [encode(array, "PNG") for array in arrays]
    return tf.data.Dataset.from_tensor_slices((encoded, labels))


@pytest.fixture(scope="module", params=["arrays", "paths", "dataset"])
def own(request, arrays, files):
    if request.param == "arrays":
        return Split.from_arrays(arrays, LABELS)
    if request.param == "paths":
        return Split.from_paths([Path(path) for path in files.paths], np.array(LABELS))
    return Split.from_dataset(dataset_of(arrays), count=8)


def training(split):
    options = {"crop_size": 32, "train_scale": (32, 48), "batch_size": 4, "statistics": ILSVRC}
    return training_stream(split, **options).take(4)


def validation(split):
    return validation_stream(split, crop_size=32, test_scale=36, batch_size=3, mean=ILSVRC.mean)


def crops(split):
    return grid_crops(split, test_scale=40, crop_size=32, grid=3, batch_size=3)


def whole(split):
    return whole_images(split, test_scale=40, batch_pixels=3 * 40 * 60)


@pytest.fixture(scope="module")
def of_files(files):
    """The elements of a stream of the files, computed once for all forms."""
    return functools.cache(lambda stream: list(stream(files)))


@pytest.fixture(scope="module")
def statistics(files):
    return compute_statistics(files)


def assert_same_elements(dataset, expected):
    for element, other in zip(dataset, expected, strict=True):
        for tensor, another in zip(element, other, strict=True):
            np.testing.assert_array_equal(tensor, another)


class TestSamePixelsAsFiles:
    def test_labels_and_classes_are_the_same(self, own, files):
        assert len(own) == 8
        np.testing.assert_array_equal(own.all_labels(), LABELS)
        assert own.all_labels().dtype == np.int64
        assert own.class_names == files.class_names == ("0", "1", "2")
        assert [int(e["label"]) for e in own.in_order()] == LABELS
        assert [int(e["index"]) for e in own.in_order()] == list(range(8))

    def test_training_streams_are_the_same(self, own, of_files):
        stream = training(own)
        if hasattr(own, "dataset"):  # shuffled through a buffer
            images, _ = zip(*stream, strict=True)
            _, labels = zip(*stream, strict=True)
            assert np.concatenate(images).shape == (16, 32, 32, 3)
            assert sorted(np.concatenate(labels)) == sorted(LABELS * 2)
        else:
            assert_same_elements(stream, of_files(training))

    def test_validation_streams_are_the_same(self, own, of_files):
        assert_same_elements(validation(own), of_files(validation))

    def test_whole_images_and_grid_crops_are_the_same(self, own, of_files):
        assert_same_elements(crops(own), of_files(crops))
        found, expected = (
            {int(i): v for batch in batches for i, v in zip(*batch, strict=True)}
            for batches in (whole(own), of_files(whole))
        )
        assert sorted(found) == sorted(expected) == list(range(8))
        for i in range(8):
            np.testing.assert_array_equal(found[i], expected[i])

    def test_statistics_and_screening_are_the_same(self, own, statistics):
        computed = compute_statistics(own)
        np.testing.assert_allclose(computed.mean, statistics.mean, rtol=1e-6)
        np.testing.assert_allclose(computed.eigenvalues, statistics.eigenvalues, rtol=1e-5)
        assert find_bad_images(own) == []

    def test_without_removes_images_by_name(self, own):
        fewer = own.without(own.names_of([0, 5]))
        assert fewer.all_labels().tolist() == [0, 0, 1, 1, 2, 2]
        assert fewer.names_of(range(6)) == own.names_of([1, 2, 3, 4, 6, 7])
        assert [int(e["index"]) for e in fewer.in_order()] == list(range(6))
        again = fewer.without(fewer.names_of([0]))
        assert again.names_of(range(5)) == own.names_of([2, 3, 4, 6, 7])
        pixels = [decode(again.read(e)).shape[:2] for e in again.in_order()]
        assert pixels == [SIZES[i] for i in (2, 3, 4, 6, 7)]

    @pytest.mark.parametrize("seed", [0, 2**40])
    def test_shuffled_is_a_permutation_that_depends_on_the_seed(self, own, seed):
        def order(seed):
            return [int(e["index"]) for e in own.shuffled(tf.constant(seed, tf.int64))]

        assert sorted(order(seed)) == list(range(8))
        assert order(seed) == order(seed)
        assert len({tuple(order(seed + i)) for i in range(4)}) > 1

    def test_own_data_without_boxes_are_refused(self, own):
        with pytest.raises(SourceError, match=r"'train' split has no boxes"):
            boxed_split(Source.of(train=own), Source.of(train=own)["train"])


class TestArrays:
    def test_one_array_and_its_slices_are_not_copied(self, arrays):
        images = np.stack([arrays[0], arrays[3]])
        split = Split.from_arrays(images, [1, 0], ["cat", "dog"])
        assert split.images is images
        assert split.names_of([1, 0]) == ["image 1", "image 0"]
        assert split.class_names == ("cat", "dog")
        for example, image in zip(split.in_order(), images, strict=True):
            np.testing.assert_array_equal(decode(split.read(example)), image)

    def test_labels_of_keras_datasets_are_accepted(self):
        images = np.zeros((3, 4, 5, 3), np.uint8)
        split = Split.from_arrays(images, np.array([[2], [0], [1]], np.uint8))
        assert split.all_labels().tolist() == [2, 0, 1]

    def test_images_without_labels_are_accepted(self, arrays):
        split = Split.from_arrays(arrays, class_names=("a", "b"))
        assert split.all_labels().tolist() == [-1] * 8
        assert split.class_names == ("a", "b")
        assert Split.from_arrays(arrays).class_names is None

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (
                np.zeros((2, 4, 4, 3)),
                r"Received: float64 of shape \(2, 4, 4, 3\)\. .*255 \* images",
            ),
            (np.full((2, 4, 4, 3), 9, np.float32), r"Received: float32 of shape \(2, 4, 4, 3\)$"),
            (np.zeros((2, 4, 4, 3), np.int64), "Received: int64"),
            (np.zeros((4, 4, 3), np.uint8), r"of shape \(4, 4, 3\)"),
            (np.zeros((2, 4, 4), np.uint8), r"of shape \(2, 4, 4\)"),
            (np.zeros((2, 4, 4, 1), np.uint8), r"of shape \(2, 4, 4, 1\)"),
            (np.zeros((0, 4, 4, 3), np.uint8), "Received: no image"),
            ([], "Received: no image"),
            ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)], "for image 1"),
            ([np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8)], "for image 1"),
            ([np.zeros((4, 4, 3), np.float32)], "float32 .* for image 0. Values from 0 to 1"),
        ],
    )
    def test_other_arrays_are_refused(self, images, message):
        with pytest.raises(ArgumentError, match=message) as error:
            Split.from_arrays(images)
        assert "images must be a uint8 RGB array" in str(error.value)
        assert error.value.argument == "images"


@pytest.mark.parametrize(
    ("labels", "class_names", "message"),
    [
        ([0, 1], None, r"as many as the images, 3\. Received: 2"),
        ([0, 1, -1], None, r"from 0 to 1\. Received: -1 for image 2"),
        ([0, 5, 2], ["a", "b"], r"from 0 to 1\. Received: 5 for image 1"),
        ([0.0, 1.0, 2.0], None, "must be integers, one for each image. Received: float64"),
        ([True, False, True], None, "must be integers"),
        ([[1, 0], [0, 1], [1, 0]], None, r"Received: int64 of shape \(3, 2\)"),
        (["a", "b", "c"], None, "must be integers"),
        ([-1, -1, -1], None, r"0 or more\. Received: -1 for image 0"),
    ],
)
@pytest.mark.parametrize("kind", ["arrays", "paths"])
def test_wrong_labels_are_named(labels, class_names, message, kind, tmp_path):
    array = np.zeros((4, 4, 3), np.uint8)
    (tmp_path / "x.png").write_bytes(encode(array, "PNG"))
    make, image = {
        "arrays": (Split.from_arrays, array),
        "paths": (Split.from_paths, tmp_path / "x.png"),
    }[kind]
    with pytest.raises(ArgumentError, match=message) as error:
        make([image] * 3, labels, class_names)
    assert error.value.argument == "labels"


class TestDataset:
    def test_wrong_labels_are_named(self, arrays):
        dataset = dataset_of(arrays, [0, 1, 2, 3, 4, 5, 6, 7])
        with pytest.raises(ArgumentError, match=r"from 0 to 2\. Received: 3 for image 3"):
            Split.from_dataset(dataset, 8, ["a", "b", "c"])

    @pytest.mark.parametrize(
        ("count", "repeats", "message"),
        [
            (9, 1, "the dataset has 8"),
            (7, 1, "has more"),
            (7, None, "has more"),
            (0, 1, "1 or more"),
        ],
    )
    def test_a_wrong_count_is_refused(self, arrays, count, repeats, message):
        with pytest.raises(ArgumentError, match=message) as error:
            Split.from_dataset(dataset_of(arrays).repeat(repeats), count)
        assert error.value.argument == "count"

    def test_other_elements_are_refused(self, arrays):
        for dataset in (
            dataset_of(arrays).batch(2),
            dataset_of(arrays).map(lambda image, _: image),
            dataset_of(arrays).map(lambda image, _: (decode(image), 0)),
            dataset_of(arrays).map(lambda image, _: (image, 0.5)),
        ):
            with pytest.raises(ArgumentError, match=r"elements \(encoded image, scalar string"):
                Split.from_dataset(dataset, 8)

    def test_a_bad_image_is_named(self, arrays):
        dataset = tf.data.Dataset.from_tensor_slices(([b"x", encode(arrays[0])], [0, 0]))
        assert find_bad_images(Split.from_dataset(dataset, 2)) == ["image 0"]


class TestSource:
    def test_a_source_is_made_of_splits(self, arrays):
        train = Split.from_arrays(arrays, LABELS)
        source = Source.of(train=train, val=Split.from_arrays(arrays[3:], LABELS[3:]))
        assert source.class_names == ("0", "1", "2")
        assert [source[name].name for name in ("train", "val")] == ["train", "val"]
        assert len(source["val"]) == 5
        assert train.name == "own"
        with pytest.raises(SourceError, match="own data has no split 'test'"):
            source["test"]

    def test_class_names_must_agree(self, arrays):
        train = Split.from_arrays(arrays, LABELS)
        with pytest.raises(ArgumentError, match=r"train and val must have the same class names"):
            Source.of(train=train, val=Split.from_arrays(arrays[:3], LABELS[:3]))
        with pytest.raises(ArgumentError, match=r"train must have class names"):
            Source.of(train=Split.from_arrays(arrays))
        with pytest.raises(ArgumentError, match="At least one split"):
            Source.of()


class TestAnyForm:
    def test_every_form_has_the_same_pixels(self, arrays, files, tmp_path):
        paths = list(files.paths)
        encoded = [encode(array, "PNG") for array in arrays]
        for given, chosen in (
            (paths[1], [1]),
            (Path(paths[1]), [1]),
            (paths, range(8)),
            (files.paths, range(8)),
            (tuple(map(Path, paths)), range(8)),
            (encoded[2], [2]),
            (encoded, range(8)),
            (arrays[1], [1]),
            (Image.fromarray(arrays[1]), [1]),
            (arrays, range(8)),
            (np.stack([arrays[0], arrays[3]]), [0, 3]),
        ):
            split = as_split(given)
            assert len(split) == len(list(chosen))
            assert split.all_labels().tolist() == [-1] * len(split)
            assert split.class_names is None
            for example, i in zip(split.in_order(), chosen, strict=True):
                np.testing.assert_array_equal(decode(split.read(example)), arrays[i])

    def test_every_form_has_names(self, arrays, files):
        assert as_split([files.paths[3], files.paths[0]]).names_of([0]) == [files.paths[3]]
        assert as_split(arrays).names_of([2]) == ["image 2"]
        assert as_split([b"x", b"y"]).names_of([1]) == ["image 1"]
        assert find_bad_images(as_split([encode(arrays[0]), b"y"])) == ["image 1"]

    def test_other_forms_are_refused(self, arrays, tmp_path):
        with pytest.raises(SourceError, match="No image is given"):
            as_split([])
        with pytest.raises(ArgumentError, match=r"same form\. Received: arrays and bytes"):
            as_split([b"x", arrays[0]])
        with pytest.raises(SourceError, match=r"no such file: .*gone\.png$"):
            as_split(tmp_path / "gone.png")
        with pytest.raises(SourceError, match=r"The folder .* holds no images"):
            as_split(str(tmp_path))
        with pytest.raises(ArgumentError, match="uint8 RGB"):
            as_split(np.zeros((4, 4, 3)))
        with pytest.raises(ArgumentError, match="uint8 RGB"):
            as_split(5)
