"""Where `train` takes its recipe from: flags, `--recipe`, `--config`, `--resume`."""

from __future__ import annotations

import dataclasses
import json

import click
import pytest
from click.testing import CliRunner

from vgg_keras.cli import main
from vgg_keras.commands.recipes import defaults_text
from vgg_keras.recipes import (
    CHOICES,
    LOCALISATION_RECIPES,
    PREPROCESSING_NAMES,
    RECIPES,
    LocalisationRecipe,
    Recipe,
)
from vgg_keras.runs import prepare_run_folder


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def trained(monkeypatch):
    """What was given to `train` in place of a training: pairs of recipe and folder."""
    import vgg_keras.localisation.task
    import vgg_keras.training

    found = []
    record = lambda recipe, out, **_: found.append((recipe, out))  # noqa: E731 - one line
    monkeypatch.setattr(vgg_keras.training, "train", record)
    monkeypatch.setattr(vgg_keras.localisation.task, "train_localisation", record)
    return found


class TestResume:
    @pytest.mark.parametrize(
        ("command", "recipe"),
        [
            (("train",), Recipe(net="D", data="shapes", seed=3)),
            (("localise", "train"), LocalisationRecipe(data="shapes", seed=3)),
        ],
    )
    def test_the_recipe_is_that_of_the_run(self, command, recipe, trained, tmp_path):
        prepare_run_folder(tmp_path, recipe)
        assert invoke(*command, "--resume", tmp_path).exit_code == 0
        assert invoke(*command, "--resume", tmp_path, "--epochs", 90).exit_code == 0
        assert trained == [(recipe, tmp_path), (dataclasses.replace(recipe, epochs=90), tmp_path)]

    def test_what_does_not_go_with_it_is_refused(self, trained, tmp_path):
        run = tmp_path / "run"
        prepare_run_folder(run, Recipe(data="shapes"))
        for flag in ("--out", "--recipe", "--config"):
            value = "small" if flag == "--recipe" else tmp_path / "x"
            result = invoke("train", "--resume", run, flag, value)
            assert result.exit_code == 1
            assert result.output.endswith(f"the folder of the run. Received: {flag} too\n")
        other = invoke("localise", "train", "--resume", run)
        assert f"{run} goes on with `vgg-keras train --resume {run}`." in other.output
        none = invoke("train", "--resume", tmp_path)
        assert none.output == (
            f"Error: {tmp_path} is no run that can go on: it holds no recipe.json.\n"
        )
        assert not trained

    def test_a_forgotten_recipe_is_named_before_anything_else(self, tmp_path):
        """The message about `small` and `paper` stands alone: without warnings, without data."""
        out = tmp_path / "run"
        recipe = dataclasses.replace(RECIPES["small"], net="B", data="folder:/gone")
        prepare_run_folder(out, recipe)
        (out / "journal.jsonl").write_text('{"epoch": 1}\n')
        given = ("train", "--data", "folder:/gone", "--net", "B", "--out", out)
        advice = "to continue this run (or --resume RUN), or another folder (--out)."
        for more, differences in (
            ((), "(--recipe small -> --recipe paper). Give --recipe small"),
            (
                ("--seed", 7),
                "(--recipe small -> --recipe paper; seed: 0 -> 7). Give --recipe small and the "
                "other former values",
            ),
            (("--recipe", "small", "--seed", 7), "(seed: 0 -> 7). Give the former values"),
        ):
            result = invoke(*given, *more)
            line = f"Error: {out} holds a run of another recipe {differences} {advice}\n"
            assert (result.exit_code, result.output) == (1, line)


class TestConfig:
    def test_options_go_before_the_file_and_the_file_before_the_recipe(self, trained, tmp_path):
        file = tmp_path / "mine.json"
        file.write_text('{"epochs": 3, "net": "vgg16", "train_scale": [80, 90], "seed": 1}')
        out = tmp_path / "out"
        options = ("--recipe", "small", "--out", out, "--data", "shapes", "--seed", 2)
        assert invoke("train", "--config", file, *options).exit_code == 0
        changes = {"epochs": 3, "net": "D", "train_scale": (80, 90), "seed": 2, "data": "shapes"}
        assert trained == [(dataclasses.replace(RECIPES["small"], **changes), out)]

    @pytest.mark.parametrize("command", [("train",), ("localise", "train")], ids=" ".join)
    def test_a_recipe_that_was_printed_is_taken(self, command, trained, tmp_path):
        file = tmp_path / "recipe.json"
        file.write_text(invoke(*command[:-1], "recipe", "small", "--json").stdout)
        options = ("--config", file, "--data", "shapes", "--out", tmp_path)
        assert invoke(*command, *options).exit_code == 0
        recipes = RECIPES if command == ("train",) else LOCALISATION_RECIPES
        assert trained[0][0] == dataclasses.replace(recipes["small"], data="shapes")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"epoch": 3}', "unknown or missing: epoch"),
            ('{"regression": "per-class"}', "unknown or missing: regression"),
            ('{"epochs": "three"}', "Expected `int`, got `str`"),
            ('{"epochs": 0}', "epochs must be from 1"),
            ("epochs: 3", "Expecting value"),
            ("[]", "must hold fields of a recipe"),
        ],
    )
    def test_other_files_are_refused_by_name(self, text, message, trained, tmp_path):
        file = tmp_path / "mine.json"
        file.write_text(text)
        result = invoke("train", "--config", file, "--data", "shapes", "--out", tmp_path / "x")
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert str(file) in result.output
        assert message in result.output
        assert not trained


class TestRecipes:
    def test_a_recipe_is_printed_with_the_meaning_of_its_fields(self):
        lines = invoke("recipe", "small").stdout.splitlines()
        assert len(lines) > len(dataclasses.fields(Recipe))
        (scale,) = (line for line in lines if line.startswith("train_scale"))
        assert scale.split()[1:4] == ["73:146", "Smaller", "side"]
        assert json.loads(invoke("recipe", "small", "--json").stdout)["train_scale"] == [73, 146]

    def test_all_recipes_are_printed_side_by_side(self):
        heading, *lines = invoke("recipe").stdout.splitlines()
        assert heading.split() == ["field", *RECIPES]
        assert ["epochs", "74", "74", "74", "40", "10"] in [line.split() for line in lines]
        assert list(json.loads(invoke("localise", "recipe", "--json").stdout)) == list(
            LOCALISATION_RECIPES
        )

    def test_the_help_has_the_values_of_all_recipes(self):
        assert defaults_text("epochs", RECIPES) == "74; small: 40; fine-tune: 10"
        assert defaults_text("momentum", RECIPES) == "0.9"
        assert defaults_text("init_from", RECIPES) == ""
        text = " ".join(invoke("train", "--help").stdout.split())
        assert "included. [74; small: 40; fine-tune: 10]" in text
        assert "[D; small: A]" not in text
        assert "Net of Table 1. [D]" in " ".join(
            invoke("localise", "train", "--help").stdout.split()
        )


@pytest.mark.parametrize("command", ["train", "sweep", "localise train"])
def test_choices_of_a_recipe_are_listed(command):
    from vgg_keras.weights import PREPROCESSINGS

    assert tuple(PREPROCESSINGS) == PREPROCESSING_NAMES
    group = main.get_command(None, command.split()[0])
    found = group.get_command(None, "train") if command == "localise train" else group
    for option in found.params:
        if option.name in CHOICES:
            assert isinstance(option.type, click.Choice), option.name
            flag = option.opts[0]
            result = invoke(*command.split(), flag, "none", "--out", "x", "--data", "x")
            assert result.exit_code == 2, flag
            assert all(repr(choice) in result.output for choice in option.type.choices), flag


def test_a_fraction_needs_data_to_hold_it_out_of():
    result = invoke("train", "--val-fraction", 0.5, "--out", "x")
    assert result.exit_code == 2
    assert result.output.endswith("Error: --val-fraction goes with --data.\n")
