from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image
from vgg_keras.callbacks.journal import read_journal

from vgg_keras import demo


def test_demo_at_a_smaller_size(shapes_dir, tmp_path, monkeypatch, capsys):
    """All of it, with nets of width 1/16 on crops of 32; called again, it trains nothing."""
    smaller = {"width": 1 / 16, "crop_size": 32, "train_scale": (32, 40), "epochs": 1}
    monkeypatch.setattr(demo, "_SHALLOW", dataclasses.replace(demo._SHALLOW, **smaller))
    demo.run_demo(tmp_path, shapes_dir)
    said = capsys.readouterr().out
    assert "400 validation images, chance is 90 %" in said
    assert "better than" in said
    for name in ("learning_curves.png", "predictions.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 10  # something is drawn
    assert "top-1" in (tmp_path / "report/index.html").read_text()
    journals = [tmp_path / "runs" / net / "journal.jsonl" for net in ("a", "d")]
    before = [read_journal(journal) for journal in journals]
    demo.run_demo(tmp_path, shapes_dir)
    assert [read_journal(journal) for journal in journals] == before
