"""Properties of the test protocols (§3.2): what must be equal, and what must not matter."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from vgg_keras.evaluation.passes import PassRunner, make_scorer
from vgg_keras.pipelines.errors import BadImageError, SourceError
from vgg_keras.pipelines.images import rescale
from vgg_keras.pipelines.sources import FolderSplit, Source, open_source
from vgg_keras.pipelines.statistics import ILSVRC

from tests.conftest import encode, photo
from tests.tiny import CROP, MEAN, lively
from tests.tiny import NUM_CLASSES as CLASSES
from vgg_keras import vgg
from vgg_keras.evaluation import passes
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.evaluation.procedure import PROTOCOLS, Pass, paper_scales, passes_of
from vgg_keras.nets import NETS
from vgg_keras.recipes import Recipe
from vgg_keras.runs import Run

SIZES = [(50, 70), (70, 50), (41, 41), (50, 70), (33, 90), (50, 71), (50, 70), (120, 64)]


@pytest.fixture(scope="module", autouse=True)
def _trace_each_net_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "make_scorer", functools.cache(make_scorer))
        yield


@pytest.fixture(scope="module")
def model():
    return lively()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Pictures of several sizes, in a lossless format."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    paths = [str(folder / f"{i}.png") for i in range(len(SIZES))]
    for path, (height, width) in zip(paths, SIZES, strict=True):
        tf.io.write_file(path, encode(photo(rng, height, width), "PNG"))
    return FolderSplit("val", np.array(paths), np.arange(len(SIZES)) % CLASSES)


def split_of(tmp_path, *images):
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        tf.io.write_file(path, encode(image, "PNG"))
    return FolderSplit("val", np.array(paths), np.zeros(len(images), np.int64))


def posteriors(model, split, protocol, *scales, flip=None, map_average="scores", **options):
    runner = PassRunner(model, split, crop_size=CROP, mean=MEAN, **options)
    return runner.posteriors(passes_of(protocol, scales, flip, map_average))


def convolutional(model, crop_size=CROP):
    """The same net with its FC layers as Conv2D, built without our own layer: scores at every
    place of the map, from pixels minus the mean."""
    x = inputs = keras.Input((None, None, 3))
    copies = []
    for layer in model.layers[1:]:
        name = layer.name
        if name in ("fc1", "fc2", "predictions"):
            window = crop_size // 32 if name == "fc1" else 1
            activation = None if name == "predictions" else "relu"
            new = keras.layers.Conv2D(layer.units, window, activation=activation)
        elif "dropout" in name or name in ("scores", "posteriors"):
            continue
        else:
            new = type(layer).from_config(layer.get_config())
        x = new(x)
        copies.append((layer, new))
    copy = keras.Model(inputs, x)
    for layer, new in copies:
        if layer.weights:
            new.set_weights(
                [w.reshape(v.shape) for w, v in zip(layer.get_weights(), new.weights, strict=True)]
            )
    return copy


def by_hand(model, split, scale):
    """Dense evaluation, picture by picture and flip by flip, through `convolutional`."""
    net, rows = convolutional(model), []
    for path in split.paths:
        image = rescale(tf.io.decode_png(tf.io.read_file(path)), scale)[None] - MEAN
        scores = [tf.reduce_mean(net(x), (1, 2)) for x in (image, image[:, :, ::-1])]
        rows.append(np.mean([tf.nn.softmax(s)[0] for s in scores], 0))
    return np.array(rows)


class TestDense:
    @pytest.mark.parametrize("scale", [32, 40, 75])
    def test_equals_convolutions_image_by_image(self, model, split, scale):
        ours = posteriors(model, split, "dense", scale)
        theirs = by_hand(model, split, scale)
        assert theirs.std(0).max() > 1e-3  # the pictures differ
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("net", NETS)
    def test_of_every_net_equals_convolutions(self, net):
        model = lively(net)
        x = np.random.default_rng(3).normal(0, 50, (2, 70, 100, 3)).astype("float32")
        scores = tf.reduce_mean(convolutional(model)(x), (1, 2))
        score = make_scorer(model, (0, 0, 0), flip=False)
        np.testing.assert_allclose(score(x[:, None]), tf.nn.softmax(scores), rtol=1e-4, atol=1e-7)

    @settings(max_examples=20, deadline=None)
    @given(height=st.integers(CROP, 150), width=st.integers(CROP, 150), seed=st.integers(0, 99))
    def test_of_any_size_equals_convolutions(self, model, height, width, seed):
        x = np.random.default_rng(seed).normal(0, 50, (1, height, width, 3)).astype("float32")
        scores = tf.reduce_mean(convolutional(model)(x), (1, 2))
        score = make_scorer(model, (0, 0, 0), flip=False)
        np.testing.assert_allclose(score(x[:, None]), tf.nn.softmax(scores), rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("flip", [True, False])
    def test_at_crop_size_on_a_square_equals_the_centre_crop(self, model, tmp_path, flip):
        rng = np.random.default_rng(0)
        squares = split_of(tmp_path, *(photo(rng, n, n) for n in (32, 50, 77)))
        dense, centre, grid = (
            posteriors(model, squares, protocol, CROP, flip=flip)
            for protocol in ("dense", "centre", "multi-crop")
        )
        np.testing.assert_allclose(dense, centre, rtol=1e-5)
        np.testing.assert_allclose(grid, centre, rtol=1e-5)

    def test_pictures_are_averaged_with_their_mirror_image(self, model, tmp_path):
        image = photo(np.random.default_rng(0), 50, 70)
        both = split_of(tmp_path, image, image[:, ::-1])
        plain = posteriors(model, both, "dense", 40, flip=False)
        flipped = posteriors(model, both, "dense", 40)
        assert np.abs(plain[0] - plain[1]).max() > 1e-4
        np.testing.assert_allclose(flipped, [plain.mean(0)] * 2, rtol=1e-5)

    def test_averaging_posteriors_over_the_map(self, model, split):
        ours = posteriors(model, split, "dense", 75, flip=False, map_average="posteriors")
        net = convolutional(model)
        for path, row in zip(split.paths, ours, strict=True):
            image = rescale(tf.io.decode_png(tf.io.read_file(path)), 75)[None] - MEAN
            theirs = tf.reduce_mean(tf.nn.softmax(net(image)), (0, 1, 2))
            np.testing.assert_allclose(row, theirs, rtol=1e-4, atol=1e-7)
        assert np.abs(ours - posteriors(model, split, "dense", 75, flip=False)).max() > 1e-4

    def test_one_trace_whatever_the_sizes(self, model, split):
        runner = PassRunner(model, split, crop_size=CROP, mean=MEAN)
        runner.posteriors(passes_of("multi-crop+dense", (32, 40, 75)))
        (scorer,) = runner._scorers.values()
        assert scorer.experimental_get_tracing_count() == 1


class TestPooling:
    def test_rounding_up_counts_the_places_as_caffe_does(self):
        """Caffe: ceil((side - 2) / 2) + 1 at each of five poolings."""
        for side in (32, 33, 47, 64, 65, 96, 97, 127):
            places = side
            for _ in range(5):
                places = -(-(places - 2) // 2) + 1
            up = vgg("A", 3, CROP, 1 / 16, pool_rounding="up")
            map_shape = up.get_layer("block5_pool").compute_output_shape
            conv = keras.Model(up.input, up.get_layer("block5_pool").output)
            assert conv(np.zeros((1, side, side, 3))).shape[1] == places
            assert map_shape((None, 7, 8, 4)) == (None, 4, 4, 4)

    def test_only_odd_sides_differ(self):
        down, up = lively(), lively(pool_rounding="up")
        for side, equal in ((64, True), (96, True), (63, False)):
            x = np.random.default_rng(0).normal(0, 50, (1, 1, side, side, 3)).astype("float32")
            a, b = (make_scorer(m, (0, 0, 0))(x) for m in (down, up))
            assert np.allclose(a, b, rtol=1e-6) == equal


class TestMultiCrop:
    def test_fifty_crops_on_a_grid_that_touches_the_borders(self, model, split):
        """Position and pixels, against slices of the rescaled picture."""
        runner = PassRunner(model, split, crop_size=CROP, mean=MEAN)
        one = Pass("multi-crop", 40, flip=True)
        views = {int(i): v.numpy() for b in runner.stream(one) for i, v in zip(*b, strict=True)}
        assert sorted(views) == list(range(len(split)))
        for path, i in zip(split.paths, range(len(split)), strict=True):
            image = rescale(tf.io.decode_png(tf.io.read_file(path)), 40).numpy()
            crops, (height, width) = views[i], image.shape[:2]
            assert crops.shape == (25, CROP, CROP, 3)
            rows, columns = (np.linspace(0, n - CROP, 5) + 0.5 for n in (height, width))
            corners = [(int(top), int(left)) for top in rows for left in columns]
            assert corners[0] == (0, 0)
            assert corners[-1] == (height - CROP, width - CROP)
            for crop, (top, left) in zip(crops, corners, strict=True):
                np.testing.assert_array_equal(crop, image[top : top + CROP, left : left + CROP])

    @given(extra=st.integers(0, 300))
    def test_steps_are_even_to_a_pixel(self, extra):
        from vgg_keras.pipelines.evaluation import grid_origins

        rows, columns = grid_origins(tf.constant([CROP, CROP + extra]), CROP, 5).numpy()
        assert rows.tolist() == [0] * 5
        assert (columns[0], columns[-1]) == (0, extra)
        assert np.ptp(np.diff(columns)) <= 1
        assert np.abs(columns - np.linspace(0, extra, 5)).max() <= 0.5

    def test_is_the_mean_over_crops_and_flips(self, model, split):
        runner = PassRunner(model, split, crop_size=CROP, mean=MEAN)
        ours = runner.posteriors([Pass("multi-crop", 40, flip=True)])
        for places, views in runner.stream(Pass("multi-crop", 40, flip=True)):
            for i, crops in zip(places, views.numpy() - np.array(MEAN, "float32"), strict=True):
                both = np.concatenate([crops, crops[:, :, ::-1]])
                np.testing.assert_allclose(
                    ours[i], tf.nn.softmax(model(both)).numpy().mean(0), rtol=1e-4, atol=1e-7
                )


class TestConstantImage:
    """A picture of one colour has no places to tell apart, but for its border: conv. layers
    pad with zeros, which are not that colour."""

    @pytest.fixture
    def grey(self, tmp_path):
        return split_of(tmp_path, np.full((60, 80, 3), 200, np.uint8))

    def test_all_crops_are_the_same(self, model, grey):
        expected = posteriors(model, grey, "centre", 32)
        for scales in ((32,), (40,), (32, 64)):
            for protocol in ("centre", "multi-crop"):
                got = posteriors(model, grey, protocol, *scales, flip=False)
                np.testing.assert_allclose(got, expected, rtol=1e-5)

    def test_without_padding_effects_all_protocols_agree(self, grey):
        """Kernels with nothing but a central tap never reach into the padding."""
        model = lively()
        for layer in model.layers:
            if "conv" in layer.name:
                kernel, bias = layer.get_weights()
                middle = np.zeros_like(kernel)
                middle[1, 1] = kernel.sum((0, 1))
                layer.set_weights([middle, bias])
        expected = posteriors(model, grey, "centre", 32)
        for protocol in PROTOCOLS:
            got = posteriors(model, grey, protocol, 32, 90)
            np.testing.assert_allclose(got, expected, rtol=1e-5)

    def test_what_remains_is_at_the_border_of_the_map(self, model):
        image = np.full((1, 32 * 17, 32 * 17, 3), 60, np.float32)
        scores = convolutional(model)(image).numpy()[0]
        middle = scores[8, 8]
        # The receptive field of block5_pool is 150 pixels in net A: padding ends after 3 places.
        np.testing.assert_allclose(
            scores[3:-3, 3:-3], np.broadcast_to(middle, (11, 11, CLASSES)), rtol=1e-4, atol=1e-5
        )
        assert np.abs(scores[0, 0] - middle).max() > 1e-3


class TestNothingElseMatters:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_batch_size_and_grouping(self, model, split, protocol):
        """One by one, and as many together as there are of a shape."""
        expected = posteriors(model, split, protocol, 40, 64, batch_size=1000)
        got = posteriors(model, split, protocol, 40, 64, batch_size=1)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)

    def test_order_and_company(self, model, split):
        """Each picture by itself, and all in reverse."""
        expected = posteriors(model, split, "dense", 40)
        alone = [
            posteriors(
                model, FolderSplit("val", split.paths[i : i + 1], split.labels[:1]), "dense", 40
            )[0]
            for i in (0, 3, 7)
        ]
        np.testing.assert_allclose(alone, expected[[0, 3, 7]], rtol=0, atol=1e-6)
        turned = FolderSplit("val", split.paths[::-1], split.labels[::-1])
        np.testing.assert_allclose(
            posteriors(model, turned, "dense", 40)[::-1], expected, rtol=0, atol=1e-6
        )

    def test_number_of_workers(self, model, split, monkeypatch):
        expected = posteriors(model, split, "multi-crop+dense", 40)
        monkeypatch.setattr("vgg_keras.pipelines.evaluation._WORKERS", 1)
        np.testing.assert_allclose(
            posteriors(model, split, "multi-crop+dense", 40), expected, rtol=0, atol=1e-6
        )

    def test_batches_are_of_one_shape_and_bounded(self, model, split):
        runner = PassRunner(model, split, crop_size=CROP, mean=MEAN, batch_size=8)
        seen = []
        for places, views in runner.stream(Pass("dense", 40, flip=True)):
            b, v, height, width, _ = views.shape
            assert (v, min(height, width)) == (1, 40)
            assert b == 1 or 2 * b * height * width <= 8 * CROP**2
            seen += places.numpy().tolist()
        assert sorted(seen) == list(range(len(split)))


class TestAveraging:
    def test_over_scales_and_kinds(self, model, split):
        """§4.3: multi-crop & dense is the mean of the two, whatever the number of views."""
        one = {
            (p, q): posteriors(model, split, p, q)
            for p in ("dense", "multi-crop")
            for q in (32, 40)
        }
        dense, crops = (np.mean([one[p, q] for q in (32, 40)], 0) for p in ("dense", "multi-crop"))
        np.testing.assert_allclose(posteriors(model, split, "dense", 32, 40), dense, rtol=1e-5)
        both = posteriors(model, split, "multi-crop+dense", 32, 40)
        np.testing.assert_allclose(both, (dense + crops) / 2, rtol=1e-5)
        np.testing.assert_allclose(both.sum(1), 1, rtol=1e-5)


class TestScales:
    def recipe(self, low, high, crop=224):
        return Recipe(train_scale=(low, high), crop_size=crop)

    @pytest.mark.parametrize(
        ("arguments", "single", "several"),
        [
            ((256, 256), (256,), (224, 256, 288)),
            ((384, 384), (384,), (352, 384, 416)),
            ((256, 512), (384,), (256, 384, 512)),
            ((73, 73, 64), (73,), (64, 73, 82)),
            ((73, 146, 64), (109,), (73, 109, 146)),
            ((256, 257), (256,), (256, 257)),
        ],
    )
    def test_are_the_papers(self, arguments, single, several):
        recipe = self.recipe(*arguments)
        assert paper_scales(recipe) == single
        assert paper_scales(recipe, multi_scale=True) == several

    def test_a_step_down_below_the_crop_is_explained(self):
        with pytest.raises(ValueError, match=r"S - 32, S and S \+ 32 the first is below the crop"):
            paper_scales(self.recipe(224, 224), multi_scale=True)

    def test_under_the_crop_size_is_refused(self, model, split):
        with pytest.raises(ValueError, match=r"at least the crop size, 32\. Received: 31"):
            posteriors(model, split, "dense", 40, 31)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("sparse", (32,)), "protocol must be one of centre, dense, multi-crop, multi-crop"),
            (("dense", ()), "one or more different scales"),
            (("dense", (32, 32)), "one or more different scales"),
            (("dense", (32,), None, "features"), "map_average must be one of scores, posteriors"),
        ],
    )
    def test_unknown_procedures_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            passes_of(*arguments)

    def test_batch_size_of_none_is_refused(self, model, split):
        with pytest.raises(ValueError, match=r"1 or more\. Received: 0"):
            posteriors(model, split, "dense", 40, batch_size=0)


class TestKeeping:
    def test_a_second_evaluation_reads_what_was_kept(self, model, split, tmp_path, monkeypatch):
        cache_dir = tmp_path / "kept"
        expected = posteriors(model, split, "dense", 32, 40, cache_dir=cache_dir)
        assert sorted(p.name.rsplit("-", 1)[0] for p in cache_dir.iterdir()) == [
            "dense-q32",
            "dense-q40",
        ]
        monkeypatch.setattr(PassRunner, "_run", None)  # no pass is run again
        np.testing.assert_array_equal(
            posteriors(model, split, "dense", 32, 40, cache_dir=cache_dir), expected
        )

    def test_goes_on_with_the_pictures_that_are_missing(self, model, split, tmp_path):
        expected = posteriors(model, split, "dense", 40, cache_dir=tmp_path)
        (file,) = tmp_path.iterdir()
        half = np.load(file, mmap_mode="r+")
        half[3:] = np.nan
        half[0] = 1 / CLASSES  # stays as it is: not run again
        half[5, 1:] = 0.1  # a row cut off in the middle
        half.flush()
        got = posteriors(model, split, "dense", 40, cache_dir=tmp_path)
        np.testing.assert_allclose(got[1:], expected[1:], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got[0], 1 / CLASSES)

    @pytest.mark.parametrize("broken", ["zeros", "empty", "shape", "text"])
    def test_a_damaged_file_is_mended_or_named(self, model, split, tmp_path, broken):
        expected = posteriors(model, split, "dense", 40, cache_dir=tmp_path)
        (file,) = tmp_path.iterdir()
        if broken == "zeros":  # what numpy makes of a file that was cut short
            file.write_bytes(file.read_bytes()[:-50])
            got = posteriors(model, split, "dense", 40, cache_dir=tmp_path)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
            return
        if broken == "shape":
            np.save(file, np.zeros((3, 3), np.float32))
        else:
            file.write_bytes({"empty": b"", "text": b"no posteriors here"}[broken])
        with pytest.raises(OSError, match=r"dense-q40-.*holds no results.*Remove it"):
            posteriors(model, split, "dense", 40, cache_dir=tmp_path)

    def test_other_weights_pictures_or_procedures_are_kept_apart(self, model, split, tmp_path):
        posteriors(model, split, "dense", 40, cache_dir=tmp_path)
        runner = PassRunner(model, split, crop_size=CROP, mean=(1, 2, 3), cache_dir=tmp_path)
        runner.posteriors([Pass("dense", 40, flip=True)])
        posteriors(lively(seed=1), split, "dense", 40, cache_dir=tmp_path)
        posteriors(lively(pool_rounding="up"), split, "dense", 40, cache_dir=tmp_path)
        posteriors(model, split.without(split.paths[:1]), "dense", 40, cache_dir=tmp_path)
        posteriors(model, split, "dense", 40, flip=False, cache_dir=tmp_path)
        posteriors(model, split, "dense", 40, map_average="posteriors", cache_dir=tmp_path)
        assert len(list(tmp_path.iterdir())) == 7

    def test_a_folder_that_cannot_be_written(self, model, split, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="Name another folder with --cache-dir"):
            posteriors(model, split, "dense", 40, cache_dir=tmp_path / "file" / "below")


class TestEvaluate:
    @pytest.fixture
    def run(self, model, tmp_path):
        recipe = Recipe(net="A", crop_size=CROP, width=1 / 16, train_scale=(32, 48))
        statistics = dataclasses.replace(ILSVRC, mean=MEAN)
        return Run(tmp_path, recipe, statistics, tuple("abcdefg"), model)

    def source(self, split, names="abcdefg"):
        return Source("pictures", tuple(names), {"val": split})

    def test_says_what_was_done_and_the_errors(self, run, split):
        predictions = evaluate(run, self.source(split), multi_scale=True)
        result = predictions.result()
        assert result["protocol"] == "dense"
        assert result["test_scales"] == [32, 40, 48]
        assert result["images"] == len(split)
        expected = posteriors(run.model, split, "dense", 32, 40, 48)
        np.testing.assert_allclose(predictions.posteriors, expected, rtol=1e-5)
        wrong = (expected.argmax(1) != split.labels).mean()
        assert result["top1_error"] == pytest.approx(100 * wrong)

    def test_some_of_the_nets_classes_are_enough(self, run, split):
        few = FolderSplit("val", split.paths, np.arange(len(split)) % 2)
        predictions = evaluate(run, self.source(few, "fb"))
        assert predictions.labels.tolist() == [5, 1] * (len(split) // 2)
        assert predictions.class_names == tuple("abcdefg")

    def test_a_class_that_the_net_does_not_know_is_named(self, run, split):
        with pytest.raises(SourceError, match="1 of its 3 are not among the net's 7, x first"):
            evaluate(run, self.source(split, "abx"))

    def test_unreadable_pictures_are_left_out_and_named(self, run, split, tmp_path, caplog):
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(encode(photo(np.random.default_rng(0), 50, 70))[:500])
        html = tmp_path / "page.jpg"
        html.write_text("<html>")
        paths = np.array([str(bad), *split.paths[:3], str(html), *split.paths[3:]])
        spoilt = FolderSplit("val", paths, np.arange(len(paths)) % CLASSES)
        with pytest.raises(BadImageError, match=r"bad\.jpg"):
            evaluate(run, self.source(spoilt))
        for protocol in ("dense", "multi-crop+dense"):
            predictions = evaluate(run, self.source(spoilt), protocol=protocol, on_bad_image="skip")
            result = predictions.result()
            assert (result["images"], result["skipped"]) == (len(split), [str(bad), str(html)])
            expected = posteriors(run.model, split, protocol, 40)
            np.testing.assert_allclose(predictions.posteriors, expected, rtol=1e-5, atol=1e-6)
        assert str(bad) in caplog.text

    def test_a_net_that_gives_nan_is_no_unreadable_picture(self, run, split):
        model = lively()
        model.get_layer("fc2").bias.assign(np.full(model.get_layer("fc2").units, np.nan))
        for policy in ("stop", "skip"):
            with pytest.raises(ValueError, match=r"The net gives NaN for .*\.png\. Its weights"):
                evaluate(run._replace(model=model), self.source(split), on_bad_image=policy)

    def test_pictures_without_a_class_are_refused(self, run, split):
        hidden = FolderSplit("val", split.paths, np.where(split.labels == 3, -1, split.labels))
        with pytest.raises(SourceError, match=r"a picture without a class.*3\.png, label -1"):
            evaluate(run, self.source(hidden))

    def test_too_little_memory_is_explained(self, run, split, monkeypatch):
        def score(views):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")

        monkeypatch.setattr(PassRunner, "_scorer", lambda *_: score)
        with pytest.raises(MemoryError, match=r"32 pixels \(25 to.*a smaller --batch-size than 64"):
            evaluate(run, self.source(split), protocol="multi-crop")
        with pytest.raises(MemoryError, match=r"0\.png\. Leave it out, or test at a smaller"):
            evaluate(run, self.source(split), batch_size=1)

    def test_of_a_tfds_set(self, shapes_dir, tmp_path, monkeypatch):
        """Posteriors of one set are not taken for those of another whose files are named alike."""
        source = open_source("shapes", shapes_dir)
        few = source["val"].without(source["val"].names_of(range(8, 400)))
        source = dataclasses.replace(source, splits={"val": few})
        recipe = Recipe(crop_size=CROP, train_scale=(32, 32))
        run = Run(tmp_path, recipe, ILSVRC, source.class_names, vgg("A", 10, CROP, 1 / 16))
        predictions = evaluate(run, source, cache_dir=tmp_path)
        assert predictions.labels.tolist() == few.all_labels().tolist()
        assert all(name.startswith("shapes/1.") for name in predictions.names)
        evaluate(run, source, cache_dir=tmp_path)
        assert len(list(tmp_path.glob("dense-q32-*"))) == 1
        renamed = [name.replace("shapes/", "shapes/large/") for name in few.names_of(range(8))]
        monkeypatch.setattr(type(few), "names_of", lambda _, places: [renamed[i] for i in places])
        evaluate(run, source, cache_dir=tmp_path)
        assert len(list(tmp_path.glob("dense-q32-*"))) == 2

    def test_typing_errors_are_refused(self, run, split):
        with pytest.raises(ValueError, match="on_bad_image must be one of stop, skip"):
            evaluate(run, self.source(split), on_bad_image="ignore")
        with pytest.raises(ValueError, match="not both"):
            evaluate(run, self.source(split), test_scales=(40,), multi_scale=True)

    def test_nothing_readable_at_all(self, run, tmp_path):
        (tmp_path / "x.jpg").write_text("no picture")
        split = FolderSplit("val", np.array([str(tmp_path / "x.jpg")]), np.zeros(1, np.int64))
        with pytest.raises(SourceError, match="None of the 1 pictures"):
            evaluate(run, self.source(split), on_bad_image="skip")
