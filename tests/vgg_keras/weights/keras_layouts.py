"""Writes the layouts that Keras, Keras Hub and Caffe have given to HDF5 files since 2015."""

from __future__ import annotations

import json
import zipfile

import h5py
import numpy as np

from tests.vgg_keras.weights.foreign import caffe_name, channels_first


def keras_3(file, weights, *, path="layers", is_named=True, dtype=None):
    """Adds the layers of a model to a file of Keras 3, in the group `path`.

    Files have no names before Keras 3.6, nor in tf_keras:
    https://github.com/keras-team/keras/blob/v3.5.0/keras/src/saving/saving_lib.py. bfloat16 is
    stored as two bytes of no type with an attribute.
    """
    counts = {}
    for name, arrays in weights.items():
        kind = "conv2d" if arrays[0].ndim == 4 else "dense"
        counts[kind] = counts.get(kind, -1) + 1
        number = f"_{counts[kind]}" if counts[kind] else ""
        group = file.create_group(f"{path}/{kind}{number}/vars")
        if is_named:
            group.attrs["name"] = name
        for i, array in enumerate(arrays):
            group[str(i)] = array if dtype is None else array.astype(dtype)
            if dtype is not None:
                group[str(i)].attrs["dtype"] = np.dtype(dtype).name


def archive(path, h5, config="{}"):
    """A `.keras` file of a file of weights and a configuration."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(h5, "model.weights.h5")
        file.writestr("config.json", config)


def sequential(*layers):
    """The configuration of a model of layers, each a class and its arguments."""
    return json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}})


def layer(kind, **config):
    return {"class_name": kind, "config": {"name": kind.lower(), **config}}


def theano(weights):
    """Kernels of Keras 1 with Theano: `(outputs, channels, h, w)`, reversed; C, H, W in `fc1`.

    https://github.com/keras-team/keras/blob/1.2.2/keras/utils/np_utils.py (convert_kernel)
    """
    turned = {}
    for name, (kernel, bias) in weights.items():
        if kernel.ndim == 4:
            kernel = channels_first(weights, name)[:, :, ::-1, ::-1]
        elif name == "fc1":
            kernel = channels_first(weights, name).T
        turned[name] = np.ascontiguousarray(kernel), bias
    return turned


def keras_1(path, weights):
    """Keras before 0.3.3, as `vgg16_weights.h5` of 2016: `layer_1/param_0`, poolings between."""
    with h5py.File(path, "w") as file:
        file.attrs["nb_layers"] = 2 * len(weights)
        for k, arrays in enumerate(weights.values()):
            file.create_group(f"layer_{2 * k}").attrs["nb_params"] = 0  # padding
            group = file.create_group(f"layer_{2 * k + 1}")
            group.attrs["nb_params"] = 2
            for i, array in enumerate(arrays):
                group[f"param_{i}"] = array


def keras_hub(folder, weights, scale, offset):
    """A preset: https://github.com/keras-team/keras-hub/blob/master/keras_hub/src/utils/preset_utils.py"""
    folder.mkdir()
    converter = {"class_name": "VGGImageConverter", "config": {"scale": scale, "offset": offset}}
    task = {"config": {"preprocessor": {"config": {"image_converter": converter}}}}
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "preprocessor.json").write_text(json.dumps(task["config"]["preprocessor"]))
    with h5py.File(folder / "model.weights.h5", "w") as file:
        keras_3(file, {k: v for k, v in weights.items() if "conv" in k})
        file.create_group("vars").attrs["name"] = "vgg_backbone"
    with h5py.File(folder / "task.weights.h5", "w") as file:
        head = {k: v for k, v in weights.items() if "conv" not in k}
        head["fc1"] = head["fc1"][0].reshape(2, 2, -1, len(head["fc1"][1])), head["fc1"][1]
        head["fc2"] = head["fc2"][0][None, None], head["fc2"][1]
        keras_3(file, head, path="layers/sequential/layers")
        file.create_group("vars").attrs["name"] = "vgg_image_classifier"
        file.create_group("preprocessor/image_converter/vars")


def caffe(path, weights):
    """https://github.com/BVLC/caffe/blob/1.0/src/caffe/net.cpp (Net::ToHDF5)"""
    with h5py.File(path, "w") as file:
        file.create_group("data/relu1_1")
        for name, (_, bias) in weights.items():
            file[f"data/{caffe_name(name)}/0"] = channels_first(weights, name)
            file[f"data/{caffe_name(name)}/1"] = bias
