"""Files of `torch.save`: checkpoints, prefixes and endings; and harmful ones."""

from __future__ import annotations

import argparse
import fractions
import io
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.vgg_keras.weights import foreign
from tests.vgg_keras.weights.test_formats import TORCH, assert_equal_layers, given_weights
from tests.vgg_keras.weights.test_refusals import Code, peak
from vgg_keras import weights

# PyTorch is an extra of the package.
torch = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def state():
    """A state dict of net D with torchvision's names, and the layers that it holds."""
    w = given_weights("D")
    tensors = foreign.torch_tensors(foreign.in_torch(w, *TORCH))
    return {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


CHECKPOINTS = {
    "vgg16.pth": lambda s: s,
    "tutorial.pth": lambda s: {
        "epoch": 5,
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {0: {"momentum_buffer": s["features.0.weight"]}}},
        "loss": torch.tensor(0.3),
    },
    "net.pth": lambda s: {"net": s, "acc": 93.1},
    "params.bin": lambda s: {"params": s},
    "weights.pt": lambda s: {"weights": s},
    "two deep.ckpt": lambda s: {"state": {"model": s}, "epoch": 3},
    "compiled.pth": lambda s: prefixed("_orig_mod.", s),
    "lightning.ckpt": lambda s: {"state_dict": prefixed("model.", s)},
    "lightning compiled.ckpt": lambda s: {"state_dict": prefixed("model._orig_mod.", s)},
    "model_best.pth.tar": lambda s: {"epoch": 1, "arch": "vgg16", "state_dict": s},
    "parallel.tar": lambda s: {"state_dict": prefixed("module.", s)},
    "backbone.pth": lambda s: prefixed("backbone.vgg.", s),
    "parallel features.pth": lambda s: {
        name.replace("features.", "features.module."): tensor for name, tensor in s.items()
    },
    "with arguments.pth": lambda s: {
        "state_dict": s,
        "args": argparse.Namespace(lr=0.1),
        "best_acc": np.float64(0.7),
        "step": np.int64(100),
    },
    "averaged.pth": lambda s: prefixed("module.", s) | {"n_averaged": torch.tensor(9)},
    "with another net.pth": lambda s: {
        "discriminator": {"0.weight": torch.zeros(8, 3, 3, 3), "0.bias": torch.zeros(8)},
        "model": s,
    },
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_dictionary_that_names_a_net_is_read(name, state, tmp_path):
    torch.save(CHECKPOINTS[name](state), tmp_path / name)
    layers, contents = weights.read(tmp_path / name)
    assert_equal_layers(layers, foreign.in_rgb(given_weights("D")), rtol=2e-6, atol=1e-5)
    assert (contents.net, contents.family, contents.left) == ("D", "torchvision", {})


@pytest.mark.parametrize("prefix", ["", "backbone.", "module."])
@pytest.mark.parametrize("net", ["A", "B", "D", "E"])
def test_bare_features_are_read(net, prefix, tmp_path):
    """`vgg16(...).features.state_dict()`."""
    tensors = foreign.torch_tensors(foreign.in_torch(given_weights(net), *TORCH))
    bare = {
        prefix + name.removeprefix("features."): torch.from_numpy(array.copy())
        for name, array in tensors.items()
        if name.startswith("features.")
    }
    torch.save(bare, tmp_path / "f.pth")
    layers, contents = weights.read(tmp_path / "f.pth")
    assert (contents.net, contents.has_top) == (net, False)
    expected = foreign.in_rgb(given_weights(net))
    assert_equal_layers(layers, {k: expected[k] for k in layers}, rtol=2e-6, atol=1e-5)


class ObjectAsNumber:
    """A number of NumPy that is a pickle."""

    def __reduce__(self):
        return np.float64(0).__reduce__()[0], (np.dtype("O"), pickle.dumps(Code(Path("x/y"))))


def itself(s):
    """A dictionary that contains itself, and another one 100,000 times."""
    lies = {"epoch": 3}
    lies |= {f"copy {i}": lies for i in range(100_000)}
    return lies


def wide(s):
    """A view that repeats one number 10**12 times."""
    return s | {"classifier.0.weight": torch.zeros(1).expand(10**6, 10**6)}


REFUSED = {
    # name of the file: function that makes the checkpoint, and text of the message
    "none.pth": (
        lambda s: {"epoch": 5, "optimizer": {"lr": 0.1}},
        "Received: dict with the keys epoch, optimizer",
    ),
    "too deep.pth": (lambda s: {"a": {"b": {"c": s}}}, "Received: dict with the keys a"),
    "list.pth": (lambda s: [s], "Received: list"),
    "tensor.pth": (lambda s: s["features.0.weight"], "Received: Tensor"),
    "two nets.pth": (
        lambda s: {"model": s, "model_ema": prefixed("module.", s)},
        "must hold one net. Received: nets under 'model', 'model_ema'",
    ),
    "two prefixes.pth": (
        lambda s: prefixed("student.", s) | prefixed("teacher.", s),
        "must hold one net. Received: nets with the prefixes 'student.', 'teacher.'",
    ),
    "another net.pth": (
        lambda s: {"layer1.0.conv1.weight": s["features.0.weight"]},
        "has no tensor with a name of Keras",
    ),
    "itself.pth": (itself, "Received: dict with the keys epoch, copy 0"),
    "keys.pth": (lambda s: dict.fromkeys(range(50), s["features.0.weight"]), "has no tensor with"),
    "another object.pth": (
        lambda s: {"state_dict": s, "args": fractions.Fraction(1, 3)},
        "pickled objects other than tensors",
    ),
    "object as number.pth": (lambda s: s | {"x": ObjectAsNumber()}, "other than tensors"),
    "resnet.pth": (
        lambda s: {
            "conv1.weight": torch.zeros(8, 3, 7, 7),
            "layer1.0.downsample.0.weight": torch.zeros(8, 8, 1, 1),
            "layer1.0.downsample.0.bias": torch.zeros(8),
        },
        "has no tensor with a name of Keras",
    ),
    "repeated number.pth": (wide, "bytes of tensors"),
    "sparse.pth": (
        lambda s: s | {"classifier.0.weight": s["classifier.0.weight"].to_sparse()},
        "sparse.pth",
    ),
    "complex.pth": (
        lambda s: s | {"features.0.weight": s["features.0.weight"].to(torch.complex64)},
        "must be float, and has dtype complex64",
    ),
    "whole numbers.pth": (
        lambda s: s | {"features.0.weight": s["features.0.weight"].to(torch.int8)},
        "must be float, and has dtype int8",
    ),
    "nan.pth": (
        lambda s: s | {"features.0.bias": s["features.0.bias"] * torch.nan},
        "holds NaN or Inf",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_checkpoints_are_refused_by_name(name, state, tmp_path):
    make, message = REFUSED[name]
    path = tmp_path / name
    torch.save(make(state), path)
    weights_size = sum(tensor.nbytes for tensor in state.values())
    peak()
    before = peak()
    with pytest.raises(weights.WeightsError, match=re.escape(message)) as refusal:
        weights.read(path)
    grown = peak() - before
    assert name in str(refusal.value)
    assert grown < 2 * max(weights_size, 16 * path.stat().st_size)


def archive_with(path, entry):
    """An archive of `torch.save` in which the pickle is replaced."""
    buffer = io.BytesIO()
    torch.save({"x": torch.zeros(1)}, buffer)
    with (
        zipfile.ZipFile(buffer) as given,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as changed,
    ):
        for name in given.namelist():
            changed.writestr(name, entry if name.endswith("data.pkl") else given.read(name))


@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".bin", ".pth.tar"])
def test_no_pickle_is_run(ending, state, tmp_path):
    path = tmp_path / f"w{ending}"
    harmful = {"state_dict": state, "hook": Code(path)}
    for write in (
        lambda: torch.save(harmful, path),
        lambda: torch.save(harmful, path, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(pickle.dumps(harmful["hook"])),
        lambda: archive_with(path, pickle.dumps(harmful["hook"])),
    ):
        write()
        with pytest.raises(weights.WeightsError, match=re.escape(path.name)):
            weights.read(path)
        assert not (tmp_path / "it ran").exists()


def test_a_pickle_that_fills_memory_is_refused(tmp_path):
    path = tmp_path / "bomb.ckpt"
    archive_with(path, pickle.dumps({"x": "a" * 160 * 2**20}))
    peak()
    before = peak()
    with pytest.raises(weights.WeightsError, match="made to fill memory"):
        weights.read(path)
    assert peak() - before < 20 * 2**20


class Call:
    """An object that is pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("dtype", ["V2000000000", "S2000000000", "f8"])
def test_a_number_that_fills_memory_is_refused(dtype, state, tmp_path):
    """A few bytes declare 2 GB."""
    scalar = np.float64(0).__reduce__()[0]
    torch.save(state | {"best": Call(scalar, Call(np.dtype, dtype))}, tmp_path / "w.pth")
    before = peak()
    with pytest.raises(weights.WeightsError, match="pickled objects other than tensors"):
        weights.read(tmp_path / "w.pth")
    assert peak() - before < 2**28
    torch.save(state | {"best": np.float64(3), "epoch": np.int64(3)}, tmp_path / "w.pth")
    weights.read(tmp_path / "w.pth")


def test_a_net_that_was_saved_whole_is_refused_with_advice(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), tmp_path / "whole.pth")
    with pytest.raises(weights.WeightsError, match=r"save its state_dict\(\)"):
        weights.read(tmp_path / "whole.pth")


def test_half_precision_is_read(state, tmp_path):
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}
    torch.save(halves, tmp_path / "half.pth")
    layers, _ = weights.read(tmp_path / "half.pth", preprocessing="rgb")
    expected = state["classifier.3.weight"].to(torch.bfloat16).float().numpy().T
    np.testing.assert_array_equal(layers["fc2"][0], expected)
