"""Time and memory at the size of ILSVRC, of ImageNet-21k's 14 million names, and of a full test.

    python benchmarks/full_size.py [--out FILE]

Nothing is downloaded. The 1,281,000 training images are hard links to a few drawn JPEGs, in 1,000
class folders of a temporary folder; making and removing them takes about a minute. The 14 million
files do not exist: only their names are used. The test evaluates a tiny net of 1,000 classes on
small images, so that the images and the rows of posteriors take the time and not the net.

Every measurement is a process of its own. Memory is the growth of its peak over what TensorFlow
takes after its first data set. A digest of what a stream gives shows that it has not changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measuring import machine, report

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CLASSES = 1000
LINKS = 60_000  # hard links to one file; ext4 allows 65,000
TRAIN_SIZE, TEST_SIZE = (375, 500), (48, 64)
BATCH, RESUMED = 64, 50


def link_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Makes `count` JPEGs in class folders, as hard links to as few files as possible."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(CLASSES):
        (folder / f"n{i:08d}").mkdir()
    for i in range(count):
        if i % LINKS == 0:
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
            file = os.fspath(folder / f".{i}.jpg")  # hidden: not an image of the data
            coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(file, quality=90)
        name = f"n{i % CLASSES:08d}"
        os.link(file, f"{folder}/{name}/{name}_{i // CLASSES}.JPEG")


class Figures(dict):
    """Figures of a process by name: seconds, and the growth of its peak memory in MB."""

    def start(self) -> None:
        """Takes the memory of now, with TensorFlow started, as its own."""
        import tensorflow as tf

        next(iter(tf.data.Dataset.range(2).map(lambda i: i + 1).batch(2)))
        self._own = self._peak()

    @staticmethod
    def _peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self[f"{name}, s"] = time.perf_counter() - began
        self[f"{name}, MB"] = self._peak() - self._own


def _digest(arrays) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()


def training(folder: str, figures: Figures) -> None:
    """The training stream of images in class folders."""
    from vgg_keras.pipelines.sources import open_source
    from vgg_keras.pipelines.statistics import ILSVRC
    from vgg_keras.pipelines.training import training_stream

    options = {"crop_size": 224, "train_scale": (256, 512), "batch_size": BATCH}
    figures.start()
    with figures.timed("open"):
        split = open_source(f"folder:{folder}")["train"]
    for name, epoch in (("first batch", 0), ("resume at epoch 50", RESUMED)):
        with figures.timed(name):
            stream = training_stream(split, **options, statistics=ILSVRC, first_epoch=epoch)
            batch = next(iter(stream))
        figures[f"{name}, digest"] = _digest(batch)
    change_of_epoch(split, figures)


def names(count: str, figures: Figures) -> None:
    """The order of a split whose files do not exist."""
    import numpy as np
    import tensorflow as tf

    from vgg_keras.pipelines.sources.folders import FolderSplit

    figures.start()
    with figures.timed("open"):
        folders = [f"/data/imagenet21k/n{i:08d}/n{i:08d}_" for i in range(21_841)]
        paths = (f"{folders[i % len(folders)]}{i}.JPEG" for i in range(int(count)))
        split = FolderSplit("train", paths, np.arange(int(count)) % len(folders))
    with figures.timed("first example"):
        orders = tf.data.Dataset.range(RESUMED, RESUMED + 2).flat_map(split.shuffled)
        example = next(iter(orders))
    figures["first example, path"] = Path(example["path"].numpy().decode()).name
    change_of_epoch(split, figures)


def change_of_epoch(split, figures: Figures) -> None:
    """The first example of an epoch after the last one of the epoch before, without its image."""
    import tensorflow as tf

    orders = tf.data.Dataset.range(2).flat_map(split.shuffled)
    examples = iter(orders.skip(len(split) - 1))
    next(examples)
    with figures.timed("change of epoch"):
        next(examples)


def evaluation(folder: str, figures: Figures) -> None:
    """The posteriors of a tiny net for all images, their errors, and the file of predictions."""
    import keras

    from vgg_keras import TrainedNet, vgg
    from vgg_keras.evaluation.evaluate import evaluate
    from vgg_keras.pipelines.sources import open_source

    keras.utils.set_random_seed(0)
    split = open_source(f"folder:{folder}")["all"]
    model = vgg("A", CLASSES, 32, 1 / 64, classifier_activation=None)
    net = TrainedNet.of_model(model, mean=(120, 110, 100), class_names=split.class_names)
    options = {"protocol": "centre", "test_scales": 32, "verbose": 0}
    evaluate(net, split.without(split.names_of(range(100, len(split)))), **options)
    figures.start()
    with figures.timed("evaluate"):
        predictions = evaluate(net, split, **options)
    figures["images/s"] = len(split) / figures["evaluate, s"]
    with figures.timed("save"):
        predictions.save(Path(folder).with_suffix(".parquet"))
    figures["errors"] = "{top1_error:.3f} {top5_error:.3f}".format(**predictions.result())


MEASUREMENTS = {"training": training, "names": names, "evaluation": evaluation}


def measured(name: str, argument: object) -> dict[str, float | str]:
    """The figures of a measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, str(argument)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1_281_000, help="Training images.")
    parser.add_argument("--names", type=int, default=14_000_000, help="Names without files.")
    parser.add_argument(
        "--evaluated", type=int, nargs="+", default=[5_000, 50_000], help="Images of each test."
    )
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        figures = Figures()
        MEASUREMENTS[arguments.measure[0]](arguments.measure[1], figures)
        print(json.dumps(figures))
        return
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        began = time.perf_counter()
        link_images(root / "data/train", arguments.images, TRAIN_SIZE)
        linked = {"made, s": time.perf_counter() - began}
        found[f"{arguments.images:,} images"] = linked | measured("training", root / "data")
        found[f"{arguments.names:,} names"] = measured("names", arguments.names)
        for count in arguments.evaluated:
            link_images(root / f"test{count}", count, TEST_SIZE)
            found[f"test of {count:,}"] = measured("evaluation", root / f"test{count}")
    rows = [(of, name, value) for of, figures in found.items() for name, value in figures.items()]
    result = {"benchmark": "time and memory at full size", **machine(), "figures": found}
    report(result, rows, ("", "figure", "value"), arguments.out)


if __name__ == "__main__":
    main()
