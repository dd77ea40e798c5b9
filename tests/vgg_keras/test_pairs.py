"""Files that belong together: a kill or a full disk never pairs a file with another description.

The pairs are predictions, features in `.npy` files, and saved nets.
"""

from __future__ import annotations

import errno
import functools
import os

import numpy as np
import pytest

from tests.faults import Killed
from tests.tiny import lively_net
from vgg_keras import Features, Predictions, TrainedNet
from vgg_keras.errors import UserError, WriteError
from vgg_keras.weights import read


def predictions(seed):
    rows = np.random.default_rng(seed).dirichlet(np.ones(3), 4).astype(np.float32)
    return Predictions(list("abcd"), np.arange(4) % 3, rows, ("x", "y", "z"), {"net": str(seed)})


def features(seed):
    values = np.random.default_rng(seed).normal(size=(4, 5)).astype(np.float32)
    targets = np.full((4, 1), 1, np.int8)
    return Features(list("abcd"), ["all"] * 4, targets, values, ("x",), {"net": str(seed)})


@functools.cache
def net(seed):
    return lively_net(seed=seed, mean=(seed, seed, seed))


# For each pair: makes one from a seed, loads one, and gives the parts that must belong together.
PAIRS = {
    "p.parquet": (predictions, Predictions.load, lambda p: (p.metadata, p.posteriors.tolist())),
    "p.csv": (predictions, Predictions.load, lambda p: (p.metadata, p.posteriors.tolist())),
    "f.npy": (features, Features.load, lambda f: (f.metadata, f.values.tolist())),
    "net": (net, TrainedNet.load, lambda n: (n.mean, n.model.get_weights()[0].tolist())),
}


@pytest.fixture(params=PAIRS)
def pair(request, tmp_path):
    return tmp_path / request.param, *PAIRS[request.param]


@pytest.mark.parametrize("moves", [0, 1, 2])
@pytest.mark.parametrize("exists", [True, False])
def test_a_kill_leaves_the_old_pair_the_new_one_or_an_error(pair, moves, exists, monkeypatch):
    path, make, load, reduced = pair
    old, new = make(1), make(2)
    if exists:
        old.save(path)
    replace, left = os.replace, iter(range(moves))

    def killed(*paths):
        if next(left, None) is None:
            raise Killed
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        try:
            new.save(path)
        except Killed:
            assert moves < 2
    if moves == 0 and exists:
        assert reduced(load(path)) == reduced(old)
    elif moves < 2:
        with pytest.raises(UserError, match=path.name):
            load(path)
    new.save(path)  # the same call again
    assert reduced(load(path)) == reduced(new)


def test_a_full_disk_leaves_the_old_pair(pair, monkeypatch):
    path, make, load, reduced = pair
    old = make(1)
    old.save(path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match=rf"{path.name}.* (cannot|could not) be written"):
            make(2).save(path)
    assert reduced(load(path)) == reduced(old)
    assert list(path.parent.rglob(".*")) == []


def test_weights_of_a_saved_net_with_another_description_are_refused_by_every_reader(tmp_path):
    for seed in (1, 2):
        net(seed).save(tmp_path / str(seed))
    os.replace(tmp_path / "2/best.weights.h5", tmp_path / "1/best.weights.h5")
    for load in (TrainedNet.load, read):
        with pytest.raises(UserError, match=r"1/best\.weights\.h5 is not the file that"):
            load(tmp_path / "1")
