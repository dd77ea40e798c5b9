"""Small real data for all tests: JPEG files in class folders, and the drawn shapes."""

from __future__ import annotations

import fcntl
import io
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import numpy as np
import pytest
from PIL import Image

# A busy machine may be slow.
hypothesis.settings.register_profile("vgg_keras", deadline=None)
hypothesis.settings.load_profile("vgg_keras")

CLASSES = ("blue", "green", "red")
TINY = {"net": "A", "width": 1 / 16, "crop_size": 32, "train_scale": (32, 40)}

# Flags of `vgg-keras train` for a tiny net.
TRAIN_TINY = [
    "--width",
    "0.0625",
    "--crop-size",
    "32",
    "--train-scale",
    "32,40",
    "--batch-size",
    "8",
    "--initialisation",
    "glorot",
    "--statistics",
    "training-set",
]


def overridden(arguments) -> list[str]:
    """Arguments of a command without options that a later one overrides, as those of TRAIN_TINY."""
    options: dict[str, list[str]] = {}
    for argument in map(str, arguments):
        if argument.startswith("--"):
            options.pop(argument, None)
            options[argument] = [argument]
        else:
            options.setdefault(next(reversed(options), ""), []).append(argument)
    return [argument for parts in options.values() for argument in parts]


def encode(pixels: np.ndarray, kind: str = "JPEG", **options) -> bytes:
    """Encodes uint8 pixels; returns the bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Pixels with smooth colours, edges and noise, as in a photo: uint8 `(H, W, 3)`."""
    coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), 2)).astype(int)
    pixels[height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = rng.integers(0, 256, 3)
    return (pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)


def write_folder(root, train: int = 8, val: int = 4, seed: int = 0) -> str:
    """Writes class folders of three colours, which a tiny net can learn; returns the data spec."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(33, 70, 2)
                pixels = photo(rng, height, width) // 3
                pixels[..., 2 - label] += 120
                (folder / f"{i:03d}.jpg").write_bytes(encode(pixels, quality=90))
    return f"folder:{root}"


def pytest_sessionstart(session):
    """Functions run as they were traced. TensorFlow would rewrite each new stream and function of
    a net, which is most of the time of a function that runs a few times. The slow tests have them
    rewritten: functions of nets in this process, streams too in others."""
    if session.config.getoption("dist", "no") != "no":
        return  # this process only divides the tests among others
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    tf.config.list_logical_devices()  # starts TensorFlow; streams keep the options it starts with
    if session.config.getoption("markexpr") == "slow":
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture(autouse=True)
def _ends_deterministic_operations():
    """`train` makes operations deterministic until the process ends; each stream is rewritten then,
    whether or not rewriting is disabled."""
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework.config import disable_op_determinism

        disable_op_determinism()


@pytest.fixture
def folder(tmp_path):
    """The data spec of 24 training images and 12 validation images."""
    return write_folder(tmp_path / "data")


@pytest.fixture(scope="session", autouse=True)
def default_data_dir(tmp_path_factory):
    """The default `data_dir` of all tests, so that none writes into the home folder."""
    os.environ["TFDS_DATA_DIR"] = str(tmp_path_factory.mktemp("data_dir"))


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory):
    """A TFDS folder with a tenth of the drawn shapes, 160 and 40 images, prepared once for all
    processes of xdist. `tests/wheel.py` draws all 2,000."""
    from vgg_keras.pipelines.sources import open_source, shapes

    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tfds"
    path.mkdir(exist_ok=True)
    with open(path / "lock", "w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setattr(shapes, "IMAGES", {k: n // 10 for k, n in shapes.IMAGES.items()})
        open_source("shapes", path)
    return path


@pytest.fixture
def map_counter(monkeypatch):
    """Number of views that each net has seen in dense passes for boxes, by its name and Q."""
    from collections import Counter
    from pathlib import Path

    import tensorflow as tf

    from vgg_keras.localisation import dense

    counts: Counter[tuple[str, int]] = Counter()

    def counted(make, name_of):
        def making(of):
            predict, name = make(of), name_of(of)

            def count(shape):
                counts[name, int(min(shape[1:3]))] += int(shape[0])
                return np.int32(0)

            def counting(views):
                tf.numpy_function(count, [tf.shape(views)], tf.int32)
                return predict(views)

            return counting

        return making

    names = {
        "make_box_fn": lambda net: Path(net.name).name,
        "make_rating_fn": lambda nets: "+".join(Path(net.name).name for net in nets),
    }
    for function, name_of in names.items():
        monkeypatch.setattr(dense, function, counted(getattr(dense, function), name_of))
    return counts
