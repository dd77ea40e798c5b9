"""Files that were made to run code, to read other files, or to fill memory are refused by name."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest

from tests.vgg_keras.weights import foreign
from tests.vgg_keras.weights.test_formats import FOREIGN
from tests.vgg_keras.weights.test_refusals import BYTES, Code, good, peak
from vgg_keras import weights

OBJECT = "it holds pickled objects other than arrays of NumPy, which are never loaded"


def npy(**layers):
    """A pickled `.npy` file of a good net, with some layers that are given as opcodes."""

    def make(path):
        pairs = {foreign.caffe_name(name): foreign.py2_pair(*pair) for name, pair in good().items()}
        foreign.pickled_npy(path, pairs | layers)

    return make


def code_npy(path):
    np.save(path, {"conv1_1": [Code(path), np.ones(3, np.float32)]}, allow_pickle=True)


def long_npy(path):
    """A line of 100 MB, where the name of a module should be."""
    npy(fc6=b"c" + b"x" * 100_000_000)(path)


def array(shape, code, data):
    return b"](" + foreign._py2_array(shape, code, data) + b"e"


def onnx_file(external="w.data", **changes):
    """A good model with its data in another file, and changed entries for `fc1`'s kernel."""

    def make(path):
        import onnx

        foreign.onnx_model(path, foreign.torch_tensors(good()), external=external)
        model = onnx.load(path, load_external_data=False)
        (tensor,) = (t for t in model.graph.initializer if t.name == "classifier.0.weight")
        entries = {entry.key: entry for entry in tensor.external_data}
        for key, value in changes.items():
            if key in entries:
                entries[key].value = str(value)
            else:
                getattr(tensor, key).extend(value) if key == "dims" else setattr(tensor, key, value)
        path.write_bytes(model.SerializeToString())

    return make


def onnx_link(path):
    """The data are a link to a file outside the folder."""
    onnx_file()(path)
    (path.parent / "w.data").rename(path.parent.parent / "w.data")
    os.symlink("../w.data", path.parent / "w.data")


def onnx_cut(path):
    onnx_file()(path)
    os.truncate(path.parent / "w.data", BYTES // 2)


def onnx_missing(path):
    onnx_file()(path)
    (path.parent / "w.data").unlink()


def onnx_tensor(*fields):
    """A model of one initializer, which is given by its fields."""

    def make(path):
        tensor = b"".join(fields)
        path.write_bytes(foreign._field(7, foreign._field(5, tensor)))

    return make


FLOAT, NAMED = b"\x10\x01", foreign._field(8, b"features.0.weight")


def dag_twice(path):
    """Two parameters of a DagNN are one tensor."""
    FOREIGN["dag.mat"](path, good())
    from scipy.io import loadmat, savemat

    content = loadmat(path)
    content["params"] = np.append(content["params"], content["params"][:, :1], 1)
    savemat(path, {key: value for key, value in content.items() if key[0] != "_"})


HOSTILE = {
    # name of the file: function that makes it, and text of the message
    "code.npy": (code_npy, f"{OBJECT}: io.open"),
    "system.npy": (npy(fc6=b"cposix\nsystem\n(U\x02lstR"), f"{OBJECT}: posix.system"),
    "reads a file.npy": (npy(fc6=b"cnumpy\nfromfile\n(U\x02xxtR"), f"{OBJECT}: numpy.fromfile"),
    "attribute.npy": (npy(fc6=b"cnumpy\ndtype\n}U\x01xU\x01ysb"), OBJECT),
    "instance.npy": (npy(fc6=b"(iposix\nsystem\n"), f"{OBJECT} (opcode 0x69)"),
    "new object.npy": (npy(fc6=b"cnumpy\ndtype\n)\x81"), f"{OBJECT} (opcode 0x81)"),
    "persistent.npy": (npy(fc6=b"Px\n"), f"{OBJECT} (opcode 0x50)"),
    "extension.npy": (npy(fc6=b"\x82\x01"), f"{OBJECT} (opcode 0x82)"),
    "text for a function.npy": (
        npy(fc6=b"U\x0cposix.system(U\x02lstR"),
        "fc6 must be an array of numbers",
    ),
    "text.npy": (npy(fc6=b"U\x02ls"), "each layer must be an array, or a list or dictionary"),
    "claims 2 GB.npy": (npy(fc6=b"B\xff\xff\xff\x7f"), "it is cut off"),
    "claims a frame.npy": (npy(fc6=b"\x8e" + struct.pack("<Q", 2**62)), "it is cut off"),
    "memo.npy": (npy(fc6=b"]r\xff\xff\xff\x7f"), "fc1/kernel (fc6/weights) is missing"),
    "objects.npy": (npy(fc6=b"}" * 2_000_000), "it has more than 20,000 opcodes"),
    "long name.npy": (long_npy, OBJECT),
    "shape.npy": (
        npy(fc6=array((10**6, 10**6), "<f4", b"U\x04abcd")),
        "fc6[0] declares shape (1000000, 1000000) and has 4 bytes",
    ),
    "objects in an array.npy": (npy(fc6=array((1,), "|O8", b"](}e")), "fc6[0] must be an array"),
    "dtype.npy": (npy(fc6=array((1,), "<V4", b"U\x04abcd")), "Received: dtype '<V4'"),
    "list of itself.npy": (npy(fc6=b"]q\x01(" + b"h\x01" * 9 + b"e"), "fc6[0] must be an array"),
    "many arrays.npy": (
        npy(fc6=b"](" + array((1,), "<f4", b"U\x04abcd")[2:-1] + b"q\x01" + b"h\x01" * 5000 + b"e"),
        "it has more than 1,000 arrays",
    ),
    "outside.onnx": (
        onnx_file(location="../secret"),
        "the data of classifier.0.weight must be in the folder of the model. Received: '../secret'",
    ),
    "absolute.onnx": (onnx_file(location="/etc/passwd"), "must be in the folder of the model"),
    "the folder.onnx": (onnx_file(location="."), "must be in the folder of the model"),
    "link.onnx": (onnx_link, "must be in the folder of the model. Received: 'w.data'"),
    "missing data.onnx": (onnx_missing, "w.data, which does not exist"),
    "cut data.onnx": (onnx_cut, "w.data is cut off or damaged"),
    "offset.onnx": (onnx_file(offset=2**62), "w.data is cut off or damaged"),
    "negative offset.onnx": (onnx_file(offset=-4), "w.data is cut off or damaged"),
    "length.onnx": (
        onnx_file(length=4),
        "classifier.0.weight declares shape (1024, 512) and has 4",
    ),
    "dims.onnx": (onnx_file(dims=[2**40]), "classifier.0.weight declares shape (1024, 512, 1099"),
    "text.onnx": (onnx_file(doc_string="x" * 100_000), "bytes besides its tensors"),
    "claims a terabyte.onnx": (
        lambda path: path.write_bytes(b"\x3a" + foreign._varint(2**40) + bytes(100)),
        "claims 1099511627776 bytes",
    ),
    "many dims.onnx": (
        onnx_tensor(foreign._field(1, b"\x01" * 60_000), FLOAT, NAMED, foreign._field(9, bytes(4))),
        "features.0.weight declares shape (1, 1, 1, 1, 1, 1, 1, 1) and has 4 bytes",
    ),
    "scattered.onnx": (
        onnx_tensor(b"\x08\x02", FLOAT, NAMED, *[foreign._field(4, bytes(4))] * 2),
        "the data of features.0.weight must be one run of bytes",
    ),
    "single numbers.onnx": (
        onnx_tensor(b"\x08\x02", FLOAT, NAMED, b"\x25\0\0\0\0" * 2000),
        "more than 1,000 fields",
    ),
    "no graph.onnx": (lambda path: path.write_text("version https"), "it is of another kind"),
    "parameters twice.mat": (dag_twice, "conv1_1/filters must be stored once. Received: params(1)"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name(name, tmp_path):
    """Nothing runs, no other file is read, and memory stays below twice that of a good net."""
    make, message = HOSTILE[name]
    path = tmp_path / "model" / name
    path.parent.mkdir()
    (tmp_path / "secret").write_bytes(bytes(BYTES))
    make(path)
    peak()
    before = peak()
    with pytest.raises(weights.WeightsError) as refusal:
        weights.read(path)
    assert peak() - before < 2 * BYTES
    assert name in str(refusal.value)
    assert message in str(refusal.value)
    assert not (path.parent / "it ran").exists()
