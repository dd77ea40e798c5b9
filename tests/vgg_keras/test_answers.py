"""Images with the answer of a net, the map of its probability and Grad-CAM."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.conftest import encode, photo
from tests.tiny import MEAN, lively, lively_net
from vgg_keras.cli import main
from vgg_keras.pipelines.images import rescale
from vgg_keras.report import answers
from vgg_keras.report.answers import grad_cam, probability_map

SCALE, LABEL = 70, 3


@pytest.fixture(scope="module")
def net():
    return lively_net()


@pytest.fixture(scope="module")
def image():
    return photo(np.random.default_rng(1), 80, 112)


def test_the_map_is_the_posterior_at_the_positions_of_the_dense_map(net, image):
    pixels = rescale(image, SCALE).numpy()[None] - np.float32(MEAN)
    model = lively()  # of the same weights
    scores = keras.Model(model.input, model.get_layer("predictions").output)(pixels)
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(scores))[0, :, :, LABEL]
    found = probability_map(net, image, SCALE, LABEL)
    assert found.shape == pixels.shape[1:3] == (70, 98)
    assert expected.shape == (2, 3)
    corners = found[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(corners, expected[[0, 0, -1, -1], [0, -1, 0, -1]], rtol=1e-4)
    # Positions are 32 pixels apart, and their centres are between the pixels 15 and 16.
    between = (found[[15, 15], [47, 48]].mean(), expected[0, 1])
    np.testing.assert_allclose(*between, rtol=0.05, atol=1e-3)
    assert expected.min() - 1e-6 <= found.min() <= found.max() <= expected.max() + 1e-6


def test_grad_cam_has_the_derivatives_of_the_score(net, image):
    model, pixels = net.model, rescale(image, SCALE).numpy()[None] - np.float32(MEAN)
    last = model.get_layer("block5_conv2").output
    activations = keras.Model(model.input, last)(pixels).numpy()
    rest = keras.Model(last, model.get_layer("scores").output)
    channels = activations.shape[-1]
    steps = 1e-2 * np.eye(channels, dtype=np.float32)[:, None, None]
    ahead, back = (rest(activations + sign * steps).numpy()[:, LABEL] for sign in (1, -1))
    expected = np.maximum((activations[0] * (ahead - back)).sum(-1), 0)
    expected /= expected.max()
    found = grad_cam(net, image, SCALE, LABEL)
    assert found.shape == pixels.shape[1:3]
    assert 0 <= found.min() < found.max() <= 1
    rows, columns = (16 * np.arange(n) + 7 for n in expected.shape)
    # Half a pixel beside the centres of the activations.
    np.testing.assert_allclose(found[np.ix_(rows, columns)], expected, atol=0.08)


def test_pictures_have_the_answer_as_title(net, image, tmp_path, monkeypatch):
    files = [tmp_path / "cat.jpg", tmp_path / "dog.jpg"]
    for file, pixels in zip(files, (image, image[::-1]), strict=True):
        file.write_bytes(encode(np.ascontiguousarray(pixels)))
    net.save(tmp_path / "net")
    titles = []
    draw = answers.answer_figure
    monkeypatch.setattr(
        answers, "answer_figure", lambda *given: titles.append(given[2]) or draw(*given)
    )
    common = ["predict", *map(str, files), "--run", str(tmp_path / "net"), "--test-scales", "70"]
    for more in ([], ["--grad-cam"]):
        out = tmp_path / f"out{len(more)}"
        done = CliRunner().invoke(main, [*common, "--pictures", str(out), "--top", "1", *more])
        assert done.exit_code == 0, done.output
        for line, title in zip(done.stdout.splitlines()[1::2], titles[-2:], strict=True):
            percent, _, name = line.split()
            shown, whole, *_ = title.split()
            assert shown == name
            assert abs(float(whole) - float(percent)) <= 0.55
            assert title.endswith(" %, Grad-CAM" if more else " %")
        assert sorted(path.name for path in out.iterdir()) == ["cat.jpg.png", "dog.jpg.png"]
        with Image.open(out / "cat.jpg.png") as drawn:
            assert np.asarray(drawn.convert("RGB")).std() > 20
    done = CliRunner().invoke(main, [*common, "--grad-cam"])
    assert done.output == "Error: --grad-cam goes with --pictures.\n"
