"""Speed of a whole feature extraction, compared with the bare forward passes of the same sizes.

    python benchmarks/features.py --photos DIR [--net D] [--scales 256,384]

The extraction is that of `vgg-keras features`: reading JPEGs, rescaling, mirror images, grouping by
shape, caching, averaging, normalising. The bare passes call the same net up to the same layer on
random tensors with the shapes of the extraction's batches, mirror images included. Both run in
float32 and take turns; every round times each of them as a whole.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from measuring import machine, report

from vgg_keras import vgg
from vgg_keras.evaluation.procedure import Pass
from vgg_keras.evaluation.rows import RowFiller
from vgg_keras.features.descriptors import compute_descriptors, row_pass
from vgg_keras.features.extractor import FeatureExtractor
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.trained import TrainedNet


def untrained(net: str, width: float) -> FeatureExtractor:
    """A net with random weights, up to `fc2`."""
    return FeatureExtractor.of_net(TrainedNet.of_model(vgg(net, width=width), mean=ILSVRC.mean))


def shapes_of_batches(
    extractor: FeatureExtractor, photos: FolderSplit, scales: list[int], batch_size: int
) -> list[tuple[int, ...]]:
    """Shapes of all batches that the extraction passes through the net, mirror images included."""
    filler = RowFiller(photos, batch_size=batch_size)
    shapes = []
    for scale in scales:
        for _, views in filler.stream(row_pass(extractor, Pass("dense", scale, flip=True))):
            b, _, h, w, _ = views.shape
            shapes.append((2 * b, h, w, 3))
    return shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="Folder of JPEG files.")
    parser.add_argument("--net", default="D", help="Net of Table 1.")
    parser.add_argument("--width", type=float, default=1.0, help="Factor on the channels.")
    parser.add_argument("--scales", default="256,384", help="Test scales Q.")
    parser.add_argument("--images", type=int, default=60, help="Number of photos.")
    parser.add_argument("--batch-size", type=int, default=16, help="As in extract_features.")
    parser.add_argument("--repetitions", type=int, default=3, help="Number of rounds.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    scales = [int(q) for q in arguments.scales.split(",")]
    paths = sorted(str(path) for path in arguments.photos.iterdir())[: arguments.images]
    photos = FolderSplit("photos", np.array(paths), np.full(len(paths), -1, np.int64))
    extractor = untrained(arguments.net, arguments.width)
    shapes = shapes_of_batches(extractor, photos, scales, arguments.batch_size)
    bare = tf.function(
        lambda x: extractor.model(x, training=False),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)],
    )
    inputs = {shape: tf.random.normal(shape, stddev=50.0) for shape in set(shapes)}

    def extraction() -> None:
        with tempfile.TemporaryDirectory() as cache_dir:
            compute_descriptors(
                extractor,
                photos,
                test_scales=scales,
                batch_size=arguments.batch_size,
                cache_dir=cache_dir,
                verbose=0,
            )

    def passes() -> None:
        for shape in shapes:
            bare(inputs[shape]).numpy()

    seconds: dict[str, list[float]] = {"extraction": [], "bare passes": []}
    for repetition in range(arguments.repetitions + 1):  # the first one is a warm-up
        for name, run in (("extraction", extraction), ("bare passes", passes)):
            began = time.perf_counter()
            run()
            if repetition:
                seconds[name].append(time.perf_counter() - began)
    ratios = [e / b for e, b in zip(seconds["extraction"], seconds["bare passes"], strict=True)]
    rows = [
        (
            name,
            f"{len(paths) / statistics.median(times):.3f}",
            f"{min(times):.1f} to {max(times):.1f}",
        )
        for name, times in seconds.items()
    ]
    overhead = 100 * (statistics.median(ratios) - 1)
    rows.append(("overhead", f"{overhead:.1f} %", " ".join(f"{100 * (r - 1):.1f}" for r in ratios)))
    result = {
        "benchmark": "features",
        "machine": machine(),
        "net": arguments.net,
        "width": arguments.width,
        "test_scales": scales,
        "images": len(paths),
        "seconds": seconds,
        "overhead_percent": overhead,
    }
    report(result, rows, ("", "images/s", "seconds"), arguments.out)


if __name__ == "__main__":
    main()
