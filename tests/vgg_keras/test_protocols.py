"""Properties of the test protocols (§3.2): equal results, and what does not change results."""

from __future__ import annotations

import dataclasses
import functools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import encode, photo
from tests.tiny import CROP, MEAN, lively
from tests.tiny import NUM_CLASSES as CLASSES
from vgg_keras import vgg
from vgg_keras.architecture import Architecture
from vgg_keras.evaluation import posteriors as posteriors_module
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.evaluation.posteriors import make_scorer, row_pass
from vgg_keras.evaluation.procedure import PROTOCOLS, VIEWS, Pass, Procedure, paper_scales
from vgg_keras.evaluation.rows import RowFiller
from vgg_keras.facts import NetFacts
from vgg_keras.nets import NETS
from vgg_keras.pipelines.errors import ArgumentError, BadImageError, SourceError
from vgg_keras.pipelines.images import rescale
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.splits import Source
from vgg_keras.trained import TrainedNet

SIZES = [(50, 70), (70, 50), (41, 41), (50, 70), (33, 90), (50, 71), (50, 70), (120, 64)]


@pytest.fixture(scope="module", autouse=True)
def _trace_each_net_once():
    scorers = {}

    def make_once(net, *, flip, map_average):
        key = id(net.model), net.mean, flip, map_average
        if key not in scorers:
            scorers[key] = net, make_scorer(net, flip=flip, map_average=map_average)
        return scorers[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posteriors_module, "make_scorer", make_once)
        yield


@pytest.fixture(scope="module")
def model():
    return lively()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Images of several sizes, in a lossless format."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    paths = [str(folder / f"{i}.png") for i in range(len(SIZES))]
    for path, (height, width) in zip(paths, SIZES, strict=True):
        tf.io.write_file(path, encode(photo(rng, height, width), "PNG"))
    return FolderSplit("val", np.array(paths), np.arange(len(SIZES)) % CLASSES)


def split_of(tmp_path, *images):
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        tf.io.write_file(path, encode(image, "PNG"))
    return FolderSplit("val", np.array(paths), np.zeros(len(images), np.int64))


def net_of(model, mean=MEAN, **options):
    return TrainedNet.of_model(model, mean=mean, **options)


def posteriors(
    model, split, protocol, *scales, flip=None, map_average="scores", mean=MEAN, **options
):
    net = net_of(model, mean)
    passes = Procedure(protocol, scales, flip=flip, map_average=map_average).passes(net)
    return posteriors_module.posteriors(net, split, passes, verbose=0, **options)


def stream(model, split, one, **options):
    return RowFiller(split, **options).stream(row_pass(net_of(model), one, None))


@functools.cache
def convolutional(model, crop_size=CROP):
    """The same net with its FC layers as Conv2D, built without `SlidingDense`. It computes the
    scores at every position of the map from pixels minus the mean."""
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
    """Dense evaluation by `convolutional`, image by image and flip by flip."""
    net, rows = convolutional(model), []
    for path in split.paths:
        image = rescale(tf.io.decode_png(tf.io.read_file(path)), scale)[None] - MEAN
        scores = [tf.reduce_mean(net(x), (1, 2)) for x in (image, image[:, :, ::-1])]
        rows.append(np.mean([tf.nn.softmax(s)[0] for s in scores], 0))
    return np.array(rows)


class TestDense:
    @pytest.mark.parametrize("scale", [32, 40, 75])
    def test_dense_equals_convolutions_image_by_image(self, model, split, scale):
        ours = posteriors(model, split, "dense", scale)
        theirs = by_hand(model, split, scale)
        assert theirs.std(0).max() > 1e-3  # the images differ
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("net", NETS)
    def test_every_net_equals_convolutions(self, net):
        model = lively(net)
        x = np.random.default_rng(3).normal(0, 50, (2, 70, 100, 3)).astype("float32")
        scores = tf.reduce_mean(convolutional(model)(x), (1, 2))
        score = make_scorer(net_of(model, (0, 0, 0)), flip=False)
        np.testing.assert_allclose(score(x[:, None]), tf.nn.softmax(scores), rtol=1e-4, atol=1e-7)

    @settings(max_examples=20, deadline=None)
    @given(height=st.integers(CROP, 150), width=st.integers(CROP, 150), seed=st.integers(0, 99))
    def test_an_image_of_any_size_equals_convolutions(self, model, height, width, seed):
        x = np.random.default_rng(seed).normal(0, 50, (1, height, width, 3)).astype("float32")
        scores = tf.reduce_mean(convolutional(model)(x), (1, 2))
        score = make_scorer(net_of(model, (0, 0, 0)), flip=False)
        np.testing.assert_allclose(score(x[:, None]), tf.nn.softmax(scores), rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("flip", [True, False])
    def test_a_square_at_crop_size_equals_the_centre_crop(self, model, tmp_path, flip):
        rng = np.random.default_rng(0)
        squares = split_of(tmp_path, *(photo(rng, n, n) for n in (32, 50, 77)))
        dense, centre, grid = (
            posteriors(model, squares, protocol, CROP, flip=flip)
            for protocol in ("dense", "centre", "multi-crop")
        )
        np.testing.assert_allclose(dense, centre, rtol=1e-5)
        np.testing.assert_allclose(grid, centre, rtol=1e-5)

    def test_images_are_averaged_with_their_mirror_image(self, model, tmp_path):
        image = photo(np.random.default_rng(0), 50, 70)
        both = split_of(tmp_path, image, image[:, ::-1])
        plain = posteriors(model, both, "dense", 40, flip=False)
        flipped = posteriors(model, both, "dense", 40)
        assert np.abs(plain[0] - plain[1]).max() > 1e-4
        np.testing.assert_allclose(flipped, [plain.mean(0)] * 2, rtol=1e-5)

    def test_posteriors_can_be_averaged_over_the_map(self, model, split):
        ours = posteriors(model, split, "dense", 75, flip=False, map_average="posteriors")
        net = convolutional(model)
        for path, row in zip(split.paths, ours, strict=True):
            image = rescale(tf.io.decode_png(tf.io.read_file(path)), 75)[None] - MEAN
            theirs = tf.reduce_mean(tf.nn.softmax(net(image)), (0, 1, 2))
            np.testing.assert_allclose(row, theirs, rtol=1e-4, atol=1e-7)
        assert np.abs(ours - posteriors(model, split, "dense", 75, flip=False)).max() > 1e-4

    def test_one_trace_serves_all_sizes(self, model, split):
        scorer = posteriors_module.make_scorer(net_of(model), flip=True, map_average="scores")
        posteriors(model, split, "multi-crop+dense", 40)
        assert scorer.experimental_get_tracing_count() == 1


class TestPooling:
    def test_rounding_up_counts_the_positions_as_caffe_does(self):
        """Caffe: ceil((side - 2) / 2) + 1 at each of five poolings."""
        for side in (32, 33, 47, 64, 65, 96, 97, 127):
            positions = side
            for _ in range(5):
                positions = -(-(positions - 2) // 2) + 1
            up = vgg("A", 3, CROP, 1 / 16, pool_rounding="up")
            map_shape = up.get_layer("block5_pool").compute_output_shape
            conv = keras.Model(up.input, up.get_layer("block5_pool").output)
            assert conv(np.zeros((1, side, side, 3))).shape[1] == positions
            assert map_shape((None, 7, 8, 4)) == (None, 4, 4, 4)

    def test_rounding_matters_only_for_odd_sides(self):
        down, up = lively(), lively(pool_rounding="up")
        for side, equal in ((64, True), (96, True), (63, False)):
            x = np.random.default_rng(0).normal(0, 50, (1, 1, side, side, 3)).astype("float32")
            a, b = (make_scorer(net_of(m, (0, 0, 0)))(x) for m in (down, up))
            assert np.allclose(a, b, rtol=1e-6) == equal


class TestMultiCrop:
    def test_fifty_crops_are_on_a_grid_that_touches_the_borders(self, model, split):
        """The crops equal slices of the rescaled image, in their order and pixels."""
        batches = stream(model, split, Pass("multi-crop", 40, flip=True))
        views = {int(i): v.numpy() for b in batches for i, v in zip(*b, strict=True)}
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
    def test_steps_of_the_grid_differ_by_at_most_a_pixel(self, extra):
        from vgg_keras.pipelines.evaluation import grid_origins

        rows, columns = grid_origins(tf.constant([CROP, CROP + extra]), CROP, 5).numpy()
        assert rows.tolist() == [0] * 5
        assert (columns[0], columns[-1]) == (0, extra)
        assert np.ptp(np.diff(columns)) <= 1
        assert np.abs(columns - np.linspace(0, extra, 5)).max() <= 0.5

    def test_multi_crop_is_the_mean_over_crops_and_flips(self, model, split):
        ours = posteriors(model, split, "multi-crop", 40)
        for indices, views in stream(model, split, Pass("multi-crop", 40, flip=True)):
            for i, crops in zip(indices, views.numpy() - np.array(MEAN, "float32"), strict=True):
                both = np.concatenate([crops, crops[:, :, ::-1]])
                np.testing.assert_allclose(
                    ours[i], tf.nn.softmax(model(both)).numpy().mean(0), rtol=1e-4, atol=1e-7
                )


class TestConstantImage:
    """In an image of one colour all positions are equal, except at the border, where conv. layers
    pad with zeros, which are another colour."""

    @pytest.fixture
    def grey(self, tmp_path):
        return split_of(tmp_path, np.full((60, 80, 3), 200, np.uint8))

    def test_all_crops_have_the_same_posteriors(self, model, grey):
        expected = posteriors(model, grey, "centre", 32)
        for scales in ((40,), (32, 64)):
            for protocol in ("centre", "multi-crop"):
                got = posteriors(model, grey, protocol, *scales, flip=False)
                np.testing.assert_allclose(got, expected, rtol=1e-5)

    def test_without_padding_effects_all_protocols_agree(self, grey):
        """Kernels that are zero except at their centre never read the padding."""
        model = lively()
        for layer in model.layers:
            if "conv" in layer.name:
                kernel, bias = layer.get_weights()
                middle = np.zeros_like(kernel)
                middle[1, 1] = kernel.sum((0, 1))
                layer.set_weights([middle, bias])
        expected = posteriors(model, grey, "centre", 32)
        for protocol in ("centre", "dense", "multi-crop"):
            got = posteriors(model, grey, protocol, 32, 90)
            np.testing.assert_allclose(got, expected, rtol=1e-5)

    def test_padding_changes_only_the_border_of_the_map(self, model):
        image = np.full((1, 32 * 17, 32 * 17, 3), 60, np.float32)
        scores = convolutional(model)(image).numpy()[0]
        middle = scores[8, 8]
        # The receptive field of block5_pool is 150 pixels in net A: padding ends after 3 positions.
        np.testing.assert_allclose(
            scores[3:-3, 3:-3], np.broadcast_to(middle, (11, 11, CLASSES)), rtol=1e-4, atol=1e-5
        )
        assert np.abs(scores[0, 0] - middle).max() > 1e-3


class TestInvariance:
    @pytest.mark.parametrize("protocol", ["centre", "multi-crop+dense"])
    def test_batch_size_and_grouping_do_not_change_results(self, model, split, protocol):
        """A batch has one image, or all images of one shape. The two protocols have all views."""
        expected = posteriors(model, split, protocol, 40, 64, batch_size=1000)
        got = posteriors(model, split, protocol, 40, 64, batch_size=1)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)

    def test_order_and_other_images_do_not_change_results(self, model, split):
        """Single images, and all images in reverse order, have the same rows."""
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

    def test_the_number_of_workers_does_not_change_results(self, model, split, monkeypatch):
        expected = posteriors(model, split, "multi-crop+dense", 40)
        monkeypatch.setattr("vgg_keras.pipelines.evaluation._WORKERS", 1)
        np.testing.assert_allclose(
            posteriors(model, split, "multi-crop+dense", 40), expected, rtol=0, atol=1e-6
        )

    def test_batches_have_one_shape_and_a_bounded_size(self, model, split):
        seen = []
        for indices, views in stream(model, split, Pass("dense", 40, flip=True), batch_size=8):
            b, v, height, width, _ = views.shape
            assert (v, min(height, width)) == (1, 40)
            assert b == 1 or 2 * b * height * width <= 8 * CROP**2
            seen += indices.numpy().tolist()
        assert sorted(seen) == list(range(len(split)))


class TestAveraging:
    def test_results_are_averaged_over_scales_and_protocols(self, model, split, tmp_path):
        """Multi-crop & dense is the mean of the two, whatever their numbers of views (§4.3)."""
        rows_once = {"cache_dir": tmp_path}
        one = {
            (p, q): posteriors(model, split, p, q, **rows_once)
            for p in ("dense", "multi-crop")
            for q in (32, 40)
        }
        dense, crops = (np.mean([one[p, q] for q in (32, 40)], 0) for p in ("dense", "multi-crop"))
        several = posteriors(model, split, "dense", 32, 40, **rows_once)
        np.testing.assert_allclose(several, dense, rtol=1e-5)
        both = posteriors(model, split, "multi-crop+dense", 32, 40, **rows_once)
        np.testing.assert_allclose(both, (dense + crops) / 2, rtol=1e-5)
        np.testing.assert_allclose(both.sum(1), 1, rtol=1e-5)


class TestScales:
    def facts(self, low, high, crop=224):
        return NetFacts(Architecture("A", 1, crop), MEAN, ("a",), (low, high))

    @pytest.mark.parametrize(
        ("arguments", "single", "several"),
        [
            ((256, 256), (256,), (224, 256, 288)),
            ((384, 384), (384,), (352, 384, 416)),
            ((256, 512), (384,), (256, 384, 512)),
            ((73, 73, 64), (73,), (64, 73, 82)),
            ((256, 256, 192), (256,), (229, 256, 283)),  # the step is 27.4
            ((384, 384, 256), (384,), (347, 384, 421)),  # the step is 36.6
            ((73, 146, 64), (109,), (73, 109, 146)),
            ((256, 257), (256,), (256, 257)),
        ],
    )
    def test_scales_are_the_papers(self, arguments, single, several):
        facts = self.facts(*arguments)
        assert paper_scales(facts) == single
        assert paper_scales(facts, multi_scale=True) == several

    def test_a_step_down_to_the_crop_size_is_allowed(self):
        assert paper_scales(self.facts(256, 256), multi_scale=True)[0] == 224

    def test_a_step_below_the_crop_size_is_refused(self):
        with pytest.raises(ValueError, match=r"S - 32, S and S \+ 32 is below the crop"):
            paper_scales(self.facts(224, 224), multi_scale=True)

    def test_a_scale_below_the_crop_size_is_refused(self, model, split):
        with pytest.raises(ValueError, match=r"at least the crop size, 32\. Received: 31"):
            posteriors(model, split, "dense", 40, 31)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("sparse", (32,)), "protocol must be one of centre, dense, multi-crop, multi-crop"),
            (("dense", (32, 32)), "different scales"),
            (("dense", (32,), True), "test_scales and multi_scale exclude each other"),
            (
                ("dense", (32,), False, None, "mean"),
                "map_average must be one of scores, posteriors",
            ),
        ],
    )
    def test_unknown_procedures_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Procedure(*arguments)

    def test_test_scales_are_required_if_the_training_scale_is_unknown(self, model, split):
        with pytest.raises(ValueError, match="test_scales must be given, because the training"):
            Procedure().passes(net_of(model))

    def test_center_is_an_alias_of_centre(self, model, split):
        assert Procedure("center") == Procedure("centre")

    def test_a_batch_size_of_0_is_refused(self, model, split):
        with pytest.raises(ValueError, match=r"1 or more\. Received: batch_size=0"):
            posteriors(model, split, "dense", 40, batch_size=0)


class TestProcedure:
    facts = NetFacts(Architecture("A", 1, 32), MEAN, ("a",), (48, 64))

    def test_the_default_is_dense_at_the_middle_scale(self):
        assert Procedure().passes(self.facts) == [Pass("dense", 56, True, "scores")]
        assert Procedure().metadata(self.facts) == {
            "protocol": "dense",
            "test_scales": [56],
            "flip": True,
            "map_average": "scores",
        }

    def test_each_protocol_has_the_views_of_the_paper(self):
        """The centre is shown as it is; all other views are shown mirrored too (§3.2)."""
        views = {
            protocol: [
                (VIEWS[one.views].grid, one.test_scale, one.flip)
                for one in Procedure(protocol, 40).passes(self.facts)
            ]
            for protocol in PROTOCOLS
        }
        assert views == {
            "centre": [(1, 40, False)],
            "dense": [(0, 40, True)],
            "multi-crop": [(5, 40, True)],
            "multi-crop+dense": [(5, 40, True), (0, 40, True)],
        }

    @pytest.mark.parametrize("flip", [False, True])
    def test_flips_and_averages_can_be_chosen(self, flip):
        procedure = Procedure("dense+multi-crop", (64, 32), flip=flip, map_average="posteriors")
        assert [(str(one), one.flip, one.map_average) for one in procedure.passes(self.facts)] == [
            ("multi-crop Q=64", flip, "scores"),  # the map of a crop has one position
            ("multi-crop Q=32", flip, "scores"),
            ("dense Q=64", flip, "posteriors"),
            ("dense Q=32", flip, "posteriors"),
        ]
        assert procedure.metadata(self.facts)["test_scales"] == [32, 64]

    def test_several_scales_are_those_of_section_4_2(self):
        passes = Procedure(multi_scale=True).passes(self.facts)
        assert [one.test_scale for one in passes] == [48, 56, 64]

    @pytest.mark.parametrize("scales", [(), [], None])
    def test_no_scale_stands_for_those_of_the_paper(self, scales):
        assert Procedure("dense", scales) == Procedure()

    def test_every_scale_is_at_least_the_crop_size(self):
        Procedure("centre", 32).passes(self.facts)
        with pytest.raises(ArgumentError, match=r"at least the crop size, 32\. Received: 31"):
            Procedure("centre", (32, 31)).passes(self.facts)

    def test_a_localisation_net_is_refused(self):
        facts = NetFacts(Architecture("A", 4, 32), MEAN, ("a",), 40, regression="per-class")
        with pytest.raises(ArgumentError, match="A classification net is needed"):
            Procedure().passes(facts)

    @pytest.mark.parametrize("value", [Procedure(), VIEWS["dense"], Pass("dense", 32, True)])
    def test_procedures_cannot_be_changed(self, value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.flip = False


class TestCache:
    def test_a_second_evaluation_reads_the_cache(self, model, split, tmp_path, monkeypatch):
        cache_dir = tmp_path / "cache"
        expected = posteriors(model, split, "dense", 32, 40, cache_dir=cache_dir)
        names = [path.name.rsplit("-", 1)[0] for path in cache_dir.glob("*.npy")]
        assert sorted(names) == ["dense-q32", "dense-q40"]
        monkeypatch.setattr(RowFiller, "_computed", None)  # no pass is run again
        np.testing.assert_array_equal(
            posteriors(model, split, "dense", 32, 40, cache_dir=cache_dir), expected
        )

    def test_only_missing_rows_are_computed(self, model, split, tmp_path):
        expected = posteriors(model, split, "dense", 40, cache_dir=tmp_path)
        (file,) = tmp_path.glob("*.npy")
        half = np.load(file, mmap_mode="r+")
        half[3:] = np.nan
        half[0] = 1 / CLASSES  # a complete row: not computed again
        half[5, 1:] = 0.1  # an incomplete row
        half.flush()
        got = posteriors(model, split, "dense", 40, cache_dir=tmp_path)
        np.testing.assert_allclose(got[1:], expected[1:], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got[0], 1 / CLASSES)

    @pytest.mark.parametrize("broken", ["zeros", "empty", "shape", "dtype", "text"])
    def test_a_damaged_file_is_repaired_or_named(self, model, split, tmp_path, broken):
        expected = posteriors(model, split, "dense", 40, cache_dir=tmp_path)
        (file,) = tmp_path.glob("*.npy")
        if broken == "zeros":  # what NumPy reads from a truncated file
            file.write_bytes(file.read_bytes()[:-50])
            got = posteriors(model, split, "dense", 40, cache_dir=tmp_path)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
            return
        if broken == "shape":
            np.save(file, np.zeros((3, 3), np.float32))
        elif broken == "dtype":
            np.save(file, expected.astype(np.float64))
        else:
            file.write_bytes({"empty": b"", "text": b"no posteriors here"}[broken])
        with pytest.raises(OSError, match=r"dense-q40-.*cannot be used as cached rows"):
            posteriors(model, split, "dense", 40, cache_dir=tmp_path)

    def test_other_weights_images_and_procedures_have_other_cache_files(
        self, model, split, tmp_path
    ):
        split = split.without(split.paths[3:])
        posteriors(model, split, "dense", 40, cache_dir=tmp_path)
        posteriors(model, split, "dense", 40, mean=(1, 2, 3), cache_dir=tmp_path)
        posteriors(lively(seed=1), split, "dense", 40, cache_dir=tmp_path)
        posteriors(lively(pool_rounding="up"), split, "dense", 40, cache_dir=tmp_path)
        posteriors(model, split.without(split.paths[:1]), "dense", 40, cache_dir=tmp_path)
        posteriors(model, split, "dense", 40, flip=False, cache_dir=tmp_path)
        posteriors(model, split, "dense", 40, map_average="posteriors", cache_dir=tmp_path)
        assert len(list(tmp_path.glob("*.npy"))) == 7

    def test_a_cache_dir_that_cannot_be_written_is_refused(self, model, split, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="Give another cache_dir, or none"):
            posteriors(model, split, "dense", 40, cache_dir=tmp_path / "file" / "below")


class TestEvaluate:
    @pytest.fixture
    def net(self, model):
        return net_of(model, class_names="abcdefg", train_scale=(32, 48))

    def source(self, split, names="abcdefg"):
        return Source("images", tuple(names), {"val": split})

    def test_result_has_the_procedure_and_the_errors(self, net, split):
        predictions = evaluate(net, self.source(split), multi_scale=True)
        result = predictions.result()
        assert result["protocol"] == "dense"
        assert result["test_scales"] == [32, 40, 48]
        assert result["images"] == len(split)
        expected = posteriors(net.model, split, "dense", 32, 40, 48)
        np.testing.assert_allclose(predictions.posteriors, expected, rtol=1e-5)
        wrong = (expected.argmax(1) != split.labels).mean()
        assert result["top1_error"] == pytest.approx(100 * wrong)

    def test_some_of_the_nets_classes_are_enough(self, net, split):
        few = FolderSplit("val", split.paths, np.arange(len(split)) % 2)
        predictions = evaluate(net, self.source(few, "fb"))
        assert predictions.labels.tolist() == [5, 1] * (len(split) // 2)
        assert predictions.class_names == tuple("abcdefg")

    def test_a_class_that_the_net_does_not_know_is_named(self, net, split):
        with pytest.raises(SourceError, match="1 of its 3 are not among the 7 of the net"):
            evaluate(net, self.source(split, "abx"))

    def test_unreadable_images_are_skipped_and_named(self, net, split, tmp_path, caplog):
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(encode(photo(np.random.default_rng(0), 50, 70))[:500])
        html = tmp_path / "page.jpg"
        html.write_text("<html>")
        paths = np.array([str(bad), *split.paths[:3], str(html), *split.paths[3:]])
        spoilt = FolderSplit("val", paths, np.arange(len(paths)) % CLASSES)
        with pytest.raises(BadImageError, match=r"bad\.jpg"):
            evaluate(net, self.source(spoilt))
        for protocol in ("dense", "multi-crop+dense"):
            predictions = evaluate(net, self.source(spoilt), protocol=protocol, on_bad_image="skip")
            result = predictions.result()
            assert (result["images"], result["skipped"]) == (len(split), [str(bad), str(html)])
            expected = posteriors(net.model, split, protocol, 40)
            np.testing.assert_allclose(predictions.posteriors, expected, rtol=1e-5, atol=1e-6)
        assert str(bad) in caplog.text

    def test_a_net_that_gives_nan_is_not_an_unreadable_image(self, net, split):
        model = lively()
        model.get_layer("fc2").bias.assign(np.full(model.get_layer("fc2").units, np.nan))
        bad = net_of(model, class_names="abcdefg", train_scale=(32, 48))
        for policy in ("stop", "skip"):
            with pytest.raises(
                ValueError, match=r"The net gives NaN or Inf for .*\.png\. Its weights"
            ):
                evaluate(bad, self.source(split), on_bad_image=policy)

    def test_images_without_a_class_are_refused(self, net, split):
        hidden = FolderSplit("val", split.paths, np.where(split.labels == 3, -1, split.labels))
        with pytest.raises(SourceError, match=r"without a class.*: label -1 for .*3\.png"):
            evaluate(net, self.source(hidden))

    def test_too_little_memory_is_explained(self, net, split, monkeypatch):
        def score(views):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")

        monkeypatch.setattr(posteriors_module, "make_scorer", lambda *_, **__: score)
        with pytest.raises(MemoryError, match=r"32 pixels \(25 an.*a smaller batch_size than 64"):
            evaluate(net, self.source(split), protocol="multi-crop")
        with pytest.raises(MemoryError, match=r"0\.png\. Remove it, or test at a smaller"):
            evaluate(net, self.source(split), batch_size=1)

    def test_data_sets_with_the_same_names_have_different_caches(self, shapes_dir, tmp_path):
        source = open_source("shapes", shapes_dir)
        few = source["val"].without(source["val"].names_of(range(8, 40)))
        source = dataclasses.replace(source, splits={"val": few})
        net = net_of(
            vgg("A", 10, CROP, 1 / 16), class_names=source.class_names, train_scale=(32, 32)
        )
        cache_dir = tmp_path / "cache"
        predictions = evaluate(net, source, cache_dir=cache_dir)
        assert predictions.labels.tolist() == few.all_labels().tolist()
        assert all(name.startswith("shapes/1.") for name in predictions.names)
        evaluate(net, source, cache_dir=cache_dir)
        assert len(list(cache_dir.glob("dense-q32-*"))) == 1
        shutil.copytree(shapes_dir, tmp_path / "copy")
        copied = open_source("shapes", tmp_path / "copy")["val"]
        other = dataclasses.replace(
            source, splits={"val": copied.without(copied.names_of(range(8, 40)))}
        )
        evaluate(net, other, cache_dir=cache_dir)
        assert len(list(cache_dir.glob("dense-q32-*"))) == 2

    def test_unknown_values_are_refused(self, net, split):
        with pytest.raises(ValueError, match="on_bad_image must be one of stop, skip"):
            evaluate(net, self.source(split), on_bad_image="ignore")
        with pytest.raises(ValueError, match="exclude each other"):
            evaluate(net, self.source(split), test_scales=(40,), multi_scale=True)

    def test_a_split_without_readable_images_is_refused(self, net, tmp_path):
        (tmp_path / "x.jpg").write_text("no image")
        split = FolderSplit("val", np.array([str(tmp_path / "x.jpg")]), np.zeros(1, np.int64))
        with pytest.raises(SourceError, match="None of the 1 images"):
            evaluate(net, self.source(split), on_bad_image="skip")
