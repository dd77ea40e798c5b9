"""What a training will need, by arithmetic: steps, memory and, on a CPU, time.

The formulas and what they were measured with are in docs/scaling.md. This module does not import
TensorFlow.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vgg_keras.hardware import cpu_cores
from vgg_keras.nets import CHANNELS, FC_NAMES, Layer, get_net, scaled, weight_layers
from vgg_keras.recipes import Recipe

# Temporary memory of a training step, divided by that of the activations: the largest measured.
_TEMPORARY = 3.1
# Floating-point operations a second and core: net D at 224 in float32 trains at 2 images/s on two
# cores. CPUs differ by a factor of three or more.
_CPU_RATE = 1e11
_FLOP_FOR_ADD = 6  # forward, and twice that backward; a multiplication and an addition each
_SECONDS_OF_DAY = 86400
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Forecast:
    """What a training will do and need.

    Attributes:
        recipe: what to train.
        num_classes: number of classes of the data.
        images: number of training images.
        devices: number of devices that share a batch, over all processes.
        processes: number of processes.
        kind: kind of the devices, "CPU", "GPU" or "TPU".

    Example:
        >>> Forecast(Recipe(net="D"), 1000, 1281167, devices=8, kind="GPU").steps
        5004
    """

    recipe: Recipe
    num_classes: int
    images: int
    devices: int = 1
    processes: int = 1
    kind: str = "CPU"

    @property
    def layers(self) -> list[Layer]:
        """The weight layers of the net."""
        recipe = self.recipe
        outputs = recipe.outputs(self.num_classes)
        return weight_layers(get_net(recipe.net), outputs, recipe.crop_size, recipe.width)

    @property
    def parameters(self) -> int:
        """Number of parameters of the net."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def steps(self) -> int:
        """Number of steps in an epoch."""
        return self.images // self.recipe.batch_size

    @property
    def memory(self) -> int:
        """Approximate number of bytes that a device needs.

        They hold the weights, the momentum, the gradients and the activations.
        Virtual devices of a CPU share its memory, which holds what all of them need.
        """
        layers = self.layers
        trained = [i for i, layer in enumerate(layers) if self.recipe.trains(layer.name)]
        momentum = _FLOAT * sum(layers[i].parameters for i in trained)
        floats = activations(layers[trained[0] :], self.recipe.crop_size, self.recipe.width)
        size = _FLOAT if self.recipe.precision == "float32" else _FLOAT / 2
        images = math.ceil(self.recipe.batch_size / self.devices)
        temporary = max(momentum, _TEMPORARY * size * floats * images)  # gradients are temporary
        needed = _FLOAT * self.parameters + momentum + temporary
        return round(needed * (self.devices // self.processes if self.kind == "CPU" else 1))

    @property
    def cpu_seconds(self) -> float:
        """Seconds of all epochs on the cores of this CPU, very roughly."""
        adds = sum(layer.multiply_adds for layer in self.layers)
        images = self.steps * self.recipe.batch_size * self.recipe.epochs
        return _FLOP_FOR_ADD * adds * images / (_CPU_RATE * cpu_cores() * self.processes)

    def line(self) -> str:
        """What the training will do and need, on one line."""
        recipe = self.recipe
        many = self.devices > 1
        return (
            f"net {recipe.net}, {_count(self.num_classes, 'class')}, {self.parameters:,} "
            f"parameters; {_count(self.images, 'image')}, {_count(self.steps, 'step')} an epoch, "
            f"{_count(recipe.epochs, 'epoch')} at most; {self.devices} {self.kind}"
            f"{'s' * many}, {recipe.precision}; about {_gigabytes(self.memory)} of memory"
            f"{' for each' * (many and self.kind != 'CPU')}"
        )

    def warnings(self, available: int | None) -> Iterator[str]:
        """Yields what this machine most likely cannot do.

        Args:
            available: bytes of memory of a device; None if it is not known.
        """
        if available is not None and self.memory > available:
            yield (
                f"this training needs about {_gigabytes(self.memory)} of memory, and the "
                f"{self.kind} has {_gigabytes(available)}: it will most likely fail. A smaller "
                f"batch_size, crop_size or width needs less"
            )
        days = self.cpu_seconds / _SECONDS_OF_DAY
        if self.kind == "CPU" and days >= 1:
            yield (
                f"this training will take about {days:,.0f} {'days' if days >= 1.5 else 'day'} on "
                f"this CPU if no plateau ends it (a rough estimate from multiply-adds; it may be "
                f"wrong by a factor of three). A GPU, or a smaller crop_size or width, as in the "
                f'recipe "small", is faster'
            )


def activations(layers: list[Layer], crop_size: int, width: float) -> float:
    """Number of floats of an image that the backward pass through these layers needs.

    They are the outputs of the conv. layers and of the poolings after them.
    """
    convs = [layer for layer in layers if layer.name not in FC_NAMES]
    outputs = sum(layer.positions**2 * layer.outputs for layer in convs)
    blocks = sorted({int(layer.name[len("block")]) for layer in convs})
    pooled = sum((crop_size >> block) ** 2 * scaled(CHANNELS[block - 1], width) for block in blocks)
    return outputs + pooled


def memory_of(kind: str) -> int | None:
    """Bytes of memory of a device of this machine: of the CPU, or of the smallest GPU.

    None if it is not known.
    """
    if kind == "CPU":
        return _memory_of_cpu()
    return _memory_of_gpu() if kind == "GPU" else None


def _memory_of_cpu() -> int | None:
    """Physical memory, or the limit of the container if that is lower."""
    found = []
    if hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups 2 and 1
        file = Path("/sys/fs/cgroup", limit)
        text = file.read_text().strip() if file.is_file() else ""
        found += [int(text)] if text.isdecimal() else []  # "max" if there is no limit
    return min(found, default=None)


def _memory_of_gpu() -> int | None:
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return min(int(line) for line in done.stdout.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
