"""Baselines for features: the same protocol on raw pixels and on HOG.

    python benchmarks/transfer.py --data folder:caltech20 --train-per-class 20

Raw pixels: each picture squeezed to 32 x 32. HOG: scikit-image's, of the picture squeezed to 128 x
128 in grey, 9 orientations, cells of 16 x 16, blocks of 2 x 2. Both L2-normalised, as descriptors
are. Needs scikit-image: pip install 'vgg_keras[benchmarks]'.
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
from vgg_keras.pipelines.evaluation import read_images
from vgg_keras.pipelines.sources import open_source

from vgg_keras.features.table import Features, normalised
from vgg_keras.features.transfer import transfer


def squeezed(picture: np.ndarray, side: int) -> np.ndarray:
    """float32 `(side, side, 3)`, 0..255; averaged where it shrinks."""
    return tf.image.resize(picture, (side, side), antialias=True).numpy()


def raw_pixels(picture: np.ndarray) -> np.ndarray:
    pixels = squeezed(picture, 32)
    return (pixels - pixels.mean()).ravel()


def gradients(picture: np.ndarray) -> np.ndarray:
    grey = squeezed(picture, 128) @ np.array([0.299, 0.587, 0.114]) / 255
    return hog(grey, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--protocol", default="caltech101")
    parser.add_argument("--train-per-class", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    source = open_source(arguments.data)
    (split,) = source.splits.values()
    pictures = read_images(split, range(len(split)))
    targets = split.all_targets(len(source.class_names))
    names = split.ids_of(range(len(split)))
    results, rows = {}, []
    for name, describe in (("raw pixels", raw_pixels), ("HOG", gradients)):
        values = normalised(np.stack([describe(pictures[i]) for i in range(len(split))]))
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
        ("descriptor", "numbers", "mean class recall, %", "sd"),
        arguments.out,
    )


if __name__ == "__main__":
    main()
