"""Single images: classes and their names, posteriors, score maps, and the command."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.conftest import encode, photo
from tests.tiny import MEAN, loading_once, tiny_run
from tests.vgg_keras.test_protocols import by_hand, convolutional
from vgg_keras import ilsvrc
from vgg_keras.commands.nets import read_class_list
from vgg_keras.commands.prediction import predict as command
from vgg_keras.evaluation import posteriors as posteriors_module
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.evaluation.predict import predict
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.metadata import rounded
from vgg_keras.pipelines.errors import BadImageError, SourceError
from vgg_keras.pipelines.images import rescale
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.pipelines.splits import Source
from vgg_keras.report.maps import draw_predicted, score_map_figure
from vgg_keras.trained import TrainedNet

BIRD, MACHINE = "n02012849", "n03126707"
CLASSES = ("n01440764", BIRD, MACHINE, "n03710637", "n03710721", "n99999999", "red")
NAMES = ("ant", "bee", "cow", "cat, tabby", "dog", "elk", "fox")  # of the same outputs
SIZES = [(50, 70), (70, 50), (41, 41), (50, 70), (120, 64)]


@pytest.fixture(scope="module", autouse=True)
def _load_each_net_once():
    with loading_once(TrainedNet):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A net from a run folder, with random weights."""
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny", CLASSES)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of several sizes, in a lossless format."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    for i, (height, width) in enumerate(SIZES):
        (folder / f"{i}.png").write_bytes(encode(photo(rng, height, width), "PNG"))
    return [str(folder / f"{i}.png") for i in range(len(SIZES))]


@pytest.fixture
def broken(tmp_path):
    """A truncated JPEG file."""
    path = tmp_path / "bad.jpg"
    path.write_bytes(encode(photo(np.random.default_rng(0), 50, 70))[:500])
    return str(path)


class TestClasses:
    def test_there_are_1000_classes_in_the_order_of_the_labels(self):
        wnids = ilsvrc.wnids()
        assert len(set(wnids)) == 1000
        assert list(wnids) == sorted(wnids)
        assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in wnids)
        for index, wnid, names in (
            (0, "n01440764", "tench, Tinca tinca"),
            (134, BIRD, "crane"),
            (281, "n02123045", "tabby, tabby cat"),
            (517, MACHINE, "crane"),
            (999, "n15075141", "toilet tissue, toilet paper, bathroom tissue"),
        ):
            assert (wnids[index], ilsvrc.readable(wnid)) == (wnid, names)

    @pytest.mark.parametrize("label", [ilsvrc.label, ilsvrc.short_label])
    def test_no_two_classes_have_the_same_label(self, label):
        assert len(set(map(label, ilsvrc.wnids()))) == 1000
        assert label(BIRD) == f"crane ({BIRD})"

    def test_labels_have_the_names_and_the_wnid(self):
        assert ilsvrc.label("n01440764") == "tench, Tinca tinca (n01440764)"
        assert ilsvrc.short_label("n01440764") == "tench (n01440764)"

    @pytest.mark.parametrize("name", ["red", "crane", "n99999999", ""])
    def test_other_names_are_returned_unchanged(self, name):
        assert [f(name) for f in (ilsvrc.readable, ilsvrc.label, ilsvrc.short_label)] == [name] * 3

    def test_class_names_do_not_import_tensorflow(self):
        code = "import sys, vgg_keras.ilsvrc as i; i.wnids(); print('tensorflow' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout.strip() == b"False"


class TestPredict:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"multi_scale": True, "batch_size": 3},
            {"protocol": "multi-crop+dense", "test_scales": (40,), "flip": False},
            {"map_average": "posteriors", "test_scales": (75,)},
        ],
    )
    def test_predict_equals_evaluate(self, run, images, options):
        split = as_split(images)
        labelled = dataclasses.replace(split, labels=np.arange(len(images)))
        expected = evaluate(run, Source("x", CLASSES, {"val": labelled}), **options)
        predicted = predict(run, images, **options)
        np.testing.assert_allclose(predicted.posteriors, expected.posteriors, rtol=0, atol=1e-6)
        assert list(predicted.names) == list(expected.names) == images
        assert predicted.metadata == {
            key: value for key, value in expected.metadata.items() if key not in ("data", "split")
        }

    def test_posteriors_equal_convolutions_at_the_papers_scale(self, run, images):
        predicted = predict(run, images)
        assert (predicted.metadata["test_scales"], len(predicted)) == ([40], len(images))
        np.testing.assert_allclose(
            predicted.posteriors, by_hand(run.model, as_split(images), 40), rtol=1e-4, atol=1e-7
        )

    def test_rows_are_in_the_given_order_with_duplicates(self, run, images):
        expected = predict(run, images).posteriors
        order = [3, 0, 3]
        predicted = predict(run, [images[i] for i in order])
        assert list(predicted.names) == [images[i] for i in order]
        assert np.abs(expected[3] - expected[0]).max() > 1e-4
        np.testing.assert_allclose(predicted.posteriors, expected[order], rtol=0, atol=1e-6)

    def test_formats_are_inferred_from_the_content(self, run, tmp_path):
        """An image of few colours in even blocks, which JPEG and GIF preserve."""
        colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3))
        pixels = colours.repeat(16, 0).repeat(16, 1).astype(np.uint8)
        paths = [tmp_path / name for name in ("a.jpg", "b.png", "c", "d.txt")]
        for path, kind in zip(paths, ("PNG", "BMP", "GIF", "JPEG"), strict=True):
            options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
            path.write_bytes(encode(pixels, kind, **options))
        first, *others = predict(run, paths).posteriors
        assert first.max() < 0.99
        np.testing.assert_allclose(others, [first] * 3, rtol=0, atol=0.01)

    def test_top_is_best_first_and_ties_keep_index_order(self):
        rows = np.tile(np.float32([0.1, 0.4]), (2, 500))
        rows[1, 7] = 0.6
        labels = np.full(2, -1)
        predicted = Predictions(("x", "y"), labels, rows, tuple(map(str, range(1000))))
        classes, posteriors = predicted.top(3)
        assert classes.tolist() == [[1, 3, 5], [7, 1, 3]]
        np.testing.assert_array_equal(posteriors, np.float32([[0.4, 0.4, 0.4], [0.6, 0.4, 0.4]]))
        assert predicted.top(2000)[0].shape == (2, 1000)

    def test_a_broken_image_stops_the_prediction_and_is_named(self, run, images, broken):
        with pytest.raises(BadImageError, match=r"cannot be read: .*bad\.jpg"):
            predict(run, [images[0], broken])

    def test_a_broken_image_is_skipped_and_named(self, run, images, broken, caplog):
        mixed = [images[0], broken, *images[1:]]
        predicted = predict(run, mixed, on_bad_image="skip")
        assert list(predicted.names) == images
        assert predicted.metadata["skipped"] == [broken]
        assert broken in caplog.text
        expected = predict(run, images).posteriors
        np.testing.assert_allclose(predicted.posteriors, expected, rtol=0, atol=1e-6)
        with pytest.raises(SourceError, match=r"None of the images can be read: .*bad\.jpg"):
            predict(run, [broken], on_bad_image="skip")

    def test_a_missing_file_is_named_before_the_net_runs(self, run, images, tmp_path, monkeypatch):
        monkeypatch.setattr(posteriors_module, "RowFiller", None)
        (tmp_path / "cats").mkdir()
        for given, message in (
            ([], "No image is given"),
            ([images[0], tmp_path / "gone.jpg"], r"no such file: .*gone\.jpg$"),
            ([tmp_path / f"{i}.jpg" for i in range(5)], r"0\.jpg, .*1\.jpg, .*2\.jpg, \.\.\.$"),
            ([images[0], tmp_path / "cats"], r"as .*cats/\*\. Received a folder: .*cats$"),
        ):
            with pytest.raises(SourceError, match=message):
                predict(run, given)
        with pytest.raises(ValueError, match=r"at least the crop size, 32\. Received: 31"):
            predict(run, images, test_scales=(31,))


class TestScoreMaps:
    @pytest.mark.parametrize("scales", [(32,), (40, 75)])
    def test_score_maps_are_the_scores_of_the_net_at_every_position(self, run, images, scales):
        image = np.asarray(Image.open(images[4]))
        label = 3
        figure = score_map_figure(run, image, scales, label, "score of red")
        net = convolutional(run.model)
        panels = [axes.images for axes in figure.axes if len(axes.images) == 2]
        assert len(panels) == len(scales)
        for scale, (shown, score_map) in zip(scales, panels, strict=True):
            pixels = rescale(image, scale).numpy()
            np.testing.assert_array_equal(shown.get_array(), pixels.astype(np.uint8))
            np.testing.assert_allclose(
                score_map.get_array(),
                net(pixels[None] - MEAN)[0, :, :, label],
                rtol=1e-3,
                atol=1e-4,
            )

    def test_score_maps_are_drawn_for_the_most_probable_class(
        self, run, images, tmp_path, monkeypatch
    ):
        drawn = []
        monkeypatch.setattr(
            "vgg_keras.report.maps.score_map_figure",
            lambda _, image, *rest: drawn.append((image.shape[:2], *rest)),
        )
        monkeypatch.setattr("vgg_keras.report.figures.save_figure", lambda *_: None)
        predicted = predict(run, images, test_scales=(32, 40))
        draw_predicted(run, predicted, tmp_path)
        best = predicted.posteriors.argmax(1)
        assert len(set(best)) > 1
        assert drawn == [
            (size, [32, 40], k, f"score of {ilsvrc.short_label(CLASSES[k])}")
            for size, k in zip(SIZES, best, strict=True)
        ]

    def test_no_image_is_overwritten(self, run, tmp_path):
        """An output gets another name if an image or another output has its name."""
        rng = np.random.default_rng(0)
        for name in ("cat", "cat.png", "a/cat", "a/cat-2"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(encode(photo(rng, 40, 40), "PNG"))
        given = [tmp_path / name for name in ("cat", "cat.png", "a/cat", "a/cat-2", "cat")]
        before = [path.read_bytes() for path in given]
        files = draw_predicted(run, predict(run, given), tmp_path)
        assert [file.name for file in files] == [
            "cat-2.png",
            "cat.png.png",
            "cat-3.png",
            "cat-2-2.png",
            "cat-4.png",
        ]
        assert [path.read_bytes() for path in given] == before


class TestCommand:
    def invoke(self, *arguments):
        return CliRunner().invoke(command, [str(a) for a in arguments], obj=False)

    def test_the_most_probable_classes_are_printed(self, run, images):
        done = self.invoke("--run", run.name, *images[:2], "--top", 3)
        expected = []
        predicted = predict(run, images[:2])
        for name, row in zip(images, predicted.posteriors, strict=False):
            best = sorted(range(len(CLASSES)), key=lambda k: -row[k])[:3]
            expected.append(name)
            expected += [f"{100 * row[k]:6.1f} %  {ilsvrc.label(CLASSES[k])}" for k in best]
        assert done.stdout.splitlines() == expected
        assert any("(n0" in line for line in expected)

    def test_json_follows_every_option(self, run, images, broken):
        done = self.invoke(
            "--run",
            run.name,
            images[0],
            broken,
            images[4],
            "--json",
            "--protocol",
            "multi-crop+dense",
            "--test-scales",
            "47",
            "--no-flip",
            "--map-average",
            "posteriors",
            "--pool-rounding",
            "up",
            "--precision",
            "mixed_bfloat16",
            "--batch-size",
            8,
            "--on-bad-image",
            "skip",
        )
        printed = json.loads(done.stdout)
        same = TrainedNet.load(run.name, precision="mixed_bfloat16", pool_rounding="up")
        predicted = predict(
            same,
            [images[0], images[4]],
            protocol="multi-crop+dense",
            test_scales=(47,),
            flip=False,
            map_average="posteriors",
            batch_size=8,
        )
        found = printed.pop("results")
        assert printed.pop("provenance")["seconds"] > 0
        assert printed == rounded(predicted.result() | {"skipped": [broken]})
        assert (printed["run"], printed["pool_rounding"]) == (str(run.name), "up")
        assert [image["image"] for image in found] == [images[0], images[4]]
        for image, row in zip(found, predicted.posteriors, strict=True):
            assert len(image["top"]) == 5
            for one, k in zip(image["top"], np.argsort(-row), strict=False):
                assert one == {
                    "class": CLASSES[k],
                    "name": ilsvrc.readable(CLASSES[k]),
                    "posterior": pytest.approx(row[k], abs=1e-6),
                }

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("names.txt", "\ufeffant\n\nbee \ncow\ncat, tabby\ndog\nelk\nfox\n"),
            ("list.json", '["ant", "bee", "cow", "cat, tabby", "dog", "elk", "fox"]'),
            (
                "numbers.json",  # as flow_from_directory of Keras gives them
                '{"fox": 6, "ant": 0, "bee": 1, "cow": 2, "dog": 4, "elk": 5, "cat, tabby": 3}',
            ),
            (
                "names.json",
                '{"6": "fox", "0": "ant", "1": "bee", "2": "cow", "4": "dog", "5": "elk", '
                '"3": "cat, tabby"}',
            ),
        ],
    )
    def test_a_file_names_outputs(self, tmp_path, name, text):
        (tmp_path / name).write_text(text, "utf-8")
        assert read_class_list(tmp_path / name) == list(NAMES)

    def test_a_file_names_the_outputs_of_a_weights_file(self, run, images, tmp_path):
        (tmp_path / "names.txt").write_text("\n".join(NAMES))
        given = ("--weights", f"{run.name}/best.weights.h5", images[0], "--protocol", "centre")
        done = self.invoke(*given, "--classes", tmp_path / "names.txt", "--top", 7)
        without = self.invoke(*given, "--top", 7).stdout.splitlines()[1:]
        shown = [line.split("%")[1].strip() for line in done.stdout.splitlines()[1:]]
        assert shown == [NAMES[int(line.split()[-1])] for line in without]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.txt", "ant\nbee\n", "--classes must be as many as the 7 outputs of"),
            ("a.txt", "\n", "a.txt does not name classes: it is empty"),
            ("a.json", "[1, 2]", "a.json does not name classes: "),
            ("a.json", '{"ant": 0, "bee": 2}', "its numbers must be 0 to 1, once each"),
            ("a.json", '{"one": "ant"}', "a.json does not name classes: "),
        ],
    )
    def test_a_file_that_names_no_outputs_is_refused(
        self, run, images, tmp_path, name, text, message
    ):
        (tmp_path / name).write_text(text)
        given = ("--weights", f"{run.name}/best.weights.h5", images[0])
        done = self.invoke(*given, "--classes", tmp_path / name)
        assert done.exit_code == 1
        assert message in done.stderr.splitlines()[-1]

    def test_a_run_has_its_own_class_names(self, run, images, tmp_path):
        (tmp_path / "a.txt").write_text("ant")
        done = self.invoke("--run", run.name, images[0], "--classes", tmp_path / "a.txt")
        assert "--classes goes with --weights" in done.stderr.splitlines()[-1]

    def test_score_maps_are_written(self, run, images, tmp_path):
        """Two images have the same name; the size of a figure depends on the shape of its image."""
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        wide, high = tmp_path / "a/cat.jpg", tmp_path / "b/cat.jpg"
        rng = np.random.default_rng(0)
        wide.write_bytes(encode(photo(rng, 64, 96)))
        high.write_bytes(encode(photo(rng, 96, 64)))
        out = tmp_path / "new/out"
        done = self.invoke("--run", run.name, wide, high, "--score-maps", out, "--test-scales", 64)
        assert done.exit_code == 0, done.output
        assert sorted(path.name for path in out.iterdir()) == ["cat.jpg-2.png", "cat.jpg.png"]
        for name, ratio in (("cat.jpg.png", 96 / 64), ("cat.jpg-2.png", 64 / 96)):
            with Image.open(out / name) as drawn:
                drawn.load()
                size = 110 * (2.6 * 2 * ratio + 1.4), 110 * (2.6 + 0.75)  # the map, and the grid
                np.testing.assert_allclose(drawn.size, size, atol=1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("{image}",), "Give either --run or --weights."),
            (
                ("--run", "{run}", "--weights", "w.npz", "{image}"),
                "Give either --run or --weights.",
            ),
            (("--run", "{folder}", "{image}"), "is no run and no saved net"),
            (("--run", "{run}", "{folder}/gone.jpg"), "no such file: {folder}/gone.jpg"),
            (("--run", "{run}", "{image}", "{folder}"), "as {folder}/*. Received a folder"),
            (("--run", "{run}", "{broken}"), "This image cannot be read: {broken}"),
            (("--run", "{run}", "{image}", "--score-maps", "{broken}/below"), "Not a directory"),
        ],
    )
    def test_an_error_is_one_line(self, run, images, broken, tmp_path, arguments, message):
        fields = {"run": run.name, "image": images[0], "folder": tmp_path, "broken": broken}
        done = self.invoke(*(a.format(**fields) for a in arguments))
        assert done.exit_code == 1
        assert message.format(**fields) in done.stderr.splitlines()[-1]
        assert done.stdout == ""
