"""Runs that go on with more epochs, or other settings of the plateau."""

from __future__ import annotations

import dataclasses
import json
import logging

import h5py
import numpy as np
import pytest

from tests.conftest import TINY
from vgg_keras.callbacks import PlateauDecay, read_journal
from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.errors import RunError
from vgg_keras.extension import extend, make_plateau
from vgg_keras.net_files import read_recipe
from vgg_keras.recipes import EXTENSIBLE, LocalisationRecipe, Recipe
from vgg_keras.runs import is_run_of, prepare_run_folder
from vgg_keras.training import train

# Validation never improves on its first value, and the weights change with every step.
BASE = Recipe(**TINY, batch_size=8, learning_rate=1e-6, initialisation="glorot", epochs=2)


def contents(run):
    """All that continues a run, and its journal without times."""
    with h5py.File(run / "last.weights.h5") as file:
        arrays = {}
        file.visititems(lambda k, v: arrays.update({k: v[()]}) if hasattr(v, "shape") else None)
        state = json.loads(file.attrs["training_state"])
    journal = [
        {k: v for k, v in entry.items() if k not in ("seconds", "images_per_second")}
        for entry in read_journal(run / "journal.jsonl")
    ]
    return arrays, state, journal


@pytest.mark.slow
def test_a_run_goes_on_with_the_bits_of_a_run_that_had_the_settings_from_its_beginning(
    folder, tmp_path, caplog
):
    before = dataclasses.replace(BASE, data=folder, plateau_patience=1, plateau_drops=0)
    after = dataclasses.replace(before, epochs=5, plateau_drops=1)
    caplog.set_level(logging.INFO, "vgg_keras")
    train(after, tmp_path / "whole", verbose=0)
    assert caplog.messages[1] == (
        "net A, 3 classes, 111,291 parameters; 24 images, 3 steps an epoch, 5 epochs at most; 1 "
        "CPU, float32; about 2 MB of memory"
    )
    train(before, tmp_path / "run", verbose=0)
    assert read_progress(tmp_path / "run") == (2, True)  # ended on its plateau
    caplog.clear()
    train(after, tmp_path / "run", verbose=0)
    assert f"{tmp_path / 'run'}: goes on with epochs: 2 -> 5; plateau_drops: 0 -> 1" in caplog.text
    whole, run = (contents(tmp_path / name) for name in ("whole", "run"))
    assert run[1:] == whole[1:]
    assert [entry["learning_rate"] for entry in run[2]] == pytest.approx([1e-6, 1e-6, 1e-7])
    assert run[1]["finished"]
    assert run[0].keys() == whole[0].keys()
    assert all(np.array_equal(run[0][key], whole[0][key]) for key in whole[0])
    assert read_recipe(tmp_path / "run" / "recipe.json") == after
    for changes in ({"epochs": 2}, {"plateau_drops": 0}, {"seed": 1}):
        with pytest.raises(RunError, match=r"cannot go on|another recipe"):
            train(dataclasses.replace(after, **changes), tmp_path / "run", verbose=0)


def write_checkpoint(folder, epochs, states):
    """Writes a checkpoint without weights."""
    state = {"epochs": epochs, "finished": False, "best": None, "seeds": [], "callbacks": states}
    with h5py.File(folder / "last.weights.h5", "w") as file:
        file.attrs["training_state"] = json.dumps(state)


@pytest.fixture
def run(tmp_path):
    """Writes the journal of a run with these errors; returns what `extend` gives."""

    def extended(errors, before, after, epochs=None, state=None, rates=()):
        entries = [{"epoch": i, "val_top1_error": e} for i, e in enumerate(errors, 1)]
        for entry, rate in zip(entries, rates, strict=False):
            entry["learning_rate"] = rate
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (tmp_path / "journal.jsonl").write_text(lines)
        former = dataclasses.replace(BASE, **{"epochs": 9} | before)
        new = dataclasses.replace(former, **after)
        epochs = len(errors) if epochs is None else epochs
        saved = make_plateau(former)
        saved.replay([-error for error in errors[:epochs] if error is not None])
        write_checkpoint(tmp_path, epochs, {"plateau": saved.get_state() | (state or {})})
        found = extend(tmp_path, former, new, epochs)
        return found and dataclasses.astuple(found)

    return extended


ENDED = {"plateau_patience": 1, "plateau_drops": 1}  # by the errors 50, 50, 50


@pytest.mark.parametrize(
    ("errors", "before", "after", "expected"),
    [
        ([50.0, 40.0], {}, {"epochs": 60}, None),
        ([50.0, 40.0], {}, {"epochs": 2}, None),
        # Wait, drops, learning rate of the next epoch, whether training has ended.
        ([50, 50, 50], ENDED, {"plateau_drops": 2}, (0, 2, 1e-8, False)),
        ([50, 50, 50], ENDED, {"plateau_drops": 3, "epochs": 60}, (0, 2, 1e-8, False)),
        ([50, 50], ENDED, {"plateau_patience": 3}, (1, 0, 1e-6, False)),  # the drop is undone
        ([50, 50], ENDED, {"plateau_factor": 2.0}, (0, 1, 5e-7, False)),
        ([50, 40, 30], ENDED, {"plateau_factor": 2.0}, (0, 0, 1e-6, False)),
        ([50, 40], ENDED, {"plateau_patience": 4, "plateau_drops": 7}, (0, 0, None, False)),
        ([50, 50], {}, {"plateau_patience": 1, "plateau_drops": 0}, (0, 0, 1e-6, True)),
        # More epochs than those that train the FC layers alone, in which no plateau counts then.
        ([50], {"fc_epochs": 1, "epochs": 1}, {"epochs": 9}, (0, 0, None, False)),
        ([50, 50], {"fc_epochs": 2, "epochs": 2}, {"epochs": 9}, (0, 0, None, False)),
        ([50, 50], {"fc_epochs": 4, "epochs": 4} | ENDED, {"epochs": 9}, (0, 0, 1e-6, False)),
        ([50, 50], {"fc_epochs": 4}, {"epochs": 4, "plateau_patience": 1}, (0, 1, 1e-7, False)),
    ],
)
def test_settings_that_leave_the_trained_epochs_as_they_are(run, errors, before, after, expected):
    found = run(errors, before, after)
    if expected is None:
        assert found is None
    else:
        assert found[:2] + found[3:] == expected[:2] + expected[3:]
        assert found[2] == (expected[2] and pytest.approx(expected[2]))


@pytest.mark.parametrize(
    ("errors", "before", "after", "message"),
    [
        ([50, 40, 30], {}, {"epochs": 2}, "epochs: 9 -> 2: 3 epochs are trained already"),
        (
            [50, 50, 50],
            ENDED,
            {"plateau_patience": 2},
            "after epoch 2 the learning rate drops, and with the new settings the learning rate "
            "is kept",
        ),
        ([50, 50, 50], ENDED, {"plateau_drops": 0}, "with the new settings training ends"),
        ([50, 50, 40], ENDED, {"plateau_factor": 2.0}, "was divided by 10 after epoch 2"),
        (
            [50, 50, 50],
            {"fc_epochs": 9} | ENDED,
            {"epochs": 60},
            "after epoch 2 the learning rate drops, and with the new settings the learning rate "
            "is kept",
        ),
        ([50, None], {}, {"plateau_drops": 7}, "must have val_top1_error of all 2 finished epochs"),
    ],
)
def test_other_settings_are_refused_with_the_reason(run, errors, before, after, message):
    with pytest.raises(RunError, match=message.replace("->", "-.")):
        run(errors, before, after)


@pytest.mark.parametrize(
    "recorded",
    [
        {"state": {"wait": 1}},
        {"state": {"drops_done": 0}},
        {"rates": [1e-6, 1e-6, 1e-6]},  # the last epoch had the rate before the drop
        {"rates": [1e-6, 1e-7, 1e-7]},
    ],
)
def test_a_run_whose_learning_rate_does_not_follow_from_its_journal_is_refused(run, recorded):
    """An accuracy has more digits than the error in the journal, and other callbacks act too."""
    with pytest.raises(RunError, match="does not follow from the errors in its journal"):
        run([50, 50, 50], {**ENDED, "plateau_drops": 2}, {"plateau_drops": 3}, **recorded)


def test_a_call_that_was_killed_after_it_saved_the_new_state_is_repeated(run):
    killed = {"state": {"wait": 0, "drops_done": 2}, "rates": [1e-6, 1e-6, 1e-7]}
    assert run([50, 50, 50], ENDED, {"plateau_drops": 2}, **killed)[:2] == (0, 2)


def test_a_state_of_a_run_with_more_drops_ends_at_the_next_plateau():
    plateau = PlateauDecay(patience=2, drops=1)
    plateau.set_state({"best": 0.5, "wait": 0, "drops_done": 2})
    assert plateau.replay([0.1, 0.1]) == [None, "end"]


def test_epochs_after_the_one_that_was_saved_do_not_count(run):
    assert run([50, 50, 50], ENDED, {"plateau_patience": 3}, epochs=2)[:2] == (1, 0)


def test_a_replay_ignores_the_epochs_of_the_first_stage():
    plateau = PlateauDecay(patience=1, drops=1, start_from_epoch=2)
    assert plateau.replay([0.1, 0.1, 0.1, 0.1, 0.1]) == [None, None, None, "drop", "end"]
    assert plateau.get_state() == {"best": 0.1, "wait": 0, "drops_done": 1}


def test_a_run_without_a_finished_epoch_keeps_the_weights_that_it_starts_from(tmp_path):
    """They may be those of `init_from`, which are copied before the first epoch alone."""
    recipe = dataclasses.replace(BASE, init_from="runs/a")
    prepare_run_folder(tmp_path, recipe)
    write_checkpoint(tmp_path, 0, {})
    more = dataclasses.replace(recipe, epochs=60, plateau_patience=9)
    prepare_run_folder(tmp_path, more)
    assert (tmp_path / "last.weights.h5").exists()
    assert read_recipe(tmp_path / "recipe.json") == more
    prepare_run_folder(tmp_path, dataclasses.replace(more, seed=1))
    assert not (tmp_path / "last.weights.h5").exists()


def test_a_folder_belongs_to_recipes_that_differ_in_extensible_fields(tmp_path):
    prepare_run_folder(tmp_path, BASE)
    assert {f.name for f in dataclasses.fields(Recipe)} >= set(EXTENSIBLE)
    for name in EXTENSIBLE:
        assert is_run_of(tmp_path, dataclasses.replace(BASE, **{name: 7}))
    assert not is_run_of(tmp_path, dataclasses.replace(BASE, seed=7))
    assert not is_run_of(tmp_path, LocalisationRecipe(**dataclasses.asdict(BASE)))
