"""Writes checkpoints of TensorFlow: with TensorFlow, or by hand where they are to lie."""

from __future__ import annotations

import struct

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

from tests.vgg_keras.weights.foreign import _varint, caffe_name


def slim(path, weights, *, version=2, mean=(123.68, 116.78, 103.94), scope="vgg_16"):
    """As http://download.tensorflow.org/models/vgg_16_2016_08_28.tar.gz, which has version 1.

    Its names are those of research/slim/nets/vgg.py of tensorflow/models, with `mean_rgb` and
    `global_step`. `weights` take RGB.
    """
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        for layer, (kernel, bias) in weights.items():
            name = caffe_name(layer)
            name = f"{name.split('_')[0]}/{name}" if "_" in name else name
            if layer == "fc1":
                side = int((kernel.shape[0] // weights["block5_conv2"][1].size) ** 0.5)
                kernel = kernel.reshape(side, side, -1, kernel.shape[-1])
            elif kernel.ndim == 2:
                kernel = kernel[None, None]
            v1.Variable(kernel, name=f"{scope}/{name}/weights")
            v1.Variable(kernel, name=f"{scope}/{name}/weights/Momentum")
            v1.Variable(bias, name=f"{scope}/{name}/biases")
        if mean is not None:
            v1.Variable(np.float32(mean), name=f"{scope}/mean_rgb")
        v1.Variable(np.int64(0), name="global_step")
        session.run(v1.global_variables_initializer())
        v1.train.Saver(write_version=version).save(session, str(path), write_meta_graph=False)


def tf_keras(path, weights, *, nested=False, names=True, prefix="layer_with_weights-"):
    """As `save_weights` of tf.keras without an ending: objects by order, with their names."""

    def node(**children):
        return tf.train.Checkpoint(**children)

    layers = {
        f"{prefix}{k}": node(
            kernel=tf.Variable(kernel, name=f"{layer}/kernel" if names else None),
            bias=tf.Variable(bias, name=f"{layer}/bias" if names else None),
        )
        for k, (layer, (kernel, bias)) in enumerate(weights.items())
    }
    if nested:
        head = tf.Variable(np.ones((7, 2), np.float32), name="own/kernel")
        layers = {f"{prefix}0": node(**layers), f"{prefix}1": node(kernel=head)}
    node(**layers, optimizer=node(m=tf.Variable(np.ones(3, np.float32)))).write(str(path))


def entry(shape, dtype=1, offset=0, size=None, shard=0, slices=False):
    """Declares a tensor."""
    size = 4 * int(np.prod(shape)) if size is None else size
    found = tensor_bundle_pb2.BundleEntryProto(
        dtype=dtype, offset=offset, size=size, shard_id=shard
    )
    for side in shape:
        found.shape.dim.add(size=side)
    if slices:
        found.slices.add().extent.add(start=-7, length=2**60)
    return found


def lying(prefix, entries, shards=1):
    """A checkpoint that declares these entries, and has some KiB of values."""
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=shards)
    items = [(b"", header)] + sorted((name.encode(), entry) for name, entry in entries.items())
    table(
        prefix.with_name(f"{prefix.name}.index"),
        [(key, value.SerializeToString()) for key, value in items],
    )
    values = bytes(4096) + b"\xff" * 8 + b"\x0f" + bytes(100)  # a length of 2**60 behind zeros
    prefix.with_name(f"{prefix.name}.data-00000-of-{shards:05d}").write_bytes(values)


def table(path, *blocks):
    """Writes blocks of keys and values, or of bytes.

    https://github.com/google/leveldb/blob/main/doc/table_format.md, without compression.
    """
    data = bytearray()

    def add(items):
        if not isinstance(items, bytes):
            items = b"".join(
                b"\0" + _varint(len(key)) + _varint(len(value)) + key + value
                for key, value in items
            )
        block = items + struct.pack("<II", 0, 1)
        handle = _varint(len(data)) + _varint(len(block))
        data.extend(block + b"\0" + struct.pack("<I", _masked_crc(block + b"\0")))
        return handle

    index = [(b"\xff", add(block)) for block in blocks]
    footer = add([]) + add(index)
    path.write_bytes(data + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"))


def _masked_crc(data):
    """CRC-32C, rotated and shifted as LevelDB stores it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
