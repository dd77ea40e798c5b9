"""Images per second of `model.fit` on net D, compared with Keras Applications' VGG16.

    python benchmarks/train_step.py --photos DIR [--precision float32 mixed_bfloat16] [--out FILE]
    python benchmarks/train_step.py --photos DIR --crop-size 32 --batch-size 1 --repetitions 20

Net D reads and augments JPEGs. VGG16 is compiled with Keras's SGD, without weight decay and
dropout, and gets one fixed batch from memory. The costs of L2, dropout and the input are shown by
removing one at a time, and all three. "L2 in the loss" is net D as Keras differentiates its
penalties, with Keras's SGD. All are timed in turn, in one run. The first step of each `fit`, in
which the input fills its buffers, is not counted.

A small crop and a small batch show the costs of the weights: the convolutions take little time.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from measuring import in_turn, machine, ratios, report

from vgg_keras import Recipe, vgg
from vgg_keras.pipelines.sources.folders import FolderSplit
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pipelines.training import training_stream
from vgg_keras.tasks import compile_model

JPEG = (".jpg", ".jpeg")
CLASSES = 1000
REFERENCE = "keras.applications.VGG16"
PHOTOS, MEMORY = "photos", "memory"


@dataclass(frozen=True)
class Case:
    """A model and its input."""

    input: str = PHOTOS
    applications: bool = False
    weight_decay: float = 5e-4
    dropout: float = 0.5
    caffe_sgd: bool = True


CASES = {
    "net D from JPEGs": Case(),
    "L2 in the loss": Case(caffe_sgd=False),
    "without L2": Case(weight_decay=0.0),
    "without dropout": Case(dropout=0.0),
    "without input": Case(MEMORY),
    "without all three": Case(MEMORY, weight_decay=0.0, dropout=0.0),
    "VGG16 with the SGD of net D": Case(MEMORY, applications=True),
    REFERENCE: Case(MEMORY, applications=True, caffe_sgd=False),
}


def photos_split(folder: Path, at_least: int) -> FolderSplit:
    """The JPEG files of a folder with random labels, repeated up to `at_least` images."""
    files = sorted(str(p) for p in folder.rglob("*") if p.suffix.lower() in JPEG)
    files *= -(-at_least // len(files))
    labels = np.random.default_rng(0).integers(0, CLASSES, len(files))
    return FolderSplit("train", np.array(files), labels)


def fixed_batch(batch_size: int, crop: int) -> tf.data.Dataset:
    """One random batch in memory, repeated."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 60, (batch_size, crop, crop, 3)).astype(np.float32)
    batch = tf.constant(images), tf.constant(rng.integers(0, CLASSES, batch_size))
    return tf.data.Dataset.from_tensors(batch).repeat()


def build(case: Case, crop: int) -> keras.Model:
    """The compiled model of one of the cases."""
    if case.applications:
        model = keras.applications.VGG16(
            weights=None, input_shape=(crop, crop, 3), classifier_activation=None
        )
        scores = keras.layers.Activation("linear", dtype="float32")(model.output)
        model = keras.Model(model.input, scores)
    else:
        model = vgg(
            "D",
            crop_size=crop,
            weight_decay=case.weight_decay,
            dropout=case.dropout,
            classifier_activation=None,
        )
    # Only a `VGG` leaves its penalties to the optimizer or computes them in one pass.
    model = model if case.caffe_sgd else keras.Model(model.input, model.output)
    compile_model(model, Recipe(learning_rate=1e-4))
    if not case.caffe_sgd:
        model.optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    return model


class StepClock(keras.callbacks.Callback):
    """Records the time at which each step ends."""

    def on_train_begin(self, logs=None):
        self.ends: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # JAX computes while Python goes on
        self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="Folder of JPEG files.")
    parser.add_argument("--batch-size", type=int, default=32, help="Images in a step.")
    parser.add_argument("--crop-size", type=int, default=224, help="Side of a crop, in pixels.")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), help="What to time."
    )
    parser.add_argument("--steps", type=int, default=3, help="Steps in a repetition.")
    parser.add_argument("--repetitions", type=int, default=2, help="Number of rounds.")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["float32", "mixed_bfloat16"],
        help="Keras dtype policies.",
    )
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()

    crop, batch_size = arguments.crop_size, arguments.batch_size
    photos = photos_split(arguments.photos, (1 + arguments.steps) * batch_size)
    inputs = {
        PHOTOS: training_stream(
            photos,
            crop_size=crop,
            train_scale=(round(256 * crop / 224), round(512 * crop / 224)),
            batch_size=batch_size,
            statistics=ILSVRC,
        ),
        MEMORY: fixed_batch(batch_size, crop),
    }
    cases = {name: CASES[name] for name in dict.fromkeys([*arguments.cases, REFERENCE])}
    result: dict = {"benchmark": "model.fit, images/s", **machine()}
    result |= {"batch_size": batch_size, "crop_size": crop, "precisions": {}}
    rows = []
    for precision in arguments.precision:
        keras.config.set_dtype_policy(precision)

        def timed(name: str, model: keras.Model, steps: int = arguments.steps) -> float:
            clock = StepClock()
            model.fit(
                inputs[cases[name].input],
                steps_per_epoch=1 + steps,
                verbose=0,
                shuffle=False,
                callbacks=[clock],
            )
            return steps * batch_size / (clock.ends[-1] - clock.ends[0])

        models = {name: build(case, crop) for name, case in cases.items()}
        for name, model in models.items():  # traces and creates the optimizer's state
            timed(name, model, steps=1)
        figures = in_turn(
            {name: lambda n=name, m=model: timed(n, m) for name, model in models.items()},
            arguments.repetitions,
        )
        compared = {name: ratios(figures, name, REFERENCE) for name in cases}
        result["precisions"][precision] = {"images_per_second": figures, "ratios": compared}
        rows += [
            (precision, name, float(np.median(figures[name])), compared[name]["median"])
            for name in cases
        ]
        del models
        keras.backend.clear_session()
    report(result, rows, ("precision", "case", "images/s", f"of {REFERENCE}"), arguments.out)


if __name__ == "__main__":
    main()
