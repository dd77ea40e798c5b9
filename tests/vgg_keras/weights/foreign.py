"""Writes weights files in the formats of other projects, without the code that reads them.

Weights are `{layer: (kernel, bias)}` with the layout and names of Keras, for the preprocessing
"caffe" of `keras.applications` (BGR minus the mean). If the nets of a format take another
preprocessing, the first layer must be for that one.
"""

from __future__ import annotations

import json
import struct

import h5py
import numpy as np

from vgg_keras.nets import NETS, weight_layers

# Of torchvision's vgg11 (A), 13 (B), 16 (D) and 19 (E), by number of conv. layers.
TORCH_INDICES = {
    8: (0, 3, 6, 8, 11, 13, 16, 18),
    10: (0, 2, 5, 7, 10, 12, 15, 17, 20, 22),
    13: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    16: (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}
TORCHVISION_FC = ("classifier.0", "classifier.3", "classifier.6")
TIMM_FC = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")


def kernel_shapes(net, *size):
    """Shapes of a net's kernels in Keras, by layer."""
    shapes = {}
    for layer in weight_layers(NETS[net], *size):
        side, inputs, outputs = layer.kernel, layer.inputs, layer.outputs
        is_conv = "conv" in layer.name
        shapes[layer.name] = (
            (side, side, inputs, outputs) if is_conv else (side**2 * inputs, outputs)
        )
    return shapes


def random_weights(shapes, seed=0):
    """He-initialised weights by layer, so that activations keep their scale."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        sd = np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        kernel = rng.standard_normal(shape, np.float32) * sd
        weights[name] = kernel, rng.standard_normal(shape[-1:], np.float32) * np.float32(0.1)
    return weights


def in_rgb(weights):
    """The same net for images in RGB minus the mean."""
    kernel, bias = weights["block1_conv1"]
    return weights | {"block1_conv1": (kernel[:, :, ::-1], bias)}


def in_torch(weights, mean, sd):
    """The same net for (RGB / 255 - mean) / sd, except on the border."""
    kernel, bias = in_rgb(weights)["block1_conv1"]
    shift = (np.array(mean) * 255 - (123.68, 116.779, 103.939)).astype(np.float32)
    scaled = kernel * (np.array(sd, np.float32) * 255)[:, None]
    return weights | {"block1_conv1": (scaled, bias + np.einsum("hwco,c->o", kernel, shift))}


def _window(weights):
    """Side and channels of the window of fc1."""
    channels = [bias.size for name, (_, bias) in weights.items() if "conv" in name][-1]
    return int(np.sqrt(weights["fc1"][0].shape[0] // channels)), channels


def channels_first(weights, name):
    """A kernel in the layout of Caffe and PyTorch: (O, I, H, W), or (O, C * H * W)."""
    kernel = weights[name][0]
    if kernel.ndim == 4:
        return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    if name != "fc1":
        return np.ascontiguousarray(kernel.T)
    side, channels = _window(weights)
    hwco = kernel.reshape(side, side, channels, -1)
    return np.stack([hwco[..., o].transpose(2, 0, 1).ravel() for o in range(hwco.shape[-1])])


def caffe_name(layer):
    fc = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
    return fc.get(layer) or f"conv{layer[5]}_{layer[-1]}"


def _varint(number):
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


def _field(number, payload):
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def caffemodel(path, weights, version=1):
    """Version 1 has V1LayerParameter and num, channels, height, width: files of the VGG team.

    Version 2 is the format since 2015.
    """
    with open(path, "wb") as file:
        file.write(_field(1, b"VGG_ILSVRC_layers"))
        for layer, (_, bias) in weights.items():
            kernel = channels_first(weights, layer)
            name = caffe_name(layer).encode()
            blobs = [_blob(array, version) for array in (kernel, bias)]
            if version == 1:  # bottom, name, type CONVOLUTION, blobs
                head = _field(2, b"data") + _field(4, name) + _varint(5 << 3) + _varint(4)
                file.write(_field(2, head + b"".join(_field(6, blob) for blob in blobs)))
                file.write(_field(2, _field(4, b"relu" + name) + _varint(5 << 3) + _varint(18)))
            else:
                head = _field(1, name) + _field(2, b"Convolution")
                file.write(_field(100, head + b"".join(_field(7, blob) for blob in blobs)))


def _blob(array, version):
    data = _field(5, array.astype("<f4").tobytes())
    if version == 2:
        return _field(7, _field(1, b"".join(map(_varint, array.shape)))) + data
    shape = (1,) * (4 - array.ndim) + array.shape
    return b"".join(_varint(i << 3) + _varint(side) for i, side in enumerate(shape, 1)) + data


def matconvnet(path, weights, *, old=False, compress=False, mean=(123.68, 116.779, 103.939)):
    """A file of import-caffe.py and vl_simplenn_tidy. `weights` take RGB. Old: before beta 17."""
    from scipy import io

    cells = []
    for layer, (kernel, bias) in weights.items():
        if layer == "fc1":
            side, channels = _window(weights)
            kernel = kernel.reshape(side, side, channels, -1)
        filters = kernel if kernel.ndim == 4 else kernel[None, None]
        cell = np.empty((1, 2), object)
        cell[0, 0], cell[0, 1] = np.asfortranarray(filters), bias.reshape(1, -1)
        cells.append({"name": caffe_name(layer), "type": "conv", "weights": cell, "pad": [1.0] * 4})
        cells.append({"name": "relu" + caffe_name(layer)[4:], "type": "relu"})
    image = np.tile(np.float32(mean), (8, 8, 1)) if old else np.float32(mean).reshape(1, 1, 3)
    normalization = {"averageImage": image, "imageSize": [224.0, 224.0, 3.0]}
    content = {"layers": np.array(cells, object).reshape(1, -1)}
    content |= (
        {"normalization": normalization} if old else {"meta": {"normalization": normalization}}
    )
    io.savemat(path, content, oned_as="row", do_compression=compress)


def torch_tensors(weights, fc_names=TORCHVISION_FC):
    """A state dict with the names of torchvision or timm. `weights` take preprocessing "torch"."""
    convs = [name for name in weights if "conv" in name]
    names = dict(zip(convs, (f"features.{i}" for i in TORCH_INDICES[len(convs)]), strict=True))
    names |= dict(zip(("fc1", "fc2", "predictions"), fc_names, strict=True))
    tensors = {}
    for layer, (_, bias) in weights.items():
        kernel = channels_first(weights, layer)
        if names[layer] == "pre_logits.fc1":
            side, channels = _window(weights)
            kernel = kernel.reshape(-1, channels, side, side)
        elif names[layer] == "pre_logits.fc2":
            kernel = kernel[:, :, None, None]
        tensors |= {f"{names[layer]}.weight": kernel, f"{names[layer]}.bias": bias}
    return tensors


def safetensors(path, tensors, metadata=None):
    """https://github.com/huggingface/safetensors#format: length, JSON header, bytes."""
    header, offset = ({"__metadata__": metadata} if metadata else {}), 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        letter = {"f": "F", "V": "BF"}.get(array.dtype.kind, "I")
        kind = f"{letter}{8 * array.itemsize}"
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def applications_h5(path, weights):
    """As vgg16_weights_tf_dim_ordering_tf_kernels.h5 of fchollet/deep-learning-models."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ("input_1", *weights, "flatten")]
        for name in ("input_1", "flatten"):
            file.create_group(name).attrs["weight_names"] = np.array([], "S1")
        for layer, arrays in weights.items():
            names = [f"{layer}_{part}_1:0" for part in "Wb"]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, arrays, strict=True):
                group[name] = array


def frossard_npz(path, weights):
    """As vgg16_weights.npz. `weights` take RGB."""
    np.savez(
        path,
        **{
            f"{caffe_name(layer)}_{part}": array
            for layer, arrays in weights.items()
            for part, array in zip("Wb", arrays, strict=True)
        },
    )
