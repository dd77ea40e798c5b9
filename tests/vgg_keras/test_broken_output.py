"""Commands whose output nobody reads, as with `| head`, have saved their results before."""

from __future__ import annotations

import errno
import io
import sys

import numpy as np
import pytest

from tests.conftest import CLASSES, write_folder
from tests.tiny import tiny_run
from vgg_keras import FeatureExtractor, Predictions, extract_features
from vgg_keras.cli import main
from vgg_keras.pipelines.sources import open_source


class Broken(io.StringIO):
    """A stream of text that cannot be written."""

    encoding = "utf-8"

    def write(self, text):
        if isinstance(text, bytes):
            raise TypeError("text is expected")
        if text:
            raise BrokenPipeError(errno.EPIPE, "the reader has gone")
        return 0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of what the commands read."""
    root = tmp_path_factory.mktemp("broken")
    spec = write_folder(root / "data", train=4, val=2)
    tiny_run(root / "run", CLASSES)
    for seed in "ab":
        rows = np.random.default_rng(ord(seed)).dirichlet(np.ones(3), 6).astype(np.float32)
        names, labels = [f"{i}.jpg" for i in range(6)], np.arange(6) % 3
        metadata = {"net": "A", "protocol": "dense", "test_scales": [32], "run": seed}
        Predictions(names, labels, rows, CLASSES, metadata).save(root / f"{seed}.parquet")
    extractor = FeatureExtractor.load(root / "run")
    extract_features(extractor, open_source(spec), test_scales=32, verbose=0).save(root / "f.npy")
    return root


# Arguments of each command, where {0} is the folder of files and {1} what it saves.
COMMANDS = {
    "evaluate": "--run {0}/run --data folder:{0}/data --protocol centre --test-scales 32 "
    "--cache-dir= --out {1}.parquet",
    "fuse": "{0}/a.parquet {0}/b.parquet --out {1}.csv",
    "predict": "{0}/data/val/red/000.jpg --run {0}/run --test-scales 32 --score-maps {1}",
    "features": "--run {0}/run --data folder:{0}/data --test-scales 32 --cache-dir= --out {1}.npy",
    "similar": "{0}/data/val/red/000.jpg --features {0}/f.npy --sheet {1}.png",
    "transfer": "--features {0}/f.npy --protocol custom --c-grid 1 --out {1}.json",
    "statistics": "--data folder:{0}/data --out {1}.json",
    "convert": "{0}/run {1}.npz",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_results_are_saved_before_they_are_printed(command, files, tmp_path, monkeypatch):
    arguments = COMMANDS[command].format(files, tmp_path / "out").split()
    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(SystemExit) as ended:
        main([command, *arguments])
    assert ended.value.code == 1
    saved = [path for path in tmp_path.rglob("[!.]*") if path.is_file()]
    assert saved
    assert all(path.stat().st_size for path in saved)
