"""At full width, files from and for other projects give the logits of their nets."""

from __future__ import annotations

import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.vgg_keras.weights import foreign
from vgg_keras import fully_convolutional, vgg, weights
from vgg_keras.nets import NETS

pytestmark = pytest.mark.slow
MEAN = np.array([123.68, 116.779, 103.939], np.float32)
TORCH_MEAN, TORCH_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
APPLICATIONS = {"D": keras.applications.VGG16, "E": keras.applications.VGG19}


def photos():
    """Images in RGB, 0..255, with coloured areas and noise."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (1, 8, 8, 3)).astype(np.float32)
    fine = np.kron(coarse, np.ones((1, 28, 28, 1), np.float32)) + rng.normal(
        0, 20, (2, 224, 224, 3)
    )
    return fine.clip(0, 255).astype(np.float32)


def assert_same_logits(got, expected):
    got = keras.ops.convert_to_numpy(got)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def assert_same_net(model, logits, rtol=1e-4):
    """Asserts the logits of a model for `photos`, and its soft-max to `rtol`."""
    x = photos() - MEAN
    assert_same_logits(fully_convolutional(model)(x)["scores"], logits)
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    assert expected.std() > 1e-4
    np.testing.assert_allclose(model(x), expected, rtol=rtol, atol=1e-7)


# Prints the net and the peak resident memory of the process, which does not import TensorFlow.
CONVERT = """
import sys
from vgg_keras import weights
print(weights.convert(sys.argv[1], sys.argv[2]).net)
print(1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]))
"""


def convert(source, target):
    """Converts in a new process, which may take 2.5 times the memory of the weights."""
    arguments = [sys.executable, "-c", CONVERT, source, target]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    net, peak = done.stdout.split()
    assert int(peak) < 2.5 * target.stat().st_size
    source.unlink()
    return net


@pytest.fixture
def folder(tmp_path):
    """A folder that is removed at once, as each file has half a gigabyte."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module", params=["D", "E"])
def theirs(request):
    """Net, its model in Keras Applications, its weights, and its logits for `photos`."""
    net = request.param
    model = APPLICATIONS[net](weights=None, classifier_activation=None)
    given = foreign.random_weights(foreign.kernel_shapes(net))
    for name, arrays in given.items():
        model.get_layer(name).set_weights(arrays)
    bgr = keras.applications.imagenet_utils.preprocess_input(photos(), mode="caffe")
    logits = keras.ops.convert_to_numpy(model(bgr))
    assert logits.std() > 0.1
    return net, model, given, logits


def test_keras_applications_gives_the_same_logits_both_ways(theirs, folder):
    net, model, _, logits = theirs
    model.save(folder / "whole.h5")
    assert convert(folder / "whole.h5", folder / "ours.weights.h5") == net
    mine = vgg(net)
    mine.load_weights(folder / "ours.weights.h5")
    (folder / "ours.weights.h5").unlink()
    assert_same_net(mine, logits)
    weights.save(mine, folder / "back.h5")
    again = APPLICATIONS[net](weights=str(folder / "back.h5"), classifier_activation=None)
    bgr = keras.applications.imagenet_utils.preprocess_input(photos(), mode="caffe")
    assert_same_logits(again(bgr), logits)


def test_caffe_and_matconvnet_files_give_the_same_logits(theirs, folder):
    """Net D as a .caffemodel of the VGG team, and net E as a .mat of MatConvNet."""
    net, _, given, logits = theirs
    if net == "D":
        file = folder / "VGG_ILSVRC_16_layers.caffemodel"
        foreign.caffemodel(file, given)
        assert convert(file, folder / "vgg16.weights.h5") == net
        file = folder / "vgg16.weights.h5"
    else:
        file = folder / "imagenet-vgg-verydeep-19.mat"
        foreign.matconvnet(file, foreign.in_rgb(given))
    mine = vgg(net)
    assert weights.load(mine, file).net == net
    assert_same_net(mine, logits)


class TestTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch", reason="PyTorch is not installed")

    @staticmethod
    def module(torch):
        """The vgg16 of torchvision, whose wheels need CUDA, written with PyTorch alone."""
        from torch import nn

        layers, channels = [], 3
        for block, outputs in zip(NETS["D"].kernels, (64, 128, 256, 512, 512), strict=True):
            for _ in block:
                layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU()]
                channels = outputs
            layers.append(nn.MaxPool2d(2, 2))
        return nn.ModuleDict(
            {
                "features": nn.Sequential(*layers),
                "classifier": nn.Sequential(
                    nn.Linear(25088, 4096),
                    nn.ReLU(),
                    nn.Dropout(),
                    nn.Linear(4096, 4096),
                    nn.ReLU(),
                    nn.Dropout(),
                    nn.Linear(4096, 1000),
                ),
            }
        ).eval()

    @staticmethod
    def logits(torch, net):
        x = ((photos() / 255 - TORCH_MEAN) / TORCH_SD).transpose(0, 3, 1, 2).astype(np.float32)
        with torch.no_grad():
            maps = net["features"](torch.from_numpy(np.ascontiguousarray(x)))
            return net["classifier"](torch.flatten(maps, 1)).numpy()

    def test_torchvision_gives_the_same_logits_both_ways(self, torch, folder):
        torch.manual_seed(0)
        net = self.module(torch)
        for module in net.modules():
            if hasattr(module, "weight"):
                torch.nn.init.kaiming_normal_(module.weight)
                torch.nn.init.normal_(module.bias, 0, 0.1)
        logits = self.logits(torch, net)
        torch.save(net.state_dict(), folder / "vgg16.pth")
        mine = vgg("D")
        assert weights.load(mine, folder / "vgg16.pth").family == "torchvision"
        assert_same_net(mine, logits, rtol=2e-3)  # the border differs, see docs/weights.md
        # With the mean of torchvision, the padding has the same colour.
        mean = np.array(TORCH_MEAN) * 255
        exact = vgg("D")
        weights.load(exact, folder / "vgg16.pth", mean=mean)
        scores = fully_convolutional(exact)((photos() - mean).astype(np.float32))["scores"]
        np.testing.assert_allclose(scores, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())
        (folder / "vgg16.pth").unlink()
        weights.save(mine, folder / "vgg16.safetensors")
        from safetensors.torch import load_file

        other = self.module(torch)
        other.load_state_dict(load_file(folder / "vgg16.safetensors"))
        assert_same_logits(self.logits(torch, other), logits)
