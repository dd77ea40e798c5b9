"""Devices for training and tests: GPUs, virtual CPU devices, and several processes (§3.3).

TensorFlow uses the devices of one machine, with `MirroredStrategy`. The JAX backend uses one or
several machines, with `keras.distribution`. Both train the same net on the same batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import keras
import tensorflow as tf

from vgg_keras.errors import ArgumentError
from vgg_keras.forward import check_backend
from vgg_keras.pipelines.splits import WHOLE_BATCH, Shard

FROM_ENVIRONMENT = "auto"  # value of `Cluster.coordinator`


@dataclass(frozen=True)
class Cluster:
    """Processes that train one net together. Each process runs the same command.

    Attributes:
        coordinator: HOST:PORT of process 0. The port must be free, and all processes must reach it.
            With "auto", JAX reads all three values from the environment of SLURM, a TPU pod or
            Kubernetes.
        processes: number of processes.
        process_id: index of this process, from 0.

    Raises:
        ArgumentError: a value is missing or not allowed.

    Example:
        >>> cluster = Cluster("10.0.0.1:9876", processes=2, process_id=0)
    """

    coordinator: str
    processes: int | None = None
    process_id: int | None = None

    def __post_init__(self) -> None:
        if self.coordinator == FROM_ENVIRONMENT:
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise ArgumentError(
                f"coordinator must be HOST:PORT of process 0, or {FROM_ENVIRONMENT}. "
                f"Received: {self.coordinator!r}",
                "coordinator",
            )
        if self.processes is None or not 0 <= (self.process_id or 0) < self.processes:
            raise ArgumentError(
                "processes must be 1 or more, and process_id from 0 to processes - 1. "
                f"Received: processes={self.processes}, process_id={self.process_id}",
                "processes",
            )
        if self.process_id is None:
            raise ArgumentError(
                "process_id must be given with processes. Received: process_id=None", "process_id"
            )


@dataclass(frozen=True)
class Devices:
    """The devices that train or test a net.

    Attributes:
        scope: function that returns the context in which the variables of the net are created.
        count: number of devices that share a batch, over all processes.
        kind: kind of the devices: "CPU", "GPU" or "TPU".
        shard: rows of every batch that this process reads.
    """

    scope: Callable[[], AbstractContextManager]
    count: int
    kind: str
    shard: Shard = WHOLE_BATCH

    @property
    def is_writer(self) -> bool:
        """Whether this process writes to the run folder. Exactly one process does; all read it."""
        return self.shard.index == 0

    @contextlib.contextmanager
    def writer_first(self, what: str) -> Iterator[None]:
        """Runs the block in the writing process first, and then in the other processes.

        Args:
            what: name of the block, the same in all processes and different from other blocks.
        """
        if not self.is_writer:
            self.meet(what)
        yield
        if self.is_writer:
            self.meet(what)

    def meet(self, what: str) -> None:
        """Waits until all processes have come here.

        Args:
            what: name of the place, the same in all processes and different from others.
        """
        if self.shard.count > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(what)


def find_devices(devices: int | None = None, cluster: Cluster | None = None) -> Devices:
    """Returns the devices to train or test on, for the backend of Keras (`KERAS_BACKEND`).

    Args:
        devices: number of GPUs to use in each process; without GPUs, number of virtual devices to
            split the CPU into. By default all GPUs, or the whole CPU.
        cluster: the processes that train together, for the JAX backend.

    Raises:
        ArgumentError: there are fewer devices, the backend has started with another number of
            virtual devices, or the backend does not support the arguments.

    Example:
        >>> with find_devices(devices=2).scope():
        ...     model = vgg("A")
    """
    if check_backend() == "jax":
        return _jax_devices(devices, cluster)
    if cluster:
        raise ArgumentError(
            "Several processes need the backend JAX: set KERAS_BACKEND=jax for each of them. On "
            "TensorFlow, one process uses all GPUs of its machine. "
            "Received: KERAS_BACKEND=tensorflow",
            "cluster",
        )
    strategy = make_strategy(devices)
    return Devices(strategy.scope, strategy.num_replicas_in_sync, _kind())


def make_strategy(devices: int | None = None) -> tf.distribute.Strategy:
    """Returns a `MirroredStrategy` over the GPUs of this machine, or over virtual CPU devices.

    For a single device, TensorFlow's default strategy is returned, which computes the same.

    Args:
        devices: number of GPUs to use; without GPUs, number of virtual devices to split the CPU
            into. By default all GPUs, or the whole CPU.

    Raises:
        ArgumentError: there are fewer GPUs, or TensorFlow has started with another number of
            virtual devices.

    Example:
        >>> with make_strategy().scope():
        ...     model = vgg("A")
    """
    kind = _kind()
    if kind == "CPU" and devices and devices > 1:
        _split_cpu(devices)
    available = [d.name for d in tf.config.list_logical_devices(kind)]
    wanted = (len(available) if kind == "GPU" else 1) if devices is None else devices
    _check_there_are(wanted, len(available), kind)
    if wanted == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(available[:wanted])


def _kind() -> str:
    """Kind of the devices that TensorFlow uses."""
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def _split_cpu(devices: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * devices
        )
    except RuntimeError:
        existing = len(tf.config.list_logical_devices("CPU"))
        if existing < devices:
            raise ArgumentError(
                f"devices must be at most {existing}, because TensorFlow has already started with "
                f"that number of CPU devices. Received: devices={devices}",
                "devices",
            ) from None


def _jax_devices(devices: int | None, cluster: Cluster | None) -> Devices:
    import jax

    tf.config.set_visible_devices(
        [], "GPU"
    )  # tf.data does not need GPUs, and would reserve their memory
    if devices is not None:
        # JAX applies this setting only if there are no GPUs, and only before it has started.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", devices)
    if cluster and cluster.coordinator == FROM_ENVIRONMENT:
        keras.distribution.initialize()
    elif cluster:
        keras.distribution.initialize(cluster.coordinator, cluster.processes, cluster.process_id)
    here, processes = jax.local_device_count(), jax.process_count()
    wanted, kind = here if devices is None else devices, jax.default_backend().upper()
    _check_there_are(wanted, here, kind)
    if processes == 1 and wanted == 1:
        return Devices(contextlib.nullcontext, 1, kind)
    if wanted < here and processes > 1:
        raise ArgumentError(
            f"devices must be all {here} devices of each process if there are several processes. "
            f"Received: devices={wanted}",
            "devices",
        )
    names = keras.distribution.list_devices()
    distribution = keras.distribution.DataParallel(
        devices=names if processes > 1 else names[:wanted],
        auto_shard_dataset=False,  # each process already reads only its part of the stream
    )
    shard = Shard(jax.process_index(), processes)
    return Devices(distribution.scope, wanted * processes, kind, shard)


def _check_there_are(wanted: int, available: int, kind: str) -> None:
    if not 1 <= wanted <= available:
        raise ArgumentError(
            f"devices must be from 1 to {available}, the number of {kind} devices. "
            f"Received: devices={wanted}",
            "devices",
        )


def check_divisible(batch_size: int, replicas: int) -> None:
    """Raises ArgumentError if the replicas cannot share a batch evenly.

    The message names the nearest sizes that are allowed.
    """
    if batch_size % replicas:
        below = batch_size // replicas * replicas
        near = [str(size) for size in (below, below + replicas) if size]
        raise ArgumentError(
            f"batch_size must be a multiple of the number of devices, {replicas}; "
            f"nearest: {' or '.join(near)}. Received: batch_size={batch_size}",
            "batch_size",
        )


def is_cpu_only() -> bool:
    """Returns whether there are only CPUs, whose results can be bit-identical between runs."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return not tf.config.list_physical_devices("GPU")
