"""Images with boxes, and a tiny localisation net trained on them."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import CLASSES, encode, photo
from tests.tiny import CROP, loading_once, tiny_run
from vgg_keras import TrainedNet
from vgg_keras.localisation import dense
from vgg_keras.localisation.task import train_localisation
from vgg_keras.recipes import LOCALISATION_RECIPES

TINY = {"net": "A", "width": 1 / 16, "crop_size": CROP, "train_scale": (36, 44), "batch_size": 8}


def journal_of(net: TrainedNet) -> list[dict]:
    """The lines of the journal of a run."""
    return [
        json.loads(line) for line in (Path(net.name) / "journal.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="session", autouse=True)
def _trace_each_net_once():
    """The nets of these tests do not change, so the functions of a net need one trace."""
    rating_fn = functools.cache(dense.make_rating_fn)
    with loading_once(TrainedNet), pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "make_box_fn", functools.cache(dense.make_box_fn))
        patch.setattr(dense, "make_rating_fn", lambda nets: rating_fn(tuple(nets)))
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Images with a bright rectangle whose colour is the class, and the boxes of the rectangles."""
    root, rng = tmp_path_factory.mktemp("boxed"), np.random.default_rng(0)
    rows = ["split,class,file,x_min,y_min,x_max,y_max\n"]
    for split, count in (("train", 16), ("val", 5)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(40, 70, 2)
                pixels = photo(rng, height, width) // 3
                top, left = rng.integers(0, height // 3), rng.integers(0, width // 3)
                bottom, right = top + height // 2, left + width // 2
                pixels[top:bottom, left:right, 2 - label] = 240
                (folder / f"{i}.jpg").write_bytes(encode(pixels, quality=95))
                rows.append(f"{split},{name},{i}.jpg,{left},{top},{right - 1},{bottom - 1}\n")
    (root / "boxes.csv").write_text("".join(rows))
    return f"folder:{root}"


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A classification net with random weights and the same crop size and scale."""
    return tiny_run(tmp_path_factory.mktemp("runs") / "a", CLASSES, "A", (36, 44))


@pytest.fixture(scope="session")
def recipe(data):
    return dataclasses.replace(
        LOCALISATION_RECIPES["small"],
        data=data,
        epochs=2,
        learning_rate=0.01,
        precision="float32",
        **TINY,
    )


@pytest.fixture(scope="session")
def net(recipe, tmp_path_factory):
    """A localisation net, trained for two epochs."""
    out = tmp_path_factory.mktemp("runs") / "boxes"
    train_localisation(recipe, out)
    return TrainedNet.load(out)
