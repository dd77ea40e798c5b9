"""Time from the command to the first answer, compared with a short script of Keras Applications.

    python benchmarks/first_answer.py [--weights FILE] [--repetitions N] [--out FILE.json]

Whole processes classify one photo with net D at full width, in turn. `--weights` is a file that
both can read, such as the one that `keras.applications` caches; by default a file with random
weights in the same layout is made. The script of Keras rescales the photo to 224 x 224 pixels and
takes one crop, so `predict` is timed with the central crop, and as it is without options: the whole
image and its mirror image, which are 3.5 times as many pixels for a photo of 500 x 375. What the
start costs is shown by processes that only import.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from measuring import in_turn, machine, ratios, report
from PIL import Image

KERAS = "keras.applications"
SCRIPT = """
import sys, keras
from keras.applications import vgg16
model = vgg16.VGG16(weights=sys.argv[1])
image = keras.utils.img_to_array(keras.utils.load_img(sys.argv[2], target_size=(224, 224)))
posteriors = model.predict(vgg16.preprocess_input(image[None]))
print(posteriors[0].argsort()[:-6:-1])
"""


def commands(weights: Path, photo: Path) -> dict[str, list[str]]:
    """The processes to time, by name."""
    cli = [sys.executable, "-m", "vgg_keras"]
    predict = [*cli, "predict", "--weights", os.fspath(weights)]
    return {
        KERAS: [sys.executable, "-c", SCRIPT, os.fspath(weights), os.fspath(photo)],
        "predict, central crop": [*predict, "--protocol", "centre", os.fspath(photo)],
        "predict": [*predict, os.fspath(photo)],
        "import keras": [sys.executable, "-c", "import keras"],
        "vgg-keras --help": [*cli, "--help"],
    }


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and CPU seconds that a process takes."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def random_weights(file: Path) -> None:
    """Saves net D with random weights, in the layout of Keras Applications."""
    from vgg_keras import vgg, weights

    weights.save(vgg("D"), file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="Weights of VGG16 that Keras can load.")
    parser.add_argument("--repetitions", type=int, default=7, help="Rounds.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, "photo.jpg")
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(photo)
        weights = arguments.weights or Path(folder, "vgg16.h5")
        if not arguments.weights:
            random_weights(weights)
        tasks = {
            name: lambda command=command: timed(command)
            for name, command in commands(weights, photo).items()
        }
        figures = in_turn(tasks, arguments.repetitions)
    seconds, cpu_seconds = (
        {name: [one[i] for one in pairs] for name, pairs in figures.items()} for i in (0, 1)
    )
    result = {
        "benchmark": "one photo with net D, whole processes",
        **machine(),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "ratios": {name: ratios(seconds, name, KERAS) for name in seconds},
        "cpu_ratios": {name: ratios(cpu_seconds, name, KERAS) for name in seconds},
    }
    rows = [
        (
            name,
            float(np.median(seconds[name])),
            result["ratios"][name]["median"],
            float(np.median(cpu_seconds[name])),
            result["cpu_ratios"][name]["median"],
        )
        for name in seconds
    ]
    columns = ("process", "seconds", f"of {KERAS}", "CPU seconds", f"of {KERAS}")
    report(result, rows, columns, arguments.out)


if __name__ == "__main__":
    main()
