"""The hardware that computes, in words."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from pathlib import Path


def hardware() -> str:
    """The GPUs that TensorFlow or JAX uses, or the CPU and the number of cores.

    A process that has imported neither computes on the CPU.

    Example:
        >>> hardware()  # doctest: +SKIP
        '8 x NVIDIA H100 80GB HBM3'
    """
    names = _gpus_of_jax() or _gpus_of_tensorflow()
    if names:
        return ", ".join(
            f"{count} x {name}" if count > 1 else name for name, count in Counter(names).items()
        )
    cores = cpu_cores()
    return f"{_cpu()}, {cores} core{'s' * (cores > 1)}"


def cpu_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus_of_tensorflow() -> list[str]:
    if "tensorflow" not in sys.modules:
        return []
    import tensorflow as tf

    return [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]


def _gpus_of_jax() -> list[str]:
    if os.environ.get("KERAS_BACKEND") != "jax" or "jax" not in sys.modules:
        return []
    import jax

    return [device.device_kind for device in jax.devices() if device.platform != "cpu"]


def _cpu() -> str:
    """Name of the CPU."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "CPU")
