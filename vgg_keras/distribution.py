"""Devices: all GPUs by default, or the CPU split into virtual ones for trying it."""

from __future__ import annotations

import tensorflow as tf


def make_strategy(devices: int | None = None) -> tf.distribute.Strategy:
    """`MirroredStrategy` over the machine's GPUs, or over `devices` virtual CPU devices.

    With a single device it is TensorFlow's default strategy, which computes the same.

    Args:
        devices: number of GPUs to use; where there is none, of parts to split the CPU into.

    Raises:
        ValueError: there are fewer GPUs than that, or TensorFlow has started with another number
            of virtual devices.
    """
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU" and devices and devices > 1:
        _split_cpu(devices)
    available = [d.name for d in tf.config.list_logical_devices(kind)]
    wanted = (len(available) if kind == "GPU" else 1) if devices is None else devices
    if not 1 <= wanted <= len(available):
        raise ValueError(f"There are {len(available)} {kind} devices. Received: devices={devices}")
    if wanted == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(available[:wanted])


def _split_cpu(parts: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * parts
        )
    except RuntimeError:
        existing = len(tf.config.list_logical_devices("CPU"))
        if existing < parts:
            raise ValueError(
                f"The CPU cannot be split after TensorFlow has started; it has {existing} "
                f"virtual devices. Received: devices={parts}"
            ) from None


def check_divisible(batch_size: int, replicas: int) -> None:
    """Raises ValueError where the replicas cannot share a batch evenly; names sizes that work."""
    if batch_size % replicas:
        below = batch_size // replicas * replicas
        near = [str(size) for size in (below, below + replicas) if size]
        raise ValueError(
            f"batch_size must be a multiple of the number of devices, {replicas}; "
            f"nearest: {' or '.join(near)}. Received: batch_size={batch_size}"
        )


def is_cpu_only() -> bool:
    """Whether computation is on the CPU, where it can be the same to the bit."""
    return not tf.config.list_physical_devices("GPU")
