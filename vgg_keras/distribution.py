"""Devices: all of a machine's GPUs by default, the CPU in parts for trying it, and several
processes on several machines (§3.3).

TensorFlow carries one machine, by `MirroredStrategy`; the JAX backend one machine or many, by
`keras.distribution`. Both train the same net on the same batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import keras
import tensorflow as tf

from vgg_keras.pipelines.splits import WHOLE_BATCH, Shard

FROM_ENVIRONMENT = "auto"


@dataclass(frozen=True)
class Cluster:
    """Processes that train one net together; each of them runs the same command.

    Attributes:
        coordinator: HOST:PORT of process 0, free there and within reach of all; or "auto": all
            three from the environment of SLURM, a TPU pod or Kubernetes, as JAX reads it.
        processes: how many there are.
        process_id: which of them this one is, from 0.
    """

    coordinator: str
    processes: int | None = None
    process_id: int | None = None

    def __post_init__(self):
        if self.coordinator == FROM_ENVIRONMENT:
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(
                f"coordinator must be HOST:PORT of process 0, or {FROM_ENVIRONMENT}. "
                f"Received: {self.coordinator!r}"
            )
        if self.processes is None or not 0 <= (self.process_id or 0) < self.processes:
            raise ValueError(
                "processes must be 1 or more, and process_id from 0 to processes - 1. "
                f"Received: processes={self.processes}, process_id={self.process_id}"
            )
        if self.process_id is None:
            raise ValueError("process_id must be given beside processes. Received: none")


@dataclass(frozen=True)
class Devices:
    """What a net is trained on.

    Attributes:
        scope: context in which its variables are made.
        count: devices that share a batch, over all processes.
        shard: rows of every batch that this process reads.
    """

    scope: Callable[[], AbstractContextManager]
    count: int
    shard: Shard = WHOLE_BATCH

    @property
    def is_writer(self) -> bool:
        """Whether this process writes to the run folder: one does, all read."""
        return self.shard.index == 0

    @contextlib.contextmanager
    def writer_first(self, what: str) -> Iterator[None]:
        """Lets the writing process through the block, then the others, who find its work done."""
        if not self.is_writer:
            self._meet(what)
        yield
        if self.is_writer:
            self._meet(what)

    def _meet(self, what: str) -> None:
        if self.shard.count > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(what)


def find_devices(devices: int | None = None, cluster: Cluster | None = None) -> Devices:
    """The devices to train on, of the backend that Keras runs on (`KERAS_BACKEND`).

    Args:
        devices: number of GPUs to use, where there is none, of parts to split the CPU into; in
            each process. By default all GPUs, or the CPU whole.
        cluster: the processes, where there are several: a matter of the JAX backend.

    Raises:
        ValueError: there are fewer devices than that, the backend has started with another number
            of virtual devices, or it cannot do what is asked.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _jax_devices(devices, cluster)
    if backend != "tensorflow":
        raise ValueError(f"Nets train on TensorFlow or JAX. Received: KERAS_BACKEND={backend}")
    if cluster:
        raise ValueError(
            "Several processes train under Keras's JAX backend: set KERAS_BACKEND=jax for each of "
            "them. On TensorFlow, one process uses all GPUs of its machine. "
            "Received: KERAS_BACKEND=tensorflow"
        )
    strategy = make_strategy(devices)
    return Devices(strategy.scope, strategy.num_replicas_in_sync)


def make_strategy(devices: int | None = None) -> tf.distribute.Strategy:
    """`MirroredStrategy` over the machine's GPUs, or over `devices` virtual CPU devices.

    With a single device it is TensorFlow's default strategy, which computes the same.

    Args:
        devices: number of GPUs to use; where there is none, of parts to split the CPU into.

    Raises:
        ValueError: there are fewer GPUs than that, or TensorFlow has started with another number
            of virtual devices.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "This runs on TensorFlow; a run that was trained under JAX is the same to it. Leave "
            f"KERAS_BACKEND unset. Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU" and devices and devices > 1:
        _split_cpu(devices)
    available = [d.name for d in tf.config.list_logical_devices(kind)]
    wanted = (len(available) if kind == "GPU" else 1) if devices is None else devices
    _check_there_are(wanted, len(available), kind)
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


def _jax_devices(devices: int | None, cluster: Cluster | None) -> Devices:
    import jax

    tf.config.set_visible_devices([], "GPU")  # tf.data needs none, and would take their memory
    if devices is not None:
        # Heeded where there are no GPUs, and only before JAX has started.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", devices)
    if cluster and cluster.coordinator == FROM_ENVIRONMENT:
        keras.distribution.initialize()
    elif cluster:
        keras.distribution.initialize(cluster.coordinator, cluster.processes, cluster.process_id)
    here, processes = jax.local_device_count(), jax.process_count()
    wanted = here if devices is None else devices
    _check_there_are(wanted, here, jax.default_backend().upper())
    if processes == 1 and wanted == 1:
        return Devices(contextlib.nullcontext, 1)
    if wanted < here and processes > 1:
        raise ValueError(
            f"Several processes use all devices of each. Received: devices={wanted} of {here}"
        )
    names = keras.distribution.list_devices()
    distribution = keras.distribution.DataParallel(
        devices=names if processes > 1 else names[:wanted],
        auto_shard_dataset=False,  # the streams are read in parts as it is
    )
    shard = Shard(jax.process_index(), processes)
    return Devices(distribution.scope, wanted * processes, shard)


def _check_there_are(wanted: int, available: int, kind: str) -> None:
    if not 1 <= wanted <= available:
        raise ValueError(f"There are {available} {kind} devices. Received: devices={wanted}")


def on_all_devices(
    model: keras.Model, function: Callable[..., tf.Tensor], *batch: tf.Tensor
) -> tf.Tensor:
    """`function(*batch)`, its rows shared among the devices that the model was made for.

    For use inside a `tf.function`. A model that was made in the scope of `make_strategy` has its
    variables on all devices; one that was not, on one, and then nothing is shared.

    Args:
        model: what the function runs.
        function: from tensors `(B, ...)` to `(B, ...)`, row by row; B can be 0.
        batch: tensors `(B, ...)`.
    """
    strategy = model.distribute_strategy
    devices = strategy.num_replicas_in_sync
    if devices == 1:
        return function(*batch)

    def of_one_device(*batch):
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = tf.shape(batch[0])[0]
        with tf.device("CPU:0"):  # where the batch is: only its own rows go to a device
            first, last = rows * index // devices, rows * (index + 1) // devices
            mine = [tensor[first:last] for tensor in batch]
        return function(*mine)

    found = strategy.run(of_one_device, batch)
    return tf.concat(strategy.experimental_local_results(found), 0)


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
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return not tf.config.list_physical_devices("GPU")
