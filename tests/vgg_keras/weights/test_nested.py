"""The dictionary of a checkpoint that names a net, here of arrays: this needs no PyTorch."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.vgg_keras.weights import foreign
from vgg_keras.errors import WeightsError
from vgg_keras.weights.torch_files import tensors_of_net

NET = foreign.torch_tensors(foreign.random_weights(foreign.kernel_shapes("D", 7, 64, 1 / 64)))
OTHER = {"0.weight": np.zeros((8, 3, 3, 3), "f4"), "0.bias": np.zeros(8, "f4")}
RESNET = {"layer1.0.downsample.0.weight": np.zeros((8, 8, 1, 1), "f4")}


def itself():
    """A dictionary that contains itself, and another one many times."""
    lies = {"epoch": 3, "optimizer": OTHER}
    lies |= {f"copy {i}": lies for i in range(10_000)}
    return lies


FOUND = {
    "by itself": NET,
    "beside an optimizer": {
        "model_state_dict": NET,
        "optimizer_state_dict": {"state": {0: {"momentum_buffer": NET["features.0.weight"]}}},
        "epoch": 5,
    },
    "under any name": {"my best net": NET},
    "two deep": {"state": {"model": NET}, "epoch": 3},
    "beside another net": {"discriminator": OTHER, "generator": NET, "resnet": RESNET},
    "twice the same object": {"state_dict": NET, "best": NET},
}
REFUSED = {
    "no dictionary": (3, "Received: int"),
    "a list": ([NET], "Received: list"),
    "no tensors": ({"epoch": 5, "lr": 0.1}, "Received: dict with the keys epoch, lr"),
    "too deep": ({"a": {"b": {"c": NET}}}, "Received: dict with the keys a"),
    "another net": ({"resnet": RESNET}, "Received: dict with the keys resnet"),
    "two nets": (
        {"model": NET, "ema": {"shadow": dict(NET)}},
        "must hold one net. Received: nets under 'model', 'ema'.'shadow'",
    ),
    "many keys": (dict.fromkeys(range(100)), "keys 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..."),
}


@pytest.mark.parametrize("where", FOUND)
def test_the_dictionary_that_names_a_net_is_found(where):
    found = tensors_of_net(Path("w.pth"), FOUND[where], np.ndarray)
    assert found.keys() == NET.keys()
    assert all(found[name] is NET[name] for name in NET)


@pytest.mark.parametrize("what", REFUSED)
def test_other_checkpoints_are_refused_by_name(what):
    checkpoint, message = REFUSED[what]
    with pytest.raises(WeightsError, match=re.escape(message)) as refusal:
        tensors_of_net(Path("w.pth"), checkpoint, np.ndarray)
    assert str(refusal.value).startswith("w.pth must hold")


def test_a_dictionary_that_contains_itself_ends():
    found = tensors_of_net(Path("w.pth"), itself(), np.ndarray)
    assert found.keys() == OTHER.keys()
