from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_folder
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.demos import classification, localisation

SMALLER = {"width": 1 / 16, "crop_size": 32, "epochs": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes with 36 training and 21 validation images, and a box for each image."""
    root = tmp_path_factory.mktemp("data")
    spec = write_folder(root, train=12, val=7)
    rows = [
        f"{file.parts[-3]},{file.parts[-2]},{file.name},5,6,24,28\n"
        for file in sorted(root.rglob("*.jpg"))
    ]
    header = "split,class,file,x_min,y_min,x_max,y_max\n"
    (root / "boxes.csv").write_text(header + "".join(rows))
    return spec


@pytest.mark.slow
def test_the_classification_demo_runs_at_a_smaller_size(data, tmp_path, monkeypatch, capsys):
    """The demo runs with nets of width 1/16 on crops of 32; a second call trains nothing."""
    recipe = dataclasses.replace(
        classification._SHALLOW, **SMALLER, train_scale=(32, 40), data=data
    )
    monkeypatch.setattr(classification, "_SHALLOW", recipe)
    classification.run_demo(tmp_path)
    output = capsys.readouterr().out
    assert "21 validation images, chance is 67 %" in output
    assert "better than" in output
    for name in ("learning_curves.png", "predictions.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 10  # the figure is not empty
    assert "top-1 error" in (tmp_path / "report/index.html").read_text()
    journals = [tmp_path / "runs" / net / "journal.jsonl" for net in ("a", "d")]
    before = [read_journal(journal) for journal in journals]
    classification.run_demo(tmp_path)
    assert [read_journal(journal) for journal in journals] == before


@pytest.mark.slow
def test_the_localisation_demo_runs_at_a_smaller_size(data, tmp_path, monkeypatch, capsys):
    for name in ("_CLASSIFIER", "_LOCALISER"):
        recipe = dataclasses.replace(
            getattr(localisation, name), **SMALLER, train_scale=(32, 32), data=data
        )
        monkeypatch.setattr(localisation, name, recipe)
    localisation.run_demo(tmp_path)
    output = capsys.readouterr().out
    assert "21 validation images" in output
    assert "centre-gt" in output
    text = (tmp_path / "report/index.html").read_text()
    assert "True boxes are dashed, predicted boxes solid." in text
    assert np.asarray(Image.open(tmp_path / "boxes.jpg")).std() > 10
