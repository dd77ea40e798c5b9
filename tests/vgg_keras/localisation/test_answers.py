"""Localisation in the commands, the report and an export."""

from __future__ import annotations

import dataclasses
import html
import importlib
import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.cpp_loader import CppModel
from tests.conftest import CLASSES
from tests.saved_models.replaying import replay_by
from vgg_keras import evaluate, export, predict
from vgg_keras.cli import main
from vgg_keras.errors import RunError
from vgg_keras.evaluation import submissions
from vgg_keras.evaluation.rows import RowFiller
from vgg_keras.localisation.localise import centre_of_true_class, localise
from vgg_keras.localisation.predict import predict_boxes
from vgg_keras.localisation.task import train_localisation
from vgg_keras.metadata import ANSWERS_KEY, rounded
from vgg_keras.pipelines.sources import open_source
from vgg_keras.recipes import Recipe
from vgg_keras.report.localised import examples_of, localisation_sheet
from vgg_keras.report.page import write_report
from vgg_keras.saved_models.tensors import image_inputs


def test_a_localisation_net_is_refused_as_a_classifier(net, data, tmp_path):
    for call in (
        lambda: evaluate(net, open_source(data)),
        lambda: predict(net, [tmp_path / "none.jpg"]),
        lambda: export(net, tmp_path / "net"),
    ):
        with pytest.raises(ValueError, match=r"classification net|no such file"):
            call()
    assert not (tmp_path / "net").exists()


def test_boxes_of_images_without_labels_are_those_of_the_evaluation(
    net, classifier, data, tmp_path
):
    source = open_source(data)
    files = source["val"].names_of(range(3))
    expected = localise([net], source, classifiers=[classifier], test_scales=(40, 64), verbose=0)
    options = ("--run", net.name, "--classifier", classifier.name, "--test-scales", "40,64")
    picture = tmp_path / "boxes.png"
    done = CliRunner().invoke(
        main, ["localise", "predict", *files, *options, "--json", "--picture", str(picture)]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [one["image"] for one in found["results"]] == list(files)
    assert (found["images"], found["classifiers"]) == (3, [classifier.name])
    for i, one in enumerate(found["results"]):
        assert [a["class"] for a in one["top"]] == [CLASSES[c] for c in expected.classes[i]]
        assert one["top"][0].keys() == {"class", "name", "posterior", "box"}
        boxes = [answer["box"] for answer in one["top"]]
        np.testing.assert_allclose(boxes, expected.boxes[i], atol=1e-4)
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 2 * drawn.size[1]  # three images beside each other
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    assert (np.abs(pixels - [0xD8, 0x26, 0x1C]).max(-1) < 10).sum() > 100  # the boxes
    done = CliRunner().invoke(main, ["localise", "predict", files[0], "--run", net.name])
    assert done.output == "Error: Boxes need --classifier, a classification run or more.\n"


def test_a_submission_of_a_folder_without_labels_continues(
    net, classifier, data, tmp_path, monkeypatch
):
    """The nets here have no classes of ILSVRC, so the classes are given ids of their own."""
    images = tmp_path / "test"
    (images / "more").mkdir(parents=True)
    for i, file in enumerate(open_source(data)["val"].names_of(range(0, 12, 4))):
        shutil.copy(file, images / ("more" if i else "") / f"{9 - i}.jpg")
    options = ["--run", net.name, "--classifier", classifier.name, "--cache-dir"]
    command = ["localise", "predict", str(images), *options, str(tmp_path / "rows")]
    submission = ["--submission", str(tmp_path / "a.txt")]
    done = CliRunner().invoke(main, [*command, *submission])
    assert "needs a net whose classes are WordNet ids" in done.output
    ids = dict(zip(CLASSES, (7, 3, 9), strict=True))
    monkeypatch.setattr(submissions, "ids_of_wnids", lambda: ids)
    done = CliRunner().invoke(main, [*command, *submission])
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    found = predict_boxes(net, images, classifiers=classifier, verbose=0)
    assert [Path(name).name for name in found.images] == ["9.jpg", "7.jpg", "8.jpg"]
    lines = [line.split() for line in (tmp_path / "a.txt").read_text().splitlines()]
    for line, i in zip(lines, (1, 2, 0), strict=True):
        cells = np.array(line, int).reshape(-1, 5)
        assert cells[:, 0].tolist() == [ids[CLASSES[c]] for c in found.classes[i]]
        with Image.open(found.images[i]) as image:
            edges = (found.boxes[i] * np.tile(image.size, 2)).clip(0)
        np.testing.assert_allclose(cells[:, 1:] + [0, 0, 1, 1], edges, atol=1.1)
    before = (tmp_path / "a.txt").read_bytes()
    (tmp_path / "a.txt").unlink()
    monkeypatch.setattr(RowFiller, "_computed", None)  # all rows are in the cache
    assert CliRunner().invoke(main, [*command, *submission]).exit_code == 0
    assert (tmp_path / "a.txt").read_bytes() == before
    for given, message in (
        ([str(images), "--data", data], "Give either images or --data."),
        ([str(images)] * 2, "Received a folder"),
        ([], "Give either images or --data."),
    ):
        done = CliRunner().invoke(main, ["localise", "predict", *given, *options, ""])
        assert message in done.output


def test_the_evaluate_command_prints_and_writes_errors(net, recipe, classifier, data, tmp_path):
    out = tmp_path / "answers.json"
    common = ["localise", "evaluate", "--run", net.name, "--data", data]
    done = CliRunner().invoke(
        main,
        [
            *common,
            "--classifier",
            classifier.name,
            "--test-scales",
            "40,64",
            "--out",
            str(out),
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    saved = json.loads(out.read_text())
    assert rounded(saved["top5_localisation_error"]) == result["top5_localisation_error"]
    assert saved["provenance"] == result["provenance"]
    assert len(saved[ANSWERS_KEY]) == 15
    assert {"class", "box", "right"} == set(saved[ANSWERS_KEY][0]["answers"][0])
    done = CliRunner().invoke(main, [*common, "--protocol", "center-gt"])
    assert done.exit_code == 0, done.output
    assert "centre-gt: gt class localisation error" in done.stdout
    for arguments, message in (
        ([], "needs --classifier"),
        (["--protocol", "centre-gt", "--classifier", "x"], "and no --classifier"),
        (
            ["--protocol", "centre-gt", "--test-scales", "40,64"],
            "--test-scales: centre-gt takes one test scale",
        ),
    ):
        done = CliRunner().invoke(main, [*common, *arguments])
        assert done.exit_code == 1
        assert message in done.output


def test_the_train_command_writes_a_run_and_refuses_bad_arguments(data, classifier, tmp_path):
    flags = [
        "--net",
        "A",
        "--width",
        "0.0625",
        "--crop-size",
        "32",
        "--train-scale",
        "40",
        "--batch-size",
        "8",
        "--epochs",
        "1",
        "--data",
        data,
        "--init-from",
        classifier.name,
        "--tuned",
        "fc",
        "--learning-rate",
        "1e-6",
    ]
    command = ["localise", "train", "--recipe", "small", *flags]
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run/recipe.json").read_text())["trainable"] == "fc"
    done = CliRunner().invoke(
        main, [*command, "--out", str(tmp_path / "other"), "--boxes", str(tmp_path / "none.csv")]
    )
    assert done.exit_code == 1
    assert "none.csv" in done.output
    with pytest.raises(RunError, match="trainable: fc -> all"):
        train_localisation(
            dataclasses.replace(
                Recipe.from_json((tmp_path / "run/recipe.json").read_text()), trainable="all"
            ),
            tmp_path / "run",
        )
    assert keras.config.dtype_policy().name == "float32"


def test_the_report_shows_photos_with_boxes(net, classifier, data, tmp_path):
    """It shows all images of a result, correct or wrong, with true and predicted boxes."""
    found = localise([net], open_source(data), classifiers=[classifier], test_scales=(40,))
    for i in range(0, len(found.images), 2):
        found.boxes[i] = found.truth[i][0]
    found.save(tmp_path / "results/boxes.json")
    centre_of_true_class(net, open_source(data)).save(tmp_path / "results/centre.json")
    text = html.unescape(write_report(tmp_path / "results", tmp_path / "page").read_text())
    assert f"{found.result()['top5_localisation_error']:.2f}" in text
    assert text.index("top-5 localisation error</strong>") < text.index("</header>")
    assert text.count('<figcaption><span class="right">✔ ') == 8
    assert text.count('<figcaption><span class="wrong">✖ ') == 7
    assert text.count("IoU 1.00") == 8
    assert text.index("<h3>Right answers: boxes") < text.index("<h3>Wrong answers: boxes")
    reasons = re.findall('<br><span class="wrong">(.*?)</span>', text)
    assert len(reasons) == 7
    assert set(reasons) <= {"wrong class", "overlap too small", "wrong class, overlap too small"}
    assert "Classes and images" not in text  # there is no classification result
    assert "<li>Tables 3, 4, 5, 6, 7: no top1_error and top5_error, which the table shows" in text


@pytest.mark.parametrize(
    ("answer", "box", "problems"),
    [
        ("red", [0.0, 0.0, 1.0, 1.0], []),
        ("red", [0.0, 0.0, 1.0, 0.5], ["overlap too small"]),  # it must exceed 0.5
        ("blue", [0.0, 0.0, 1.0, 0.9], ["wrong class"]),
        ("blue", [0.0, 0.0, 0.5, 0.5], ["wrong class", "overlap too small"]),
    ],
)
def test_a_wrong_answer_says_why(data, answer, box, problems):
    """The sheet has right and wrong answers apart, each with its overlap and the reason."""
    answers = [{"class": answer, "box": box, "right": not problems}]
    names = open_source(data)["val"].ids_of(range(2))
    images = [
        {"image": name, "class": "red", "boxes": [[0.0, 0.0, 1.0, 1.0]], "answers": answers}
        for name in names
    ]
    found = examples_of({"data": data, "split": "val", "pictures": images})
    assert [one.problems for one in found] == [problems] * 2
    texts = [text.get_text() for text in localisation_sheet(found).texts]
    assert ("Wrong" in texts) == bool(problems)
    assert {answer, f"IoU {box[3] * box[2]:.2f}"} <= set(texts)
    assert set(problems) <= set(texts)


def test_an_export_names_its_own_options_for_localisation_nets(net, classifier, tmp_path):
    command = ["export", "--run", classifier.name, "--out", str(tmp_path / "net")]
    done = CliRunner().invoke(main, [*command, "--localiser", net.name, "--localiser-scales", "8"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: --localiser-scales")
    assert "--test-scales" not in done.output
    done = CliRunner().invoke(main, [*command, "--localiser", classifier.name])
    assert done.exit_code == 1
    assert done.output.startswith("Error: --localiser: A localisation net is needed")


@pytest.mark.slow
def test_an_export_predicts_boxes(net, classifier, data, tmp_path, monkeypatch):
    """The boxes are those of evaluation; a bad image has no box and does not affect the others."""
    options = ["--test-scales", "40", "--localiser-scales", "40,64", "--json"]
    done = CliRunner().invoke(
        main,
        [
            "export",
            "--run",
            classifier.name,
            "--localiser",
            net.name,
            "--out",
            str(tmp_path / "net"),
            *options,
        ],
    )
    assert done.exit_code == 0, done.output
    path = json.loads(done.stdout)["results"][0]["path"]
    source = open_source(data)
    found = localise([net], source, classifiers=[classifier], test_scales=(40, 64))
    files = [Path(name) for name in source["val"].names_of(range(4))]
    model = CppModel(path)
    encoded = [file.read_bytes() for file in files]
    got = model.run("localise", image_inputs([*encoded[:2], b"no image", *encoded[2:]]))
    assert [bool(error) for error in got["error"]] == [False, False, True, False, False]
    assert not got["boxes"][2].any()
    assert got["classes"][2].tolist() == [-1] * 3
    good = [0, 1, 3, 4]
    names = [[name.decode() for name in row] for row in got["class_names"][good]]
    for i, (file, row) in enumerate(zip(files, names, strict=True)):
        width, height = Image.open(file).size
        expected = {
            CLASSES[c]: box * [width, height, width, height]
            for c, box in zip(found.classes[i], found.boxes[i], strict=True)
        }
        for name, box in zip(row, got["boxes"][good][i], strict=True):
            np.testing.assert_allclose(box, expected[name], atol=1e-3)
    module = importlib.import_module("vgg_keras.serving.verify")  # the module, not the function
    monkeypatch.setattr(module, "replay", replay_by(model))
    done = CliRunner().invoke(main, ["verify", path, str(files[0]), "--repeats", "1", "--json"])
    assert done.exit_code == 0, done.output
    checks = json.loads(done.stdout)["results"]
    assert [check["passed"] for check in checks if check["signature"] == "localise"] == [True]
    model.close()
