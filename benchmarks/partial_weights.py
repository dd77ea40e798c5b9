"""Tests the first three blocks of a net with a linear SVM on their features.

    python benchmarks/partial_weights.py --weights vgg19-blocks1-3.npz --data folder:caltech20

The smaller side of every image is rescaled to 128 pixels. The features are the L2-normalised
average of `block3_pool` over its central square. A linear SVM (C = 10) is trained on 20 images per
class, and the mean class recall is measured on the other images, for three random splits. For
comparison, the same is done with wrong inputs: the channels in the wrong order, no mean subtracted,
or pixels divided by 255 instead.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from measuring import machine, report
from sklearn.metrics import recall_score
from sklearn.svm import LinearSVC

from vgg_keras import vgg, weights
from vgg_keras.pipelines.evaluation import grid_crops
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import Split
from vgg_keras.pipelines.statistics import ILSVRC

MEAN = np.array(ILSVRC.mean, np.float32)
SIDE, TRAIN, SPLITS, C = 128, 20, 3, 10.0
# Preprocessing that the file is read with, and function of the pixels, RGB in 0..255.
INPUTS = {
    "right input": (None, lambda pixels: pixels - MEAN),
    "channels in the wrong order": ("rgb", lambda pixels: pixels - MEAN),
    "mean not subtracted": (None, lambda pixels: pixels),
    "divided by 255 instead": (None, lambda pixels: pixels / 255),
}


def features(
    split: Split,
    file: Path,
    preprocessing: str | None,
    prepare: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Returns float32 `(images, 256)` with L2-normalised rows."""
    net = vgg("E", crop_size=32)  # its small FC layers are not used
    weights.load(net, file, partial=True, preprocessing=preprocessing)
    blocks = keras.Model(net.input, net.get_layer("block3_pool").output)
    rows = np.zeros((len(split), 256), np.float32)
    crops = grid_crops(split, test_scale=SIDE, crop_size=SIDE, grid=1, batch_size=16)
    for indices, pixels in crops:
        maps = blocks(prepare(pixels.numpy()[:, 0]), training=False)
        rows[indices.numpy()] = keras.ops.convert_to_numpy(maps).mean((1, 2))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def recalls(rows: np.ndarray, labels: np.ndarray) -> list[float]:
    """Returns the mean class recall in percent for each random split."""
    result = []
    for seed in range(SPLITS):
        rng = np.random.default_rng(seed)
        training = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            training[rng.permutation(np.flatnonzero(labels == label))[:TRAIN]] = True
        svm = LinearSVC(C=C, random_state=0).fit(rows[training], labels[training])
        predicted = svm.predict(rows[~training])
        result.append(100 * recall_score(labels[~training], predicted, average="macro"))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="Weights file of net E.")
    parser.add_argument("--data", required=True, help="Data of one split, such as folder:DIR.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    source = open_source(arguments.data)
    (split,) = source.splits.values()
    found = {
        name: recalls(features(split, arguments.weights, *preparation), split.all_labels())
        for name, preparation in INPUTS.items()
    }
    rows = [
        (name, f"{np.mean(values):.1f}", f"{np.std(values, ddof=1):.1f}")
        for name, values in found.items()
    ]
    result = {"benchmark": "partial weights", "machine": machine(), "mean_class_recall": found}
    report(result, rows, ("input", "mean class recall, %", "sd"), arguments.out)


if __name__ == "__main__":
    main()
