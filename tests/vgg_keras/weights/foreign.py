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
VGGFACE_MEAN = (129.1863, 104.7624, 93.594)
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


def matconvnet(
    path,
    weights,
    *,
    old=False,
    compress=False,
    in_struct=False,
    column=False,
    mean=(123.68, 116.779, 103.939),
):
    """A file of import-caffe.py and vl_simplenn_tidy. `weights` take RGB.

    old: as before beta 17.
    in_struct: whether the net is a variable `net`, as `cnn_train` saves it.
    column: whether the mean is a column, as in nets of `cnn_imagenet`.
    """
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
    image = (
        np.tile(np.float32(mean), (8, 8, 1))
        if old
        else np.float32(mean).reshape((3, 1) if column else (1, 1, 3))
    )
    normalization = {"averageImage": image, "imageSize": [224.0, 224.0, 3.0]}
    content = {"layers": np.array(cells, object).reshape(1, -1)}
    content |= (
        {"normalization": normalization} if old else {"meta": {"normalization": normalization}}
    )
    content = {"net": content, "state": {"epoch": 20.0}} if in_struct else content
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


def chainer_npz(path, weights, in_conv=""):
    """A file of chainer.serializers.save_npz. ChainerCV's conv. layers are a `conv` in a block."""
    tensors = {}
    for layer, (_, bias) in weights.items():
        name = caffe_name(layer) + (in_conv if "conv" in layer else "")
        tensors |= {f"{name}/W": channels_first(weights, layer), f"{name}/b": bias}
    np.savez(path, **tensors)


def slim_tensors(weights, scope="vgg_16"):
    """The variables of a checkpoint of TF-Slim, whose FC layers are convolutions. They take RGB."""
    tensors = {}
    for layer, (kernel, bias) in weights.items():
        name = caffe_name(layer)
        if kernel.ndim == 2:
            side, channels = _window(weights) if layer == "fc1" else (1, kernel.shape[0])
            kernel = kernel.reshape(side, side, channels, -1)
        else:
            name = f"{name.split('_')[0]}/{name}"
        tensors |= {f"{scope}/{name}/weights": kernel, f"{scope}/{name}/biases": bias}
    return tensors


def _py2_array(shape, dtype, data):
    """An array as cPickle of Python 2 writes it in protocol 2. `data` is one pickled object."""
    sides = b"(" + b"".join(b"J" + struct.pack("<i", side) for side in shape) + b"t"
    dtype, order = dtype.lstrip("<|").encode(), dtype[:1].encode()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
        + sides
        + b"cnumpy\ndtype\n(U"
        + bytes([len(dtype)])
        + dtype
        + b"K\x00K\x01tR(K\x03U\x01"
        + order
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK"
        + (b"?" if dtype[:1] == b"O" else b"\x00")  # flags of a dtype of objects
        + b"tb\x89"
        + data
        + b"tb"
    )


def _py2_text(text):
    return b"T" + struct.pack("<i", len(text)) + text


def pickled_npy(path, layers):
    """A `.npy` file of `np.save` in Python 2. `layers` are pickled objects by name."""
    items = b"".join(_py2_text(name.encode()) + value for name, value in layers.items())
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    pickled = b"\x80\x02" + _py2_array((), "|O8", b"](}(" + items + b"ue") + b"."
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickled)


def py2_pair(*arrays):
    """Pickled arrays in a pickled list."""
    pickled = (_py2_array(a.shape, a.dtype.str, _py2_text(a.tobytes())) for a in arrays)
    return b"](" + b"".join(pickled) + b"e"


def machrisaa_npy(path, weights):
    """As vgg16.npy and vgg19.npy of github.com/machrisaa/tensorflow-vgg."""
    pickled_npy(path, {caffe_name(layer): py2_pair(*pair) for layer, pair in weights.items()})


def gluon_tensors(weights):
    """Names of MXNet's Gluon, which the vgg16-7.onnx and vgg19-7.onnx of the ONNX zoo have."""
    convs = [name for name in weights if "conv" in name]
    names = {name: f"vgg0_conv{i}" for i, name in enumerate(convs)}
    names |= {name: f"vgg0_dense{i}" for i, name in enumerate(("fc1", "fc2", "predictions"))}
    tensors = {}
    for layer, (_, bias) in weights.items():
        kernel = channels_first(weights, layer)
        tensors |= {f"{names[layer]}_weight": kernel, f"{names[layer]}_bias": bias}
    return tensors


def caffe2_tensors(weights):
    """Names of vgg19-caffe2-9.onnx of the ONNX zoo."""
    tensors = {}
    for layer, (_, bias) in weights.items():
        name, kernel = caffe_name(layer), channels_first(weights, layer)
        tensors |= {f"{name}_w_0": kernel, f"{name}_b_0": bias}
    return tensors


def onnx_model(path, tensors, *, transposed=True, before=(), external=None):
    """A model of conv. and FC layers with these kernels and biases.

    transposed: whether FC layers are `Gemm` with transB, as those of PyTorch and MXNet are.
    before: nodes in front of the first layer, from `image` to `data`.
    external: name of the file beside it that has the data.
    """
    import onnx
    from onnx import helper, numpy_helper

    nodes, image = list(before), "data" if before else "image"
    kernels = {k: t for k, t in tensors.items() if t.ndim > 1}
    biases = [k for k, t in tensors.items() if t.ndim == 1]
    for i, ((name, kernel), bias) in enumerate(zip(kernels.items(), biases, strict=True)):
        kind = {"Conv": {}} if kernel.ndim == 4 else {"Gemm": {"transB": 1} if transposed else {}}
        for operation, attributes in kind.items():
            inputs = [image, name, bias]
            nodes.append(helper.make_node(operation, inputs, [f"x{i}"], **attributes))
        image = f"x{i}"
    stored = [
        numpy_helper.from_array(np.ascontiguousarray(t if transposed or t.ndim != 2 else t.T), name)
        for name, t in tensors.items()
    ]
    stored.append(numpy_helper.from_array(np.array([0, -1]), "shape"))
    values = [helper.make_tensor_value_info(n, 1, None) for n in ("image", image)]
    graph = helper.make_graph(nodes, "vgg", values[:1], values[1:], stored)
    model = helper.make_model(graph)
    onnx.save(
        model,
        path,
        save_as_external_data=external is not None,
        location=external,
        size_threshold=0,
    )


def in_mean(weights, mean):
    """The same net for BGR less another mean, given as RGB."""
    kernel, bias = weights["block1_conv1"]
    shift = np.array(mean) - (123.68, 116.779, 103.939)
    shifted = bias + np.einsum("hwco,c->o", kernel, shift[::-1]).astype(np.float32)
    return weights | {"block1_conv1": (kernel, shifted)}


def vggface_h5(path, weights):
    """As rcmalli_vggface_tf_vgg16.h5 of github.com/rcmalli/keras-vggface."""
    weights = {caffe_name(layer): pair for layer, pair in in_mean(weights, VGGFACE_MEAN).items()}
    applications_h5(path, weights)


def dagnn(path, weights, listed=True):
    """A DagNN as `saveobj` gives it. `weights` take RGB.

    listed: whether layers list their parameters. Otherwise these have the names of `fromSimpleNN`.
    """
    from scipy import io

    kinds = {"params": ("name", "value"), "layers": ("name", "type", "params")}
    found = {kind: [] for kind in kinds}
    for layer, (kernel, bias) in weights.items():
        if layer == "fc1":
            side, channels = _window(weights)
            kernel = kernel.reshape(side, side, channels, -1)
        filters = kernel if kernel.ndim == 4 else kernel[None, None]
        name = caffe_name(layer)
        names = [f"{name}_filter", f"{name}_bias"] if listed else [f"{name}f", f"{name}b"]
        found["params"] += zip(names, (filters, bias.reshape(-1, 1)), strict=True)
        found["layers"].append(
            (name, "dagnn.Conv", np.array(names * listed, object).reshape(1, -1))
        )
        found["layers"].append((f"relu_{name}", "dagnn.ReLU", np.empty((1, 0), object)))
    content = {"meta": {"normalization": {"averageImage": [[123.68], [116.779], [103.939]]}}}
    for kind, fields in kinds.items():
        content[kind] = np.empty((1, len(found[kind])), [(field, object) for field in fields])
        for i, values in enumerate(found[kind]):
            content[kind][0, i] = values
    io.savemat(path, content)
