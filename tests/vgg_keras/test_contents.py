"""Damaged files that this project wrote: one error that names the file, never another exception."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.callbacks.small import small_model
from tests.vgg_keras.test_saved_before import ARCHIVE
from vgg_keras import Features, Predictions, TrainedNet
from vgg_keras.callbacks import Checkpoint, PlateauDecay, read_journal, read_layers
from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.errors import RunError, UserError
from vgg_keras.net_files import load_model, read_class_names, read_facts
from vgg_keras.pipelines.contents import naming_file, parse_json, read_json
from vgg_keras.pipelines.sources import open_source
from vgg_keras.provenance import warn_of_other_versions
from vgg_keras.recipes import RECIPES, Recipe
from vgg_keras.report.localised import localisation_section
from vgg_keras.report.rendering import render
from vgg_keras.report.results import read_results
from vgg_keras.report.tables import build_table
from vgg_keras.runs import record_classes
from vgg_keras.serving.source import read_export
from vgg_keras.sweeps.results import read_trials
from vgg_keras.sweeps.space import Sweep
from vgg_keras.sweeps.trials import score
from vgg_keras.tasks import CLASSIFICATION
from vgg_keras.training_data import prepare_data
from vgg_keras.weights.reading import read


def all_tables(folder: Path) -> None:
    """Reads the results of a folder and shows them wherever they are shown."""
    found = read_results(folder)
    for number in range(1, 13):
        render(build_table(number, found), "markdown")
    localisation_section(found)


# How each file of JSON is read: the name of the file, and what reads the folder that holds it.
READERS: dict[str, Callable[[Path], Any]] = {
    "run/recipe.json": lambda root: read_facts(root / "run"),
    "run/classes.json": lambda root: read_facts(root / "run"),
    "run/statistics.json": lambda root: read_facts(root / "run"),
    "run/journal.jsonl": lambda root: score_of(root / "run"),
    "net/net.json": lambda root: (read_facts(root / "net"), read(root / "net")),
    "results/dense.parquet.json": lambda root: Predictions.load(root / "results/dense.parquet"),
    "results/fused.parquet.json": lambda root: all_tables(root / "results"),
    "results/localised.json": lambda root: all_tables(root / "results"),
    "results/transfer.json": lambda root: all_tables(root / "results"),
    "features.npy.json": lambda root: Features.load(root / "features.npy"),
    "exports/tiny/1/assets.extra/export.json": lambda root: read_export(root / "exports/tiny/1"),
    "sweep/sweep.json": lambda root: Sweep.load(root / "sweep"),
    "sweep/tuner/trial_0/trial.json": lambda root: read_trials(root / "sweep"),
}


def score_of(run: Path) -> None:
    if read_journal(run / "journal.jsonl"):  # an empty journal has no epochs
        score(run, "top5")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a file of each kind."""
    root = tmp_path_factory.mktemp("saved")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    TrainedNet.load(root / "run").save(root / "net")
    (root / "results").mkdir()
    for name in ("dense.parquet", "dense.parquet.json", "fused.parquet.json", "localised.json"):
        shutil.copy(root / name, root / "results")
    (root / "results" / "transfer.json").write_text(json.dumps(transfer_result(root)))
    sweep = Sweep(RECIPES["small"], nets=("A",), train_scales=((73, 73),), widths=(0.25,))
    sweep.save(root / "sweep")
    trial = root / "sweep/tuner/trial_0/trial.json"
    trial.parent.mkdir(parents=True)
    values = {"net": "A", "train_scale": "73", "width": "0.25"}
    trial.write_text(
        json.dumps({"trial_id": "0", "status": "RUNNING", "hyperparameters": {"values": values}})
    )
    for read_file in READERS.values():
        read_file(root)  # all are read before they are damaged
    return root


def transfer_result(root: Path) -> dict[str, Any]:
    described = json.loads((root / "features.npy.json").read_text())["about"]
    return {
        "protocol": "caltech101",
        "mean_class_recall": 90.5,
        "spread": 0.3,
        "images": 12,
        "train_per_class": 30,
        "data": "folder:x",
        "split": "random",
        "features": described,
    }


def survives(read_file: Callable[[Path], Any], root: Path, name: str, content: bytes) -> None:
    """Reads a file with other contents: fine, or a UserError on one line that names the file."""
    file = root / name
    before, message = file.read_bytes(), None
    file.write_bytes(content)
    try:
        read_file(root)
    except UserError as error:
        message = str(error)
    finally:
        file.write_bytes(before)
    if message is not None:
        first_of_pair = file.with_suffix("") if len(file.suffixes) > 1 else file
        assert first_of_pair.name in message
        assert "\n" not in message


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 10**30, -0.5, 0.25, 1e308, "", "x", "A", "../x", "\udcff", "\x1b"])
    | st.integers()
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
NOT_JSON = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"null",
    b"7",
    b'"text"',
    b"[[]]",
    b'"\xff"',
    b"\x00" * 40,
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b"[" * 100_000,
    b'{"a": ' * 100_000,
]


def paths_in(value: Any) -> list[tuple]:
    """The paths to all values inside a value."""
    if not isinstance(value, (dict, list)):
        return []
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [p for key, one in inner for p in [(key,), *((key, *rest) for rest in paths_in(one))]]


def with_other(value: Any, path: tuple, other: Any) -> Any:
    """A copy in which the value at a path is another one, or is missing if that is `...`."""
    copy = json.loads(json.dumps(value))
    *outer, last = path
    parent = copy
    for key in outer:
        parent = parent[key]
    if other is ...:
        del parent[last]
    else:
        parent[last] = other
    return copy


@pytest.mark.parametrize("name", READERS)
class TestJson:
    @pytest.mark.parametrize("content", NOT_JSON, ids=lambda content: repr(content[:8]))
    def test_other_contents_are_named(self, saved, name, content):
        survives(READERS[name], saved, name, content)

    def test_a_file_cut_short_is_named(self, saved, name):
        whole = (saved / name).read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 25)):
            survives(READERS[name], saved, name, whole[:length])

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_a_value_of_another_type_is_named(self, saved, name, data):
        value = json.loads((saved / name).read_bytes())
        path = data.draw(st.sampled_from(paths_in(value)))
        other = data.draw(st.just(...) | JSON_VALUES)
        content = json.dumps(with_other(value, path, other))
        survives(READERS[name], saved, name, content.encode())


def restored(root: Path) -> None:
    """Reads a checkpoint and restores it into a model like the one that was saved."""
    read_progress(root / "trained")
    Checkpoint(root / "trained", {"plateau": PlateauDecay()}).restore(small_model())


def loaded(root: Path) -> None:
    facts = read_facts(root / "run")
    load_model(root / "run", facts)


# How each binary file or table is read.
TABLES: dict[str, Callable[[Path], Any]] = {
    "run/best.weights.h5": loaded,
    "boxes/best.weights.h5": lambda root: (read_layers(root / "boxes"), read(root / "run")),
    "trained/last.weights.h5": restored,
    "results/dense.parquet": lambda root: Predictions.load(root / "results/dense.parquet"),
    "several.csv": lambda root: Predictions.load(root / "several.csv"),
    "features.parquet": lambda root: Features.load(root / "features.parquet"),
    "features.npy": lambda root: Features.load(root / "features.npy"),
}


@pytest.fixture(scope="module")
def tables(saved):
    model = small_model()
    checkpoint = Checkpoint(saved / "trained", {"plateau": PlateauDecay()})
    checkpoint.set_model(model)
    checkpoint.set_params({"epochs": 2})
    model.stop_training = False
    checkpoint.on_epoch_end(0, {"val_accuracy": 0.5})
    for read_file in TABLES.values():
        read_file(saved)
    return saved


@pytest.mark.parametrize("name", TABLES)
class TestTables:
    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"PAR1" * 3, b"\x89HDF\r\n\x1a\n" * 20, b"a\n1"]
    )
    def test_other_contents_are_named(self, tables, name, content):
        survives(TABLES[name], tables, name, content)

    def test_a_file_cut_short_is_named(self, tables, name):
        whole = (tables / name).read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 8)):
            survives(TABLES[name], tables, name, whole[:length])

    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,  # HDF5 does not promise to survive every damage
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_changed_bytes_are_named_or_harmless(self, tables, name, data):
        whole = bytearray((tables / name).read_bytes())
        for _ in range(4):  # most of the structure is at the ends
            at = data.draw(st.integers(-600, 600))
            whole[at % len(whole)] = data.draw(st.integers(0, 255))
        survives(TABLES[name], tables, name, bytes(whole))


def float64_column(table: pa.Table) -> pa.Table:
    rows = pa.array([[0.5, 0.25, 0.25]] * len(table), pa.list_(pa.float64(), 3))
    return table.set_column(table.schema.get_field_index("posteriors"), "posteriors", rows)


def column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        array = pa.array([values] * len(table))
        return table.set_column(table.schema.get_field_index(name), name, array)

    return change


PARQUET = {
    "float64": float64_column,
    "text": column("posteriors", "0.5 0.25 0.25"),
    "NaN": column("posteriors", [float("nan")] * 3),
    "empty lists": column("posteriors", []),
    "no values": column("posteriors", None),
    "other length": column("posteriors", [0.5, 0.5]),
    "numbers for names": column("image", 3),
    "no names": column("image", None),
    "numbers for classes": column("label", 1),
    "unknown class": column("label", "ape"),
    "missing column": lambda table: table.drop_columns(["label"]),
    "no rows": lambda table: table.slice(0, 0),
}


@pytest.mark.parametrize("change", PARQUET.values(), ids=PARQUET)
def test_predictions_of_other_types_are_named(saved, tmp_path, change):
    shutil.copytree(saved / "results", tmp_path / "results")
    file = tmp_path / "results/dense.parquet"
    parquet.write_table(change(parquet.read_table(file)), file)
    with pytest.raises(UserError, match=r"dense\.parquet does not hold predictions: "):
        Predictions.load(file)


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [1, 2]},
        {"labels": ["blue", "red"]},
        {"labels": [["ape"], ["red"]]},
        {"difficult": [None, None]},
        {"features": [[0.5], [1.0]]},
        {"features": ["a", "b"]},
        {"split": None},
    ],
    ids=repr,
)
def test_features_of_other_types_are_named(saved, tmp_path, columns):
    file = tmp_path / "f.parquet"
    whole = parquet.read_table(saved / "features.parquet").slice(0, 2)
    table = whole.to_pydict() | columns
    table = {name: values for name, values in table.items() if values is not None}
    parquet.write_table(pa.table(table).replace_schema_metadata(whole.schema.metadata), file)
    with pytest.raises(UserError, match=r"f\.parquet holds no features: "):
        Features.load(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": -1},
        {"epochs": 1.5},
        {"finished": "no"},
        {"best": "0.5"},
        {"seeds": [["x"]]},
        {"seeds": [[0, 1, 2]]},
        {"callbacks": []},
        {"callbacks": {"plateau": {"best": "x", "wait": 0, "drops_done": 0}}},
        {"callbacks": {"plateau": {"best": 0.5, "wait": -1, "drops_done": 0}}},
        {"callbacks": {"plateau": {}}},
    ],
    ids=repr,
)
def test_training_states_of_other_types_are_named(tables, tmp_path, changes):
    shutil.copytree(tables / "trained", tmp_path / "trained")
    with h5py.File(tmp_path / "trained/last.weights.h5", "a") as file:
        state = json.loads(file.attrs["training_state"])
        file.attrs["training_state"] = json.dumps(state | changes)
    with pytest.raises(UserError, match=r"last\.weights\.h5 cannot be "):
        restored(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"packages": ["keras"]}', b"\xff"])
def test_a_damaged_environment_is_a_warning(tmp_path, caplog, content):
    if content is not None:
        (tmp_path / "environment.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        warn_of_other_versions(tmp_path)
    (record,) = caplog.records
    assert "environment.json cannot be read" in record.getMessage()


@pytest.mark.parametrize("content", [b"{}", b"[", b'{"train": [], "val": 3}', b'{"train": [1]}'])
def test_damaged_lists_of_bad_images_are_named(folder, tmp_path, content):
    recipe = dataclasses.replace(RECIPES["small"], data=folder, on_bad_image="skip")
    (tmp_path / "bad_images.json").write_bytes(content)
    source = open_source(folder)
    splits = [source["train"], source["val"]]
    with pytest.raises(RunError, match=r"bad_images\.json"):
        prepare_data(source, splits, recipe, tmp_path, CLASSIFICATION, False)


@pytest.mark.parametrize("content", [b"[1, 2]", b"[]", b'["a", "a"]', b'{"a": 1}'])
def test_damaged_class_names_are_named(tmp_path, content):
    (tmp_path / "classes.json").write_bytes(content)
    for use in (read_class_names, lambda path: record_classes(path, ["a", "b"])):
        with pytest.raises(RunError, match=r"classes\.json cannot be read"):
            use(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_size": 2**14},
        {"width": 1e9},
        {"train_scale": [32, 10**12]},
        {"epochs": "7"},
        {"epochs": 0},
        {"batch_size": 1.5},
        {"flip": 1},
        {"dropout": 2},
        {"seed": -1},
        {"colour": "red"},
    ],
    ids=repr,
)
def test_a_recipe_with_numbers_that_cannot_be_is_named(saved, tmp_path, changes):
    shutil.copytree(saved / "run", tmp_path / "run")
    file = tmp_path / "run/recipe.json"
    recipe = json.loads(file.read_text()) | changes
    if "crop_size" in changes:
        recipe["train_scale"] = [2**14, 2**14]
    file.write_text(json.dumps(recipe))
    with pytest.raises(
        RunError, match=r"recipe\.json cannot be read|best\.weights\.h5 has .* bytes"
    ):
        loaded(tmp_path)


class TestParsing:
    def test_files_of_windows_are_read(self, tmp_path):
        for encoding in ("utf-8-sig", "utf-16", "utf-32"):
            (tmp_path / "x.json").write_text('["ä"]', encoding=encoding)
            assert read_json(tmp_path / "x.json", list[str], RunError) == ["ä"]

    def test_keys_that_are_not_in_the_type_stay(self):
        assert parse_json(b'{"packages": {}, "more": [1]}', dict[str, Any])["more"] == [1]

    @pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "[1.5, 1e999]"])
    def test_numbers_that_are_not_finite_are_refused(self, text):
        with pytest.raises(ValueError, match=r"a number must be finite\. Received: "):
            parse_json(text, Any)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(RunError, match=r"x\.json cannot be read: .*No such file"):
            read_json(tmp_path / "x.json", list[str], RunError)

    def test_errors_are_on_one_line_and_not_named_twice(self):
        for error, message in (
            (RuntimeError("one\ntwo"), "a.h5 is damaged: one two"),
            (KeyError("vars"), "a.h5 is damaged: it lacks 'vars'"),
            (RunError("a.h5 is empty"), "a.h5 is empty"),
        ):
            named = pytest.raises(RunError, match=f"^{re.escape(message)}$")
            with named, naming_file("a.h5", RunError, "is damaged"):
                raise error

    @given(st.text() | st.binary())
    def test_any_text_is_a_recipe_or_refused(self, text):
        with pytest.raises(UserError):
            Recipe.from_json(text)
