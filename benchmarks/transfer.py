"""Baselines for features: the same protocol with raw pixels and with HOG as descriptors.

    python benchmarks/transfer.py --data folder:caltech20 --train-per-class 20

Raw pixels are those of the image resized to 32 x 32, whatever its aspect ratio. HOG is that of
scikit-image, of the grey image resized to 128 x 128, with 9 orientations, cells of 16 x 16 pixels
and blocks of 2 x 2 cells. Both are L2-normalised, as descriptors are. The benchmark needs
scikit-image: pip install 'vgg_keras[benchmarks]'.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from measuring import machine, report
from skimage.feature import hog

from vgg_keras.features.svm import transfer
from vgg_keras.features.table import Features, normalised
from vgg_keras.pipelines.evaluation import read_images
from vgg_keras.pipelines.sources import open_source


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """The image resized with antialiasing, float32 `(side, side, 3)`, 0..255."""
    return tf.image.resize(image, (side, side), antialias=True).numpy()


def raw_pixels(image: np.ndarray) -> np.ndarray:
    """Pixels minus their mean, `(3072,)`."""
    pixels = resized(image, 32)
    return (pixels - pixels.mean()).ravel()


def gradients(image: np.ndarray) -> np.ndarray:
    """HOG, `(1764,)`."""
    grey = resized(image, 128) @ np.array([0.299, 0.587, 0.114]) / 255
    return hog(grey, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="Data of one split, such as folder:DIR.")
    parser.add_argument("--protocol", default="caltech101", help="As in vgg-keras transfer.")
    parser.add_argument("--train-per-class", type=int, default=20, help="As there.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    source = open_source(arguments.data)
    (split,) = source.splits.values()
    images = read_images(split, range(len(split)))
    targets = split.all_targets(len(source.class_names))
    names = split.ids_of(range(len(split)))
    results, rows = {}, []
    for name, descriptor in (("raw pixels", raw_pixels), ("HOG", gradients)):
        values = normalised(np.stack([descriptor(images[i]) for i in range(len(split))]))
        features = Features(names, ["all"] * len(names), targets, values, source.class_names)
        result = transfer(features, arguments.protocol, train_per_class=arguments.train_per_class)
        results[name] = result
        rows.append(
            (
                name,
                str(values.shape[1]),
                f"{result['mean_class_recall']:.1f}",
                f"{result['spread']:.1f}",
            )
        )
    report(
        {"benchmark": "transfer baselines", "machine": machine(), "results": results},
        rows,
        ("descriptor", "dimensions", "mean class recall, %", "sd"),
        arguments.out,
    )


if __name__ == "__main__":
    main()
