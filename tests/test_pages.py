"""The commands and scripts of the first pages run as they are written, with nets of less width.

Data sets that the tests cannot draw are left out, and so are commands of other programs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from tests.conftest import encode, photo
from tests.saved_models import servers
from tests.vgg_keras.weights import foreign
from vgg_keras import pretrained, vgg
from vgg_keras.cli import main
from vgg_keras.pipelines import Split
from vgg_keras.recipes import RECIPES

ROOT = Path(__file__).parent.parent
SIZE = (1000, 224, 1 / 64)
CLASSES = ["cat", "dog"]
SMALLER = {
    # A model of Keras Applications has no option for its width.
    "keras.applications.VGG16(weights=None)": 'vgg("D")',
    "epochs=16": "epochs=1",
    "width=0.25": "width=1 / 16",
}
OTHER_PROGRAMS = {"pip", "make", "eval", "python", "MODEL=photos", "KERAS_BACKEND=jax"}
OTHER_DATA = re.compile("tfrecord:|parquet:|webdataset:|tfds:|folder:(tiny-)?imagenet")
SERVER = "localhost:8501"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with the files that the scripts name, nets of small width, and a released one."""
    layers = foreign.random_weights(foreign.kernel_shapes("D", *SIZE))
    monkeypatch.setattr(vgg, "__defaults__", SIZE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    release = pretrained.find_release("imagenet:D")
    file = tmp_path / "models" / release.file_name
    file.parent.mkdir()
    foreign.applications_h5(file, layers)
    digest = hashlib.md5(file.read_bytes()).hexdigest()
    released = dataclasses.replace(release, digest=digest, width=SIZE[2])
    notop = dataclasses.replace(
        pretrained.find_release("keras:D-notop"), file_name="notop.h5", width=SIZE[2]
    )
    convs = {name: pair for name, pair in layers.items() if "conv" in name}
    foreign.applications_h5(file.parent / notop.file_name, convs)
    digest = hashlib.md5((file.parent / notop.file_name).read_bytes()).hexdigest()
    notop = dataclasses.replace(notop, digest=digest)
    monkeypatch.setattr(pretrained, "RELEASES", (released, notop))
    foreign.caffemodel(tmp_path / "VGG_ILSVRC_16_layers.caffemodel", layers)
    Path("photo.jpg").write_bytes(encode(photo(np.random.default_rng(0), 240, 230)))
    for name in ("small", "fine-tune"):
        tiny = dataclasses.replace(RECIPES[name], width=SIZE[2], epochs=2, batch_size=8)
        monkeypatch.setitem(RECIPES, name, tiny)


def photos(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [encode(photo(rng, *rng.integers(64, 80, 2))) for _ in range(count)]


def write_data() -> None:
    """Class folders without splits, and the same images as both splits."""
    for folder in ("photos", "flowers", "DIR/train", "DIR/val"):
        for i, image in enumerate(photos(40)):
            file = Path(folder, CLASSES[i % 2], f"{i}.jpg")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)
    two = foreign.random_weights(foreign.kernel_shapes("D", len(CLASSES), *SIZE[1:]))
    foreign.applications_h5(Path("flowers.h5"), two)
    Path("flowers.txt").write_text("daisy\nrose\n")


def own_data() -> dict[str, object]:
    """The names that the page on own data leaves to its reader."""
    encoded, labels = photos(40), np.arange(40) % 2
    arrays = [tf.io.decode_jpeg(image).numpy()[:64, :64] for image in encoded]
    for name, image in zip(("a.jpg", "b.png"), encoded[:2], strict=True):
        Path(name).write_bytes(image)
    dataset = tf.data.Dataset.from_tensor_slices((encoded, labels)).repeat(125)
    with tf.io.TFRecordWriter("train.tfrecord") as writer:
        for image, label in dataset.as_numpy_iterator():
            of_bytes = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
            of_label = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
            features = tf.train.Features(feature={"image": of_bytes, "label": of_label})
            writer.write(tf.train.Example(features=features).SerializeToString())
    images = np.stack(arrays)
    return {
        "tf": tf,
        "images": images,
        "labels": labels,
        "dataset": dataset,
        "other_split": Split.from_arrays(images, labels, CLASSES),
        "x_train": images,
        "y_train": labels,
        "x_val": images[:10],
        "y_val": labels[:10],
        "class_names": CLASSES,
    }


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The language and the text of each block of a page; a script is made smaller."""
    for kind, text in re.findall(
        r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    ):
        for written, smaller in SMALLER.items():
            text = text.replace(written, smaller) if kind == "python" else text
        yield kind, text


def run(line: str) -> bool:
    """Runs a command in this process; returns whether it is one that is run here."""
    words = shlex.split(line, comments=True)
    if not words or words[0] in OTHER_PROGRAMS or any(map(OTHER_DATA.match, words)):
        return False
    assert words[0] == "vgg-keras", line
    with contextlib.ExitStack() as stack:
        if SERVER in line:
            host = stack.enter_context(servers.served(Path("exports/photos/1")))
            words = [word.replace(SERVER, host) for word in words]
        done = CliRunner().invoke(main, words[1:])
    assert done.exit_code == 0, f"{line}\n{done.output}"
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "commands"),
    [
        ("README.md", 9),
        ("docs/getting_started.md", 8),
        ("docs/fine_tuning.md", 3),
        ("docs/own_data.md", 8),
    ],
)
def test_a_page_runs(small, page, commands):
    write_data()
    names = own_data() if page == "docs/own_data.md" else {}
    count = 0
    for kind, text in blocks(page):
        if kind == "python":
            exec(text, names)
        elif not kind:
            count += sum(map(run, text.replace("\\\n", " ").splitlines()))
    assert count == commands


@pytest.mark.slow
def test_the_scripts_of_the_page_on_weights_run(small):
    names = {"images": np.zeros((1, 224, 224, 3), np.float32)}
    for kind, script in blocks("docs/weights.md"):
        if "load_model" in script:
            names["weights"].convert("vgg16.safetensors", "vgg16.keras")
        if kind == "python":
            exec(script, names)
