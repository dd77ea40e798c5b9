"""Error by depth at small size: Tables 3 and 4 of the paper, with several seeds, under JAX.

    python benchmarks/depth.py DATA --out FOLDER [--seeds 3] [--epochs 20] [--minutes 10]

It trains the six nets of Table 1 on 64-pixel crops of class folders: A and A-LRN from Glorot's
initialisation, the others from net A of the same seed (§3.1). The nets of a seed see the same
crops, which are read once and stay in memory: 49 KB for each image and epoch. The learning rate
drops after 60 % and 85 % of the epochs, and the last weights are tested, so the validation images
select nothing.

Each run is a line of FOLDER/runs.jsonl. The same command does the runs that are missing. A run
starts only if it should end within the minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# With all algorithms to choose from, a net takes minutes to compile; without a choice, it runs
# dozens of times slower.
os.environ.setdefault("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=2")

import jax
import keras
import numpy as np
import tensorflow as tf
from measuring import machine

from vgg_keras import RECIPES, Procedure, Recipe, TrainedNet, fully_convolutional
from vgg_keras.callbacks import WarmStart
from vgg_keras.evaluation.metrics import ErrorCount
from vgg_keras.evaluation.procedure import Pass
from vgg_keras.evaluation.rows import RowFiller, RowPass, Table
from vgg_keras.net_files import build_for_training
from vgg_keras.nets import TABLE_1, WARM_START_LAYERS
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import Source, Split
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pipelines.training import steps_per_epoch, training_stream
from vgg_keras.tasks import compile_model

TESTS = {
    "centre": Procedure("centre"),
    "dense": Procedure("dense"),
    "dense, three scales": Procedure("dense", multi_scale=True),
}
DROPS = (0.6, 0.85)  # shares of the epochs after which the learning rate is divided by 10
CROPS = 512  # that pass through a net together in a test


class Trainer:
    """Trains and tests one net with any seed; its functions are compiled once."""

    def __init__(self, recipe: Recipe, source: Source):
        self.recipe, self.source = recipe, source
        self.model = build_for_training(recipe, len(source.class_names))
        compile_model(self.model, recipe)
        self.net = TrainedNet.of_model(
            self.model,
            mean=ILSVRC.mean,
            class_names=source.class_names,
            train_scale=recipe.train_scale,
        )
        self.posteriors = _posteriors(self.model)

    def start(self, seed: int) -> None:
        """Gives all variables the values of an untrained net."""
        recipe = dataclasses.replace(self.recipe, seed=seed)
        untrained = build_for_training(recipe, len(self.source.class_names))
        for variable, value in zip(self.model.variables, untrained.variables, strict=False):
            variable.assign(value)
        self.model.optimizer.build(self.model.trainable_variables)
        for variable in self.model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def train(self, batches: tf.data.Dataset, init_from: Path | None) -> dict:
        """Trains the net; returns the speed, and the error on the training crops by epoch."""
        recipe, ends = self.recipe, [time.perf_counter()]
        steps = steps_per_epoch(self.source["train"], recipe.batch_size)

        def rate(epoch: int, _: float) -> float:
            drops = sum(epoch >= share * recipe.epochs for share in DROPS)
            return recipe.learning_rate / 10**drops

        callbacks = [
            keras.callbacks.LearningRateScheduler(rate),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda *_: ends.append(time.perf_counter())
            ),
        ]
        if init_from:
            callbacks.append(WarmStart(init_from, WARM_START_LAYERS))
        logs = self.model.fit(
            batches,
            steps_per_epoch=steps,
            epochs=recipe.epochs,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        ).history
        return {
            "training_seconds": round(ends[-1] - ends[0], 1),
            "images_per_second": round(steps * recipe.batch_size / np.median(np.diff(ends))),
            "training_top1_errors": [round(100 * (1 - value), 2) for value in logs["accuracy"]],
        }

    def test(self, split: Split) -> dict:
        """Top-1 errors by test, and which images are right, as the bits of a hex number."""
        started, labels = time.perf_counter(), split.all_labels()
        wanted = list({one for test in TESTS.values() for one in test.passes(self.net)})
        with ThreadPoolExecutor() as pool:  # compiles for all image sizes at once
            futures = {one: pool.submit(self._rows, split, one) for one in wanted}
            rows = {one: future.result() for one, future in futures.items()}
        found: dict[str, dict] = {"top1_errors": {}, "right": {}}
        for name, test in TESTS.items():
            mean, count = np.mean([rows[one] for one in test.passes(self.net)], 0), ErrorCount()
            count.add(mean, labels)
            found["top1_errors"][name] = round(count.top1_error, 3)
            found["right"][name] = np.packbits(mean.argmax(1) == labels).tobytes().hex()
        return found | {"test_seconds": round(time.perf_counter() - started, 1)}

    def _rows(self, split: Split, one: Pass) -> np.ndarray:
        weights = [
            [variable.value for variable in variables]
            for variables in (self.model.trainable_variables, self.model.non_trainable_variables)
        ]
        full: list[int] = []  # images in the first batch, the largest

        def score(views: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
            full.append(len(views))
            filling = [(0, full[0] - len(views))] + [(0, 0)] * 4
            padded = np.pad(views.numpy(), filling)
            return tf.constant(np.array(self.posteriors(one.flip, weights, padded))[: len(views)])

        table = Table(
            np.zeros((len(split), len(self.source.class_names)), "float32"),
            lambda rows: rows.any(1),
            [RowPass(str(one), one.views, one.test_scale, one.flip, self.recipe.crop_size, score)],
        )
        RowFiller(split, batch_size=CROPS, verbose=0).fill([table])
        return table.rows


def _posteriors(model: keras.Model) -> Callable:
    """A function from (flip, weights, views) to mean posteriors, as `make_scorer`'s, for JAX."""
    maps, mean = fully_convolutional(model), np.array(ILSVRC.mean, "float32")

    def posteriors(flip: bool, weights: list, views: jax.Array) -> jax.Array:
        images = views.reshape(-1, *views.shape[2:]) - mean
        if flip:
            images = jax.numpy.concatenate([images, images[:, :, ::-1]])
        scores = maps.stateless_call(*weights, images, training=False)[0]["scores"]
        rows = jax.nn.softmax(scores).reshape(1 + flip, *views.shape[:2], -1)
        return rows.mean((0, 2))

    return jax.jit(posteriors, static_argnums=0)


def run(trainer: Trainer, seed: int, batches: tf.data.Dataset, folder: Path) -> dict:
    """Trains and tests a net with a seed."""
    recipe, device = trainer.recipe, jax.devices()[0]
    weights_of_a = folder / f"A-{seed}.weights.h5"
    trainer.start(seed)
    trained = trainer.train(batches, None if recipe.net.startswith("A") else weights_of_a)
    if recipe.net == "A":
        trainer.model.save_weights(weights_of_a)
    names = ("net", "width", "epochs", "batch_size", "learning_rate", "precision")
    return {
        **{name: getattr(recipe, name) for name in names},
        "seed": seed,
        **trained,
        **trainer.test(trainer.source["val"]),
        "accelerator": device.device_kind,
        "jax": jax.__version__,
        **machine(),
    }


def run_all(
    recipe: Recipe, source: Source, nets: list[str], seeds: int, folder: Path, ends: float
) -> None:
    """Does the runs that are missing in the folder, the first seed of all nets first."""
    folder.mkdir(parents=True, exist_ok=True)
    file, trainers, longest = folder / "runs.jsonl", {}, 0.0
    lines = file.read_text().splitlines() if file.exists() else []
    done = {(one["net"], one["seed"]) for one in map(json.loads, lines)}
    for seed in range(seeds):
        batches = _cached_batches(dataclasses.replace(recipe, seed=seed), source)
        for net in (net for net in nets if (net, seed) not in done):
            started = time.monotonic()
            if started + longest > ends:
                print("No time for another run.")
                return
            if net not in trainers:
                trainers[net] = Trainer(dataclasses.replace(recipe, net=net), source)
            found = run(trainers[net], seed, batches, folder)
            with file.open("a") as output:
                output.write(json.dumps(found) + "\n")
            longest = max(longest, time.monotonic() - started)
            shown = ("net", "seed", "top1_errors", "images_per_second", "training_seconds")
            print(*(found[name] for name in (*shown, "test_seconds")), flush=True)


def _cached_batches(recipe: Recipe, source: Source) -> tf.data.Dataset:
    """All training batches of a seed. The first net that reads them fills the cache."""
    steps = steps_per_epoch(source["train"], recipe.batch_size)
    stream = training_stream(
        source["train"],
        crop_size=recipe.crop_size,
        train_scale=recipe.train_scale,
        batch_size=recipe.batch_size,
        statistics=ILSVRC,
        seed=recipe.seed,
    )
    return stream.take(recipe.epochs * steps).cache().prefetch(4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="Folder with train/CLASS/ and val/CLASS/.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the results.")
    parser.add_argument("--nets", default=",".join(TABLE_1), help="A comes before B to E.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=600)
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    tf.config.set_visible_devices([], "GPU")
    recipe = dataclasses.replace(
        RECIPES["small"],
        width=options.width,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        precision="mixed_bfloat16",
        statistics="ilsvrc",
    )
    source = open_source(f"folder:{options.data}")
    run_all(recipe, source, options.nets.split(","), options.seeds, options.out, ends)


if __name__ == "__main__":
    main()
