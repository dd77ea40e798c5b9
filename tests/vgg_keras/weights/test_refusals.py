"""Damaged, wrong and malicious files are refused by name. No code runs and no memory is filled."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vgg_keras.weights import foreign
from tests.vgg_keras.weights.test_formats import FOREIGN
from vgg_keras import vgg, weights
from vgg_keras.errors import MissingPackageError

SIZE = (7, 64, 1 / 4)  # 9 MB of net A
BOMB = 160 * 2**20  # size in memory of a small file


def good():
    return foreign.random_weights(foreign.kernel_shapes("A", *SIZE))


BYTES = sum(a.nbytes for pair in good().values() for a in pair)


def named_arrays():
    return {
        f"{name}/{part}": array
        for name, pair in good().items()
        for part, array in zip(("kernel", "bias"), pair, strict=True)
    }


def npz(path, changes=(), remove=()):
    np.savez(path, **{k: v for k, v in named_arrays().items() if k not in remove} | dict(changes))


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.mark = str(path.parent / "it ran")

    def __reduce__(self):
        return open, (self.mark, "w")


def cut(ending, share):
    def make(path):
        FOREIGN[ending](path, good())
        os.truncate(path, int(share * path.stat().st_size))

    return make


def npz_header(path, shape, dtype="<f4", data=b""):
    """A good .npz, except that the entry of `fc1/kernel` declares a shape and has other data."""
    npz(path, remove=["fc1/kernel"])
    header = str({"descr": dtype, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        entry = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data
        archive.writestr("fc1/kernel.npy", entry)


def keras_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(BOMB))


def mat_bomb(path):
    import zlib

    FOREIGN["tidy.mat"](path, good())
    packed = zlib.compress(struct.pack("<II", 14, BOMB) + bytes(BOMB))
    with open(path, "ab") as file:
        file.write(struct.pack("<II", 15, len(packed)) + packed)


def h5_dataset(**options):
    """A good .h5 except for `fc1/kernel`."""

    def make(path):
        foreign.applications_h5(path, good())
        with h5py.File(path, "a") as file:
            del file["fc1/fc1_W_1:0"]
            file["fc1"].create_dataset("fc1_W_1:0", **options)

    return make


def h5_link(path):
    foreign.applications_h5(path, good())
    other = path.with_name("other.h5")
    foreign.applications_h5(other, good())
    with h5py.File(path, "a") as file:
        del file["fc1/fc1_W_1:0"]
        file["fc1/fc1_W_1:0"] = h5py.ExternalLink(str(other), "/fc1/fc1_W_1:0")


def h5_group_link(path):
    foreign.applications_h5(path, good())
    other = path.with_name("other.h5")
    foreign.applications_h5(other, good())
    with h5py.File(path, "a") as file:
        del file["fc1"]
        file["fc1"] = h5py.ExternalLink(str(other), "/fc1")


def npz_long_header(path):
    npz(path, remove=["fc1/kernel"])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        length = struct.pack("<I", BOMB)
        archive.writestr("fc1/kernel.npy", b"\x93NUMPY\x02\x00" + length + bytes(BOMB))


def npz_bzip2(path):
    npz(path, remove=["fc1/kernel"])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("fc1/kernel.npy", bytes(1000))


def mat_bombs(path):
    """Each variable is below the limit, and all together are above it."""
    import zlib

    size = 20 * 2**20
    FOREIGN["tidy.mat"](path, good())
    packed = zlib.compress(
        struct.pack("<II", 14, size) + struct.pack("<8I", 6, 8, 1, 0, 5, 0, 1, 0) + bytes(size - 32)
    )
    with open(path, "ab") as file:
        for _ in range(15):
            file.write(struct.pack("<II", 15, len(packed)) + packed)


def caffe_layer(*blobs):
    def make(path):
        layer = foreign._field(4, b"conv1_1") + b"".join(foreign._field(6, b) for b in blobs)
        path.write_bytes(foreign._field(2, layer))

    return make


def h5_external(path):
    """The values of a tensor are in another file of this machine, such as /etc/passwd."""
    other = path.with_name("secret")
    other.write_bytes(bytes(4 * 7))
    h5_dataset(shape=(7,), dtype="f4", external=[(str(other), 0, 28)])(path)


def h5_no_names(path):
    foreign.applications_h5(path, good())
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]


def caffe_claims(path):
    """The first layer claims a terabyte."""
    path.write_bytes(b"\x12" + foreign._varint(2**40) + b"\x22\x07conv1_1" + bytes(100))


def caffe_hole(path):
    """A layer of 3 GB that takes no space on disk."""
    path.write_bytes(b"\x12" + foreign._varint(3 * 2**30))
    os.truncate(path, 3 * 2**30 + 10)


def caffe_shape(path):
    kernel = foreign._field(5, bytes(4 * 27)) + b"\x08\xff\xff\xff\x7f" * 1
    layer = foreign._field(4, b"conv1_1") + foreign._field(6, kernel)
    path.write_bytes(foreign._field(2, layer))


def safetensors_header(path):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")


def safetensors_overlap(path):
    tensors = foreign.torch_tensors(good())
    foreign.safetensors(path, tensors)
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["classifier.0.bias"]["data_offsets"] = header["classifier.3.bias"]["data_offsets"]
    text = json.dumps(header).encode().ljust(size)
    path.write_bytes(struct.pack("<Q", size) + text + data[8 + size :])


def torch_like(changes):
    def make(path):
        foreign.safetensors(path, foreign.torch_tensors(good()) | changes)

    return make


def safetensors_twice(path):
    """As saved from a net and its DataParallel wrapper."""
    torch_like({"module.classifier.0.bias": np.zeros(1024, "f4")})(path)


def npz_twice(name):
    """A good .npz with one more entry, with other values."""

    def make(path):
        npz(path)
        array = io.BytesIO()
        np.save(array, np.zeros(1024, "f4"))
        add_entry(path, name, array.getvalue())

    return make


def add_entry(path, name, data):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.filterwarnings("ignore", "Duplicate name")
        archive.writestr(name, data)


def keras_twice(path):
    FOREIGN["app.h5"](path.with_name("app.h5"), good())
    for _ in range(2):
        add_entry(path, "model.weights.h5", path.with_name("app.h5").read_bytes())


def h5_layers_twice(path):
    """Two layers of Keras 3 of the same name, as after a merge of two files."""
    npz(path.with_name("good.npz"))
    weights.convert(path.with_name("good.npz"), path.with_name("good.weights.h5"))
    shutil.move(path.with_name("good.weights.h5"), path)
    with h5py.File(path, "a") as file:
        file.copy("layers/conv2d", "layers/conv2d_100")


def h5_listed_twice(path):
    foreign.applications_h5(path, good())
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = np.append(file.attrs["layer_names"].astype("S"), b"fc2")


def caffe_twice(path):
    FOREIGN["v1.caffemodel"](path, good())
    path.write_bytes(path.read_bytes() * 2)


def mat_variables_twice(path):
    FOREIGN["tidy.mat"](path, good())
    data = path.read_bytes()
    path.write_bytes(data + data[128:])


def mat_layers(**fields):
    """A .mat file with one layer more than a good one."""

    def make(path):
        from scipy.io import loadmat, savemat

        FOREIGN["tidy.mat"](path, good())
        content = loadmat(path)
        content["layers"] = np.append(content["layers"], [[None]], 1)
        content["layers"][0, -1] = fields
        savemat(path, {key: value for key, value in content.items() if key[0] != "_"})

    return make


def mat_7_3(path):
    """An HDF5 file after a block with the header of a MAT-file."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["layers"] = np.ones(3)
    data = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM"
    path.write_bytes(data + path.read_bytes()[128:])


def mat_text(path):
    from scipy.io import savemat

    savemat(path, {"layers": "none", "meta": {"a": 1.0}})


def pickled(path):
    path.write_bytes(pickle.dumps({"conv1_1": Code(path)}))


def pickled_npy(path):
    np.save(path, np.array({"conv1_1": Code(path)}, object), allow_pickle=True)


KERNEL = np.ones((3, 3, 3, 16), np.float32)
REFUSED = {
    # name of the file: function that makes it, and text of the message
    "cut.npz": (cut("keras.npz", 0.5), "not a zip file"),
    "cut.h5": (cut("app.h5", 0.5), "truncated"),
    "cut in a layer.caffemodel": (
        cut("v1.caffemodel", 0.5),
        "after layer 'reluconv5_2': it is cut off or damaged",
    ),
    "cut at the end.caffemodel": (cut("v2.caffemodel", 1 - 1e-6), "cut off or damaged"),
    "cut.mat": (cut("tidy.mat", 0.5), "cut off"),
    "version 7.3.mat": (
        mat_7_3,
        "is a MAT-file of version 7.3. Load it in MATLAB and save it with",
    ),
    "cut packed.mat": (cut("packed.mat", 0.9), "cut off"),
    "cut.safetensors": (cut("tv.safetensors", 0.9), "incomplete"),
    "cut.npy": (cut("keras.npy", 0.9), "mmap length"),
    "empty.h5": (Path.touch, "is an empty file"),
    "huge length.safetensors": (safetensors_header, "header"),
    "overlap.safetensors": (safetensors_overlap, "invalid offset"),
    "claims a terabyte.caffemodel": (caffe_claims, "claims 1099511627776 bytes"),
    "layer of 3 GB.caffemodel": (caffe_hole, "more than any layer of these nets"),
    "shape without data.caffemodel": (caffe_shape, "conv1_1/0 declares shape (268435455"),
    "huge shape.npz": (lambda p: npz_header(p, (10**6, 10**6)), "bytes of tensors"),
    "bomb.npz": (
        lambda p: npz_header(p, (8192, BOMB // 2**15), data=bytes(BOMB)),
        "made to fill memory",
    ),
    "small bomb.npz": (
        lambda p: npz_header(p, (8191, 1024), data=bytes(2**25)),
        "fc1/kernel must have shape (512, 1024), and has shape (8191, 1024)",
    ),
    "bomb.keras": (keras_bomb, "made to fill memory"),
    "bomb.mat": (mat_bomb, "made to fill memory"),
    "huge shape.h5": (
        h5_dataset(shape=(10**6, 10**6), chunks=(100, 100), dtype="f4"),
        "made to fill memory",
    ),
    "bomb.h5": (
        h5_dataset(data=np.zeros((512, BOMB // 2048), "f4"), compression="gzip"),
        "made to fill memory",
    ),
    "link to another file.h5": (h5_link, "is not stored in the file itself"),
    "group of another file.h5": (h5_group_link, "fc1 is not stored in the file itself"),
    "chunk bomb.h5": (
        h5_dataset(
            shape=(512, 1024),
            dtype="f4",
            chunks=(10240, 10240),
            maxshape=(None, None),
            compression="gzip",
        ),
        "has chunks larger than itself",
    ),
    "long header.npz": (npz_long_header, "its header is not valid"),
    "bzip2.npz": (npz_bzip2, "has a compression that NumPy does not use"),
    "bombs.mat": (mat_bombs, "made to fill memory"),
    "empty blobs.caffemodel": (caffe_layer(*[b""] * 10_000), "more than 1,000 fields"),
    "many blobs.caffemodel": (caffe_layer(*[b""] * 9), "its layer conv1_1 has 9 blobs, more than"),
    "many sides.caffemodel": (
        caffe_layer(foreign._field(7, foreign._field(1, b"\x7f" * 10**5))),
        "a blob of its layer conv1_1 does not consist of numbers",
    ),
    "mean of 1e300.npz": (
        lambda p: npz(
            p, {"about": np.array(json.dumps({"net": "A", "preprocessing": {"mean": [1e300] * 3}}))}
        ),
        "mean must be three numbers",
    ),
    "numbers of another file.h5": (h5_external, "is not a tensor in the file itself"),
    "without names.h5": (h5_no_names, "layer_names"),
    "text for layers.mat": (mat_text, "is not a net of MatConvNet"),
    "pickle.npz": (
        lambda p: npz(p, {"fc1/kernel": np.array([Code(p)], object)}),
        "fc1/kernel.npy holds pickled Python objects",
    ),
    "pickle.npy": (pickled_npy, "it holds pickled objects other than arrays of NumPy"),
    "bare pickle.npy": (pickled, "is a pickle"),
    "swapped layers.npz": (
        lambda p: npz(
            p,
            {
                "fc1/kernel": named_arrays()["fc2/kernel"],
                "fc2/kernel": named_arrays()["fc1/kernel"],
            },
        ),
        "fc1/kernel must have shape (512, 1024), and has shape (1024, 1024); fc2/kernel must have",
    ),
    "channels first.npz": (
        lambda p: npz(p, {"block1_conv1/kernel": KERNEL.transpose(3, 2, 0, 1)}),
        "block1_conv1/kernel must have shape (3, 3, 3, 16), and has shape (16, 3, 3, 3)",
    ),
    "whole numbers.npz": (
        lambda p: npz(p, {"block1_conv1/kernel": KERNEL.astype(int)}),
        "block1_conv1/kernel must be float, and has dtype int64",
    ),
    "complex numbers.npz": (
        lambda p: npz(p, {"block1_conv1/kernel": KERNEL.astype(complex)}),
        "block1_conv1/kernel must be float, and has dtype complex128",
    ),
    "whole numbers.safetensors": (
        torch_like({"features.0.bias": np.zeros(16, np.int64)}),
        "block1_conv1/bias (features.0.bias) must be float, and has dtype I64",
    ),
    "nan.npz": (
        lambda p: npz(p, {"fc2/bias": np.full(1024, np.nan, "f4")}),
        "fc2/bias holds NaN or Inf",
    ),
    "overflow.npz": (
        lambda p: npz(p, {"block1_conv1/kernel": np.full((3, 3, 3, 16), 1e300)}),
        "block1_conv1/kernel holds NaN or Inf",
    ),
    "missing.npz": (
        lambda p: npz(p, remove=["block5_conv2/bias"]),
        "net A: block5_conv2/bias is missing.",
    ),
    "surplus.npz": (lambda p: npz(p, {"fc3/kernel": KERNEL}), "fc3/kernel is surplus"),
    "batch normalisation.safetensors": (
        torch_like({"features.1.running_mean": np.zeros(16, "f4")}),
        "features.1.running_mean is surplus. It has batch normalisation",
    ),
    "twice.safetensors": (
        safetensors_twice,
        "classifier.0.bias must be stored once. Received: classifier.0.bias and "
        "module.classifier.0.bias",
    ),
    "twice.npz": (
        npz_twice("fc1/bias.npy"),
        "fc1/bias must be stored once. Received: fc1/bias.npy and fc1/bias.npy",
    ),
    "with and without ending.npz": (
        npz_twice("fc1/bias"),
        "fc1/bias must be stored once. Received: fc1/bias.npy and fc1/bias",
    ),
    "twice.keras": (keras_twice, "model.weights.h5 must be stored once. Received: 2 entries"),
    "twice.weights.h5": (
        h5_layers_twice,
        "block1_conv1/kernel must be stored once. Received: /layers/conv2d/vars/0 and "
        "/layers/conv2d_100/vars/0",
    ),
    "listed twice.h5": (
        h5_listed_twice,
        "fc2/kernel must be stored once. Received: /fc2/fc2_W_1:0 and /fc2/fc2_W_1:0",
    ),
    "twice.caffemodel": (
        caffe_twice,
        "conv1_1/0 must be stored once. Received: layer 1 and layer 23",
    ),
    "variables twice.mat": (
        mat_variables_twice,
        "layers must be stored once. Received: two variables",
    ),
    "twice.mat": (
        mat_layers(name="conv1_1", type="conv", filters=KERNEL, biases=KERNEL[0, 0, 0]),
        "conv1_1/filters must be stored once. Received: layers{1}.weights{1} and layers{",
    ),
    "batch normalisation.mat": (
        mat_layers(name="bn1_1", type="bnorm", weights=KERNEL[0, 0]),
        "bn1_1/filters is surplus",
    ),
    "unknown.npz": (lambda p: np.savez(p, x=KERNEL), "Its first names: x"),
    "wrong metadata.npz": (lambda p: npz(p, {"about": np.array('{"net": 3}')}), "'preprocessing'"),
}


def peak():
    """Largest resident memory of this process since the last call, in bytes."""
    status = Path("/proc/self/status").read_text()
    most = int(status.split("VmHWM:")[1].split()[0]) * 1024
    Path("/proc/self/clear_refs").write_text("5")
    return most


@pytest.fixture(scope="module")
def model():
    """A net that all files fit, and its weights."""
    built = vgg("A", *SIZE, seed=1)
    return built, built.get_weights()


@pytest.mark.parametrize("name", REFUSED)
def test_bad_files_are_refused_by_name(name, model, tmp_path):
    make, message = REFUSED[name]
    path = tmp_path / name
    make(path)
    target = tmp_path / "out.npz"
    attempts = {
        "loading": lambda: weights.load(model[0], path),
        "converting": lambda: weights.convert(path, target),
    }
    for what, attempt in attempts.items():
        peak()
        before = peak()
        with pytest.raises(weights.WeightsError) as refusal:
            attempt()
        grown = peak() - before
        assert name in str(refusal.value), what
        if what == "loading":
            assert message in str(refusal.value)
        assert grown < 2 * BYTES, what
    assert not target.exists()
    assert not (tmp_path / "it ran").exists()
    for got, wanted in zip(model[0].get_weights(), model[1], strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_torch_files_are_read_without_running_code(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensors = {k: torch.from_numpy(v.copy()) for k, v in foreign.torch_tensors(good()).items()}
    path = tmp_path / "w.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in tensors.items()}}, path)
    expected, _ = weights.read(path, preprocessing="rgb")
    np.testing.assert_array_equal(expected["fc2"][0], good()["fc2"][0])
    torch.save(tensors | {"x": Code(path)}, path)
    with pytest.raises(weights.WeightsError, match="pickled objects other than tensors"):
        weights.read(path)
    assert not (tmp_path / "it ran").exists()
    torch.save(tensors, path, _use_new_zipfile_serialization=False)  # as before PyTorch 1.6
    layers, _ = weights.read(path, preprocessing="rgb")
    np.testing.assert_array_equal(layers["fc1"][0], expected["fc1"][0])
    torch.save(tensors | {"module.classifier.6.bias": tensors["classifier.6.bias"]}, path)
    with pytest.raises(weights.WeightsError, match=r"classifier\.6\.bias must be stored once"):
        weights.read(path)
    for damage in (path.read_bytes()[:5000], pickle.dumps(Code(path))):
        path.write_bytes(damage)
        with pytest.raises(weights.WeightsError, match=r"w\.pth"):
            weights.read(path)
    torch.save(tensors, path)
    os.truncate(path, 5000)
    with pytest.raises(weights.WeightsError, match=r"w\.pth"):
        weights.read(path)
    assert not (tmp_path / "it ran").exists()


def test_without_torch_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", b"")
    with pytest.raises(ImportError, match=r"pip install torch.*safetensors"):
        weights.read(tmp_path / "w.pth")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Content and path of a good file of a tiny net, by ending."""
    folder = tmp_path_factory.mktemp("fuzz")
    tiny = foreign.random_weights(foreign.kernel_shapes("A", 3, 32, 1 / 32))
    for ending, write in FOREIGN.items():
        write(folder / ending, tiny)
    return {ending: ((folder / ending).read_bytes(), folder / ending) for ending in FOREIGN}


@pytest.mark.parametrize("ending", FOREIGN)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.floats(0, 1), near_head=st.booleans(), damage=st.binary(min_size=0, max_size=16))
def test_any_damage_is_refused_or_harmless(files, ending, position, near_head, damage):
    """If bytes are overwritten or cut off, `read` raises WeightsError or gives finite weights."""
    data, path = files[ending]
    at = int(position * (min(len(data), 4096) if near_head else len(data) - 1))
    path.write_bytes(data[:at] + damage + data[at + len(damage) :] if damage else data[:at])
    refusal, layers = "", {}
    try:
        layers, _ = weights.read(path)
    except (weights.WeightsError, MissingPackageError) as error:  # damage can be PyTorch's mark
        refusal = str(error)
    assert layers or path.name in refusal
    assert all(np.isfinite(array).all() for pair in layers.values() for array in pair)
