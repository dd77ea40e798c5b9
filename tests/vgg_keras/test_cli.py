from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests.vgg_keras.test_nets import PARAMETERS
from vgg_keras.cli import main
from vgg_keras.recipes import RECIPES, Recipe


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_describe_json():
    described = json.loads(invoke("describe", "--json").stdout)
    assert {d["net"]: d["parameters"] for d in described} == PARAMETERS
    assert [d["weight_layers"] for d in described] == [11, 11, 13, 16, 16, 19]


def test_describe_draws_table_1():
    text = invoke("describe").stdout
    for piece in (
        "19 weight layers",
        "conv1-512",
        "LRN",
        "maxpool",
        "FC-4096",
        "soft-max",
        "138,357,544",
    ):
        assert piece in text


def test_describe_takes_aliases_and_sizes():
    (d,) = json.loads(
        invoke(
            "describe",
            "--net",
            "vgg16",
            "--num-classes",
            10,
            "--crop-size",
            64,
            "--width",
            0.25,
            "--json",
        ).stdout
    )
    assert (d["net"], d["crop_size"], d["layers"][-1]["outputs"]) == ("D", 64, 10)
    assert "receptive field" in invoke("describe", "--net", "D").stdout


def test_unknown_net_lists_those_there_are():
    result = invoke("describe", "--net", "F")
    assert result.exit_code == 2
    assert "A, A-LRN, B, C, D, E, B-shallow" in result.output


def test_every_field_of_the_recipe_is_a_flag():
    text = invoke("train", "--help").stdout
    for field in dataclasses.fields(Recipe):
        assert f"--{field.name.replace('_', '-')}" in text


@pytest.mark.parametrize("name", RECIPES)
def test_flags_not_given_leave_the_recipe_as_it_is(name, monkeypatch):
    import vgg_keras.training

    received = []
    monkeypatch.setattr(
        vgg_keras.training, "train", lambda recipe, out, **_: received.append(recipe)
    )
    assert invoke("train", "--recipe", name, "--out", "x").exit_code == 0
    assert received == [RECIPES[name]]
    flags = ("--train-scale", 300, "--no-flip", "--net", "vgg19", "--width", 0.5)
    assert invoke("train", "--recipe", name, "--out", "x", *flags).exit_code == 0
    changes = {"train_scale": (300, 300), "flip": False, "net": "E", "width": 0.5}
    assert received[1] == dataclasses.replace(RECIPES[name], **changes)


@pytest.mark.parametrize(
    "arguments",
    [("describe", "--crop-size", 50), ("describe", "--width", 0), ("describe", "--width", "inf")],
)
def test_bad_values_end_in_one_line(arguments):
    result = invoke(*arguments, "--json")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1


def test_help_imports_no_tensorflow():
    code = (
        "import sys; from click.testing import CliRunner; from vgg_keras.cli import main; "
        "done = [CliRunner().invoke(main, c) for c in (['describe', '--json'], ['--help'])]; "
        "assert not any(result.exit_code for result in done); "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_statistics_of_a_folder(folder, tmp_path):
    result = invoke("statistics", "--data", folder, "--out", tmp_path / "s.json")
    assert json.loads(result.stdout)["images"] == 24
    assert json.loads((tmp_path / "s.json").read_text()) == json.loads(result.stdout)
