"""Submission files of ILSVRC, and predictions for images without labels."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import encode, photo
from tests.tiny import tiny_run
from vgg_keras import ilsvrc
from vgg_keras.cli import main
from vgg_keras.errors import PredictionsError, SourceError
from vgg_keras.evaluation import posteriors as posteriors_module
from vgg_keras.evaluation.fusion import fuse
from vgg_keras.evaluation.predict import predict
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.rows import RowFiller
from vgg_keras.evaluation.submissions import save_submission
from vgg_keras.localisation.predict import Located
from vgg_keras.localisation.results import Localised
from vgg_keras.pipelines.boxes import Boxes
from vgg_keras.pipelines.sources.own import from_paths

WNIDS = ("n02119789", "n01440764", "n02012849", "n03126707", "n07831146", "n03255030")
IDS = (1, 449, 429, 545, 999, 1000)  # as map_clsloc.txt of the development kit has them
NAMES = [
    f"val/{wnid}/ILSVRC2012_val_{i:08}.JPEG" for i, wnid in zip((3, 1, 2), WNIDS, strict=False)
]


def unlabelled(seed=0, names=NAMES, classes=WNIDS, labels=None, **metadata):
    rows = np.random.default_rng(seed).dirichlet(np.ones(len(classes)), len(names))
    labels = np.full(len(names), -1) if labels is None else np.array(labels)
    metadata = {"run": "runs/d", "net": "D", "protocol": "dense"} | metadata
    return Predictions(names, labels, rows.astype(np.float32), classes, metadata)


class TestIds:
    def test_every_class_has_its_own_id(self):
        ids = ilsvrc.ids_of_wnids()
        assert list(ids) == list(ilsvrc.wnids())
        assert sorted(ids.values()) == list(range(1, 1001))

    def test_ids_are_those_of_the_development_kit(self):
        assert [ilsvrc.ids_of_wnids()[wnid] for wnid in WNIDS] == list(IDS)


class TestSubmissions:
    def test_a_line_has_five_ids_and_lines_are_in_the_order_of_file_names(self, tmp_path):
        one = unlabelled()
        one.save_submission(tmp_path / "a.txt")
        best = np.array(IDS)[np.argsort(-one.posteriors, 1)[:, :5]]
        lines = (tmp_path / "a.txt").read_text().splitlines()
        assert lines == [" ".join(map(str, best[i])) for i in (1, 2, 0)]

    def test_boxes_are_pixels_with_the_last_one_inside(self, tmp_path):
        sizes = {"b": (40, 60), "a": (50, 30)}  # heights and widths
        for name, (height, width) in sizes.items():
            image = np.zeros((height, width, 3), np.uint8)
            (tmp_path / f"{name}.png").write_bytes(encode(image, "PNG"))
        split = from_paths([tmp_path / f"{name}.png" for name in sizes])
        boxes = np.float32([[[0, 0, 1, 1], [0.5, 0.25, 0.75, 0.5]], [[0.1, 0.5, 0.2, 1], [1] * 4]])
        names = tuple(split.ids_of(range(2)))
        truth = Boxes.of_images([[[0, 0, 1, 1]]] * 2)
        classes = np.array([[5, 0], [1, 2]])
        found = Localised(names, np.zeros(2, int), truth, classes, boxes, WNIDS, {})
        located = Located(names, classes, np.ones((2, 2)), boxes, WNIDS, {})
        for one in (found, located):
            one.save_submission(tmp_path / "a.txt", split)
            assert (tmp_path / "a.txt").read_text() == (
                "449 3 25 5 49 429 29 49 29 49\n1000 0 0 59 39 1 30 10 44 19\n"
            )
        with pytest.raises(PredictionsError, match=r"needs all 1 images .* for 2 images"):
            located.save_submission(tmp_path / "a.txt", tmp_path / "a.png")
        with pytest.raises(PredictionsError, match=r"needs all 1 images .* for 2 images"):
            found.save_submission(tmp_path / "a.txt", split.without(names[:1]))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"classes": ("n01440764", "cat")}, "WordNet ids .* Received: 'cat'"),
            ({"names": ["a/x.jpg", "b/x.jpg", "c.jpg"]}, r"all be different\. Received: x\.jpg$"),
            ({"names": ["image 0", "image 1"]}, "file names, .* Received: image 0, image 1$"),
            ({"names": ["x.tfrecord-00000-of-00064__0"]}, "file names, .* Received: x.tfrecord"),
            ({"skipped": ["z.jpg"]}, r"needs all images, .* read: z\.jpg"),
        ],
    )
    def test_what_is_no_whole_submission_is_refused(self, tmp_path, changes, message):
        with pytest.raises(PredictionsError, match=message):
            unlabelled(**changes).save_submission(tmp_path / "a.txt")
        assert not list(tmp_path.iterdir())

    def test_the_function_takes_classes_of_any_origin(self, tmp_path):
        save_submission(tmp_path / "a.txt", ["b.jpg", "a.jpg"], WNIDS, np.array([[0], [5]]))
        assert (tmp_path / "a.txt").read_text() == "1000\n1\n"


class TestUnlabelled:
    @pytest.mark.parametrize("ending", ["parquet", "csv"])
    @pytest.mark.parametrize("labels", [None, [0, -1, 2]])
    def test_round_trip_is_bit_identical(self, tmp_path, ending, labels):
        one = unlabelled(labels=labels, classes=("", *WNIDS))
        one.save(tmp_path / f"p.{ending}")
        again = Predictions.load(tmp_path / f"p.{ending}")
        np.testing.assert_array_equal(again.posteriors, one.posteriors)
        np.testing.assert_array_equal(again.labels, one.labels)
        assert list(again.names) == NAMES
        assert again.result() == one.result() == one.metadata | {"images": 3}

    def test_fusion_averages_them_and_refuses_labelled_ones(self):
        one, two = unlabelled(0), unlabelled(1)
        fused = fuse([one, two])
        np.testing.assert_allclose(
            fused.posteriors, (one.posteriors + two.posteriors) / 2, rtol=1e-6
        )
        assert fused.labels.tolist() == [-1] * 3
        for pair, words in (
            ((0, 1), "unlabelled .* and n02119789"),
            ((1, 0), "n02119789 .* and u"),
        ):
            both = one, unlabelled(1, labels=[0, 1, 2])
            with pytest.raises(PredictionsError, match=words):
                fuse([both[i] for i in pair])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny", WNIDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four images without classes, one of them in a folder of its own, and a hidden file."""
    root, rng = tmp_path_factory.mktemp("test"), np.random.default_rng(1)
    (root / "more").mkdir()
    (root / ".DS_Store").write_bytes(b"")
    for name in ("4.jpg", "2.jpg", "3.jpg", "more/1.jpg"):
        (root / name).write_bytes(encode(photo(rng, 40, 48)))
    return root


@pytest.fixture(scope="module")
def data(folder, tmp_path_factory):
    """A source with classes that the net does not know."""
    root = tmp_path_factory.mktemp("data")
    for name in ("ant", "bee"):
        (root / name).mkdir()
        (root / name / "1.jpg").write_bytes((folder / "2.jpg").read_bytes())
    return f"folder:{root}"


class TestPredict:
    def invoke(self, *arguments):
        return CliRunner().invoke(main, [*map(str, arguments), "--protocol", "centre"], obj=False)

    def test_an_empty_folder_is_named(self, run, tmp_path):
        with pytest.raises(SourceError, match=f"The folder {tmp_path} holds no images"):
            predict(run, tmp_path)

    def test_a_folder_is_saved_and_an_interrupted_command_continues(
        self, run, folder, tmp_path, monkeypatch
    ):
        given = "predict", "--run", run.name, folder
        files = "--out", tmp_path / "a.parquet", "--submission", tmp_path / "a.txt"
        computed, fill = [], RowFiller._computed

        def interrupted(self, one, wanted, meter):
            for indices, rows in fill(self, one, wanted, meter):
                if len(computed) == 2:
                    raise KeyboardInterrupt
                computed.extend(indices)
                yield indices, rows

        with monkeypatch.context() as patch:
            patch.setattr(RowFiller, "_computed", interrupted)
            done = self.invoke(*given, *files, "--batch-size", 1)
        assert (done.exit_code, len(computed)) == (130, 2)
        with monkeypatch.context() as patch:
            patch.setattr(RowFiller, "_computed", lambda *a: _noted(fill(*a), computed))
            done = self.invoke(*given, *files)
        assert done.exit_code == 0, done.output
        assert (done.stdout, sorted(computed)) == ("", [0, 1, 2, 3])
        saved = Predictions.load(tmp_path / "a.parquet")
        assert list(saved.names) == [
            f"{folder}/{n}" for n in ("2.jpg", "3.jpg", "4.jpg", "more/1.jpg")
        ]
        expected = predict(run, list(saved.names), protocol="centre")
        np.testing.assert_allclose(saved.posteriors, expected.posteriors, rtol=0, atol=1e-6)
        lines = (tmp_path / "a.txt").read_text().splitlines()
        assert lines[0].split()[0] == str(IDS[expected.posteriors[3].argmax()])
        done = CliRunner().invoke(main, ["fuse", *[str(tmp_path / "a.parquet")] * 2])
        assert done.stdout.endswith("centre: 4 images without labels\n")

    def test_a_split_of_a_source_is_predicted_without_its_labels(self, run, data, tmp_path):
        given = "predict", "--run", run.name, "--data", data, "--split", "all"
        done = self.invoke(*given, "--out", tmp_path / "a.csv")
        assert done.exit_code == 0, done.output
        saved = Predictions.load(tmp_path / "a.csv")
        assert list(saved.names) == ["ant/1.jpg", "bee/1.jpg"]
        assert saved.labels.tolist() == [-1, -1]

    def test_a_command_that_cannot_end_well_is_refused_before_it_starts(
        self, run, folder, data, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(posteriors_module, "RowFiller", None)
        other = tiny_run(tmp_path / "other", ("ant", "bee"))
        submission = "--submission", tmp_path / "a.txt"
        for arguments, message in (
            ((), "Give either images or --data."),
            ((folder, "--data", "shapes"), "Give either images or --data."),
            ((folder, folder), "Received a folder"),
            ((folder, "--out", "a.txt"), "end in .parquet or .csv"),
        ):
            done = self.invoke("predict", "--run", run.name, *arguments)
            assert (done.exit_code, message in done.stderr) == (1, True), done.output
        for command in (("predict", folder), ("evaluate", "--data", data, "--split", "all")):
            done = self.invoke(*command, "--run", other.name, *submission)
            assert done.exit_code == 1, done.output
            assert "needs a net whose classes are WordNet ids" in done.stderr


def _noted(found, computed):
    for indices, rows in found:
        computed.extend(indices)
        yield indices, rows
