"""Speed of the dense evaluation of §3.2 on photos, compared with other ways to test a net.

    python benchmarks/evaluation.py --photos DIR [--scales 256 384 512] [--images N] [--net D]
        [--width 1.0] [--run RUN --data SPEC] [--out FILE]

The dense pass is that of `posteriors`, in float32 with mirror images. It reads JPEGs, rescales
whole images to a smaller side of Q and groups them by shape. At each Q it is compared with

(a) the usual way: a functional Keras model with the FC layers as Conv2D and the same weights, in a
    `tf.function`, image by image. The score map is averaged, the soft-max is taken, and then the
    mean of both flips. It is timed with an image and its mirror image in one call ("usual"), and
    with a call for each ("two calls"), because TensorFlow's CPU convolution uses another algorithm
    for one image than for two. It reads one image at a time, by the same functions. The greatest
    difference between the posteriors is printed;
(b) multi-crop, 50 crops of an image, on the first few of the photos;
(c) the best convolution of the machine: `tf.nn.conv2d` alone, 3 x 3, float32, in the larger shapes
    of VGG. The unit is GFLOP/s, for which a multiply-add counts twice. Those of the dense pass are
    the multiply-adds of all weight layers at every rescaled size, both flips; its time includes
    reading;
(d) itself in mixed_bfloat16. The changes of the first class and of the set of first five classes
    are given in percent of the photos under random weights. With a run they are also given for the
    validation images of its data, with both errors, at the paper's single scale.

The photos of the commonest shape come first: in a large set most shapes have enough photos to fill
batches, in a folder of dozens they do not. "less set-up" is without the shortest time that the
stream of one photo took to start. The weights are random: He-normal from a seed, so that
activations keep their scale. Those of the first layer are divided by 60, about the standard
deviation of pixels.
"""

from __future__ import annotations

import argparse
import collections
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from measuring import in_turn, machine, ratios, report
from train_step import photos_split

from vgg_keras import vgg
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.evaluation.posteriors import posteriors
from vgg_keras.evaluation.procedure import Pass
from vgg_keras.nets import FC_NAMES, NETS, STRIDE, weight_layers
from vgg_keras.pipelines.evaluation import whole_images
from vgg_keras.pipelines.images import decode, rescale, rescaled_size, upright_size
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.trained import TrainedNet

CROP, CLASSES = 224, 1000
PIXEL_DEVIATION = 60.0
CONVOLUTIONS = ((8, 224, 64), (8, 112, 128), (8, 56, 256), (8, 28, 512))  # batch, side, channels
CONVOLUTION_CALLS = 5  # in each repetition
FLOAT32, BFLOAT16 = "float32", "mixed_bfloat16"
COMPARISONS = (  # title, figure, figure that it is compared with, aim of the ratio by Q
    ("(a) dense, usual: images/s", "dense", "usual", {256: 2.0, 384: 1.4, 512: 1.15}),
    ("(a) less set-up", "dense less set-up", "usual", {}),
    ("(a) dense, two calls: images/s", "dense", "two calls", {}),
    ("(b) dense, 50 crops: images/s", "dense", "multi-crop", {}),
    ("(c) dense, best conv: GFLOP/s", "GFLOP/s", "best convolution", {384: 0.8}),
    ("(c) less set-up", "GFLOP/s less set-up", "best convolution", {}),
    ("(d) bfloat16, float32: images/s", "bfloat16", "dense", {}),
)

Method = Callable[[FolderSplit, int], np.ndarray]  # from photos and Q to posteriors


def first(split: FolderSplit, count: int) -> FolderSplit:
    """The first images of a split."""
    return FolderSplit(split.name, split.paths[:count], split.labels[:count])


def commonest_first(photos: FolderSplit) -> FolderSplit:
    """The photos, sorted by how many have the same shape, the most frequent shape first."""
    shapes = [tuple(upright_size(tf.io.read_file(path)).numpy()) for path in photos.paths]
    counts = collections.Counter(shapes)
    order = sorted(range(len(shapes)), key=lambda i: (-counts[shapes[i]], shapes[i]))
    return FolderSplit(photos.name, photos.paths[order], photos.labels[order])


def build(net: str, width: float, precision: str) -> keras.Model:
    """The net with random weights, see the docstring of the module; biases are zero already."""
    keras.config.set_dtype_policy(precision)
    model = vgg(net, CLASSES, CROP, width, classifier_activation=None)
    keras.config.set_dtype_policy(FLOAT32)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            *window, _ = shape = layer.kernel.shape
            deviation = np.float32(np.sqrt(2.0 / np.prod(window)))
            layer.kernel.assign(rng.standard_normal(shape, np.float32) * deviation)
    first_kernel = model.get_layer("block1_conv1").kernel
    first_kernel.assign(first_kernel / PIXEL_DEVIATION)
    return model


def with_convolutions(model: keras.Model, net: str, width: float) -> keras.Model:
    """The usual fully-convolutional net, with weights copied from `model`."""
    layers = {l.name: l for l in weight_layers(NETS[net], CLASSES, CROP, width)}

    def conv(name: str, x, padding: str = "same", activation: str | None = "relu"):
        layer = layers[name]
        return keras.layers.Conv2D(
            layer.outputs, layer.kernel, padding=padding, activation=activation, name=name
        )(x)

    inputs = x = keras.Input((None, None, 3))
    for i, block in enumerate(NETS[net].kernels, 1):
        for j in range(1, len(block) + 1):
            x = conv(f"block{i}_conv{j}", x)
        x = keras.layers.MaxPooling2D(2, 2)(x)
    x = conv("fc2", conv("fc1", x, "valid"))
    usual = keras.Model(inputs, conv("predictions", x, activation=None))
    for name, layer in layers.items():
        kernel, bias = model.get_layer(name).get_weights()
        shape = layer.kernel, layer.kernel, layer.inputs, layer.outputs
        usual.get_layer(name).set_weights([kernel.reshape(shape), bias])
    return usual


def image_by_image(model: keras.Model, calls: int) -> Method:
    """One image at a time, with its mirror image in the same call or in a second one."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int32)])
    def load(path, scale):
        return rescale(decode(tf.io.read_file(path)), scale)[None] - tf.constant(ILSVRC.mean)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)])
    def posteriors_of(images):
        return tf.nn.softmax(tf.reduce_mean(model(images, training=False), (1, 2)))

    def by_image(split: FolderSplit, scale: int) -> np.ndarray:
        rows = []
        for path in split.paths:
            image = load(path, scale)
            both = tf.concat([image, tf.reverse(image, (2,))], 0)
            parts = [posteriors_of(part) for part in tf.split(both, calls)]
            rows.append(tf.concat(parts, 0).numpy().mean(0))
        return np.array(rows)

    return by_image


def by_pass(model: keras.Model, views: str, batch_size: int) -> Method:
    """A pass of `posteriors`."""
    net = TrainedNet.of_model(model, mean=ILSVRC.mean)  # one net, so that it is traced once

    def by_one_pass(split: FolderSplit, scale: int) -> np.ndarray:
        one = Pass(views, scale, flip=True)
        return posteriors(net, split, [one], batch_size=batch_size, verbose=0)

    return by_one_pass


def set_up(photo: FolderSplit, scale: int) -> float:
    """Seconds until the stream of a dense pass over one photo gives this photo."""
    began = time.perf_counter()
    wanted = np.ones(1, bool)
    next(iter(whole_images(photo, test_scale=scale, batch_pixels=CROP**2, wanted=wanted)))
    return time.perf_counter() - began


def convolution(batch: int, side: int, channels: int) -> Callable[[], float]:
    """A task that gives the GFLOP/s of a 3 x 3 convolution."""
    images = tf.random.stateless_normal((batch, side, side, channels), (0, 0))
    kernel = tf.random.stateless_normal((3, 3, channels, channels), (0, 1))
    # As arguments: a convolution of two constants would be folded away.
    convolve = tf.function(lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"))
    convolve(images, kernel)
    gflop = 2e-9 * batch * (3 * side * channels) ** 2

    def task() -> float:
        began = time.perf_counter()
        for _ in range(CONVOLUTION_CALLS):
            last = convolve(images, kernel)
        last[0, 0, 0, 0].numpy()  # waits for an accelerator
        return gflop * CONVOLUTION_CALLS / (time.perf_counter() - began)

    return task


def multiply_adds(net: str, width: float, size: tuple[int, int]) -> int:
    """Multiply-adds of the weight layers for one image of that size."""
    total = 0
    for layer in weight_layers(NETS[net], CLASSES, CROP, width):
        if layer.name in FC_NAMES:
            rows, columns = (side // STRIDE - CROP // STRIDE + 1 for side in size)
        else:
            step = CROP // layer.positions  # a power of two: halving rounds down
            rows, columns = (side // step for side in size)
        total += layer.multiply_adds // layer.positions**2 * rows * columns
    return total


def changes(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Percentages of rows whose first class, and whose set of first five classes, differ."""
    a, b = (np.argsort(-p, axis=1, kind="stable")[:, :5] for p in (one, other))
    return {
        "top1_changes": 100.0 * float(np.mean(a[:, 0] != b[:, 0])),
        "top5_set_changes": 100.0 * float(np.mean((np.sort(a) != np.sort(b)).any(1))),
    }


def precision_of_run(run: Path, data: str, batch_size: int) -> dict:
    """Changes of the predictions of a trained net in mixed_bfloat16."""
    source, found = open_source(data), {}
    for precision in (FLOAT32, BFLOAT16):
        found[precision] = evaluate(
            TrainedNet.load(run, precision=precision), source, batch_size=batch_size, cache_dir=None
        )
    errors = {precision: p.result() for precision, p in found.items()}
    rows = (p.posteriors for p in found.values())
    return {"weights": str(run), **changes(*rows), "errors": errors}


def methods_of(arguments: argparse.Namespace, photos: FolderSplit) -> dict:
    """Ways to test the net, each with the photos that it is tested on."""
    net, width, batch_size = arguments.net, arguments.width, arguments.batch_size
    model, half = build(net, width, FLOAT32), build(net, width, BFLOAT16)
    few = first(photos, arguments.crop_images)
    usual = with_convolutions(model, net, width)
    return {
        "dense": (by_pass(model, "dense", batch_size), photos),
        "usual": (image_by_image(usual, calls=1), photos),
        "two calls": (image_by_image(usual, calls=2), photos),
        "bfloat16": (by_pass(half, "dense", batch_size), photos),
        "multi-crop": (by_pass(model, "multi-crop", batch_size), few),
    }


def measure(arguments: argparse.Namespace, photos: FolderSplit) -> tuple[dict, dict]:
    """Figures of every round, and the last posteriors, by method and scale."""
    found: dict[str, np.ndarray] = {}

    def images_per_second(name: str, method: Method, split: FolderSplit, scale: int) -> float:
        began = time.perf_counter()
        found[name] = method(split, scale)
        return len(split) / (time.perf_counter() - began)

    tasks: dict[str, Callable[[], float]] = {}
    methods = methods_of(arguments, photos)
    for scale in arguments.scales:
        for name, (method, split) in methods.items():
            method(first(split, 2), scale)  # traces
            case = f"{name} {scale}", method, split, scale
            tasks[case[0]] = functools.partial(images_per_second, *case)
        tasks[f"set-up {scale}"] = functools.partial(set_up, first(photos, 1), scale)
    for shape in CONVOLUTIONS:
        tasks["convolution {} x {} x {}".format(*shape)] = convolution(*shape)
    return in_turn(tasks, arguments.repetitions), found


def derive(figures: dict[str, list[float]], photos: FolderSplit, arguments) -> dict:
    """Adds figures that are computed from others, and returns the numbers that this needed."""
    convolutions = [name for name in figures if name.startswith("convolution")]
    best = max(convolutions, key=lambda name: np.median(figures[name]))
    originals = [upright_size(tf.io.read_file(path)) for path in photos.paths]
    used: dict = {"best_convolution": best}
    for scale in arguments.scales:
        sizes = [tuple(rescaled_size(o, scale).numpy().tolist()) for o in originals]
        counts = [multiply_adds(arguments.net, arguments.width, size) for size in sizes]
        gflop = 2 * 2 * sum(counts) / len(counts) / 1e9  # multiply and add, both flips
        dense, setting_up = figures[f"dense {scale}"], min(figures[f"set-up {scale}"])
        less = [1 / (1 / d - setting_up / len(photos)) for d in dense]
        figures[f"dense less set-up {scale}"] = less
        figures[f"GFLOP/s {scale}"] = [gflop * d for d in dense]
        figures[f"GFLOP/s less set-up {scale}"] = [gflop * l for l in less]
        figures[f"best convolution {scale}"] = figures[best]
        used[f"Q={scale}"] = {"gflop_per_image": gflop, "shapes": len(set(sizes))}
    return used


def compare(scales: list[int], figures: dict[str, list[float]]) -> tuple[dict, list[tuple]]:
    """Ratios by name, and the rows of the table."""
    compared: dict[str, dict[str, float]] = {}
    rows = []
    for title, one, other, aims in COMPARISONS:
        for scale in scales:
            names = f"{one} {scale}", f"{other} {scale}"
            ratio = compared[" / ".join(names)] = ratios(figures, *names)
            medians = (float(np.median(figures[name])) for name in names)
            spread = f"{ratio['min']:.3g} to {ratio['max']:.3g}"
            rows.append((title, scale, *medians, ratio["median"], spread, aims.get(scale, "")))
    return compared, rows


def difference(scale: int, found: dict[str, np.ndarray]) -> dict[str, float]:
    """Differences between posteriors of the dense pass, of the usual way and of bfloat16."""
    dense, usual, half = (found[f"{method} {scale}"] for method in ("dense", "usual", "bfloat16"))
    greatest = {"greatest_posterior": dense.max(), "dense_and_usual": np.abs(dense - usual).max()}
    return {name: float(value) for name, value in greatest.items()} | changes(dense, half)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="Folder of JPEG files.")
    parser.add_argument(
        "--scales", type=int, nargs="+", default=[256, 384, 512], help="Test scales Q."
    )
    parser.add_argument("--images", type=int, default=24, help="Photos in a repetition.")
    parser.add_argument("--crop-images", type=int, default=2, help="Photos for multi-crop.")
    parser.add_argument("--repetitions", type=int, default=3, help="Number of rounds.")
    parser.add_argument("--batch-size", type=int, default=64, help="Batch size, as in evaluate.")
    nets = [name for name, net in NETS.items() if not net.lrn]
    parser.add_argument("--net", choices=nets, default="D", help="Net of Table 1.")
    parser.add_argument("--width", type=float, default=1.0, help="Factor on the channels.")
    parser.add_argument("--run", type=Path, help="Folder of a run or of a saved net.")
    parser.add_argument("--data", help="Data of the run, such as folder:DIR.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    if (arguments.run is None) != (arguments.data is None):
        parser.error("--run and --data go together")
    return arguments


def main() -> None:
    arguments = parse()
    photos = commonest_first(photos_split(arguments.photos, arguments.images))
    photos = first(photos, arguments.images)
    figures, found = measure(arguments, photos)
    keras.backend.clear_session()
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items()}
    result: dict = {"benchmark": "The dense pass", **machine(), "settings": settings}
    metadata = derive(figures, photos, arguments)
    for scale in arguments.scales:
        metadata[f"random weights, Q={scale}"] = difference(scale, found)
    if arguments.run:
        metadata["run"] = precision_of_run(arguments.run, arguments.data, arguments.batch_size)
    for name, value in metadata.items():
        print(f"{name}: {value}")
    compared, rows = compare(arguments.scales, figures)
    result |= {"metadata": metadata, "figures": figures, "ratios": compared}
    columns = ("measured", "Q", "one", "other", "ratio", "min to max", "aim")
    report(result, rows, columns, arguments.out)


if __name__ == "__main__":
    main()
