"""The same flag has the same meaning in every command; help, completion and `python -m`."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from vgg_keras.cli import main
from vgg_keras.commands.base import OTHER_NAMES
from vgg_keras.commands.options import Several
from vgg_keras.nets import NETS

# Flags whose values differ between commands, with the reason.
DIFFERENT_VALUES = {
    "--out": "what a command writes",
    "--format": "of a table, or of an export",
    "--protocol": "classification, localisation and transfer have their own",
    "--recipe": "classification and localisation have their own",
    "--precision": "a policy of Keras, or the dtype of an export",
    "--statistics": "training may compute them, testing reads them from a file",
    "--batch-size": "of a recipe, which checks it itself, or of a command",
    "--boxes": "of a recipe, where it is text",
    "--submission": "a file for ILSVRC, or a folder for VOC",
    "--version": "of the program, or of an export",
}
# Options that are repeated although they are no paths: they go with each of several paths.
WITH_PATHS = {"--net", "--test-scales", "--localiser-scales"}
PATHS = {"--transfer-data"}  # after the name of a protocol


def commands(group=main, path=()):
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


OPTIONS = [
    (name, option)
    for name, command in [("", main), *commands()]
    for option in command.params
    if isinstance(option, click.Option) and option.opts[0].startswith("--")
]


def kind(option: click.Option) -> tuple:
    """What values an option takes."""
    choices = tuple(getattr(option.type, "choices", ()))
    return type(option.type), choices, getattr(option.type, "name", ""), option.is_flag


def test_a_flag_takes_the_same_values_everywhere():
    kinds = defaultdict(lambda: defaultdict(list))
    for name, option in OPTIONS:
        kinds[option.opts[0]][kind(option)].append(name)
    different = {flag: dict(found) for flag, found in kinds.items() if len(found) > 1}
    assert different.keys() == DIFFERENT_VALUES.keys(), different
    assert len(kinds) > 90


def test_lists_have_commas_and_only_paths_are_repeated():
    for name, option in OPTIONS:
        if (
            option.multiple
            and not isinstance(option.type, click.Path)
            and option.opts[0] not in PATHS
        ):
            assert option.opts[0] in WITH_PATHS, (name, option.opts)
            (command,) = (c for n, c in commands() if n == name)
            paths = [o for o in command.params if isinstance(o.type, click.Path) and o.multiple]
            assert paths, name
        if isinstance(option.type, Several):
            assert option.metavar.endswith(",..."), (name, option.opts)


def test_values_of_which_there_are_a_few_are_choices():
    for name, option in OPTIONS:
        assert "|" not in (option.metavar or "").replace("S|S_MIN:S_MAX", "").replace(
            "HOST:PORT|auto", ""
        ), (name, option.opts)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--verbose", "describe", "--width", "0"),
        ("describe", "--width", "0", "--verbose"),
        ("localise", "evaluate", "--verbose", "--run", "x", "--data", "x"),
        ("localise", "--verbose", "evaluate", "--run", "x", "--data", "x"),
    ],
    ids=" ".join,
)
def test_verbose_is_taken_before_and_after_the_command(arguments):
    """An error has its traceback then."""
    quiet = [argument for argument in arguments if argument != "--verbose"]
    assert CliRunner().invoke(main, quiet).output.startswith("Error: ")
    assert type(CliRunner().invoke(main, arguments).exception).__name__ == "ArgumentError"


class TestOtherNames:
    """Flags of other projects."""

    def test_each_leads_to_a_flag(self):
        assert OTHER_NAMES.keys() <= {option.opts[0] for _, option in OPTIONS}
        assert all(
            other.startswith("--") and other != flag
            for flag, others in OTHER_NAMES.items()
            for other in others.split()
        )

    @pytest.mark.parametrize(
        ("arguments", "meant"),
        [
            (("train", "--val-split", "0.1"), "--val-fraction"),
            (("train", "--validation-split=0.1"), "--val-fraction"),
            (("localise", "train", "--lr", "0.1"), "--learning-rate"),
            (("evaluate", "--model", "x"), "--net or --run or --weights"),
            (("predict", "--img-size", "64"), "--test-scales"),
            (("train", "--momentm", "3"), "--momentum"),  # click's own
        ],
        ids=" ".join,
    )
    def test_the_flag_that_is_meant_is_named(self, arguments, meant):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        words = result.output.replace("'", "").rstrip().removesuffix("?")
        assert words.endswith(f"Did you mean {meant}")

    def test_what_no_other_project_has_is_refused_as_before(self):
        result = CliRunner().invoke(main, ["train", "--xyz"])
        assert result.exit_code == 2
        assert "Did you mean" not in result.output


def test_the_list_of_commands_has_whole_sentences():
    text = " ".join(CliRunner().invoke(main, ["--help"]).stdout.split("Commands:")[1].split())
    assert "..." not in text
    assert "exit code 1 if one differs by too much" in text
    assert "(JPEG, PNG, GIF or BMP files)" in text


def test_the_package_is_a_command():
    code = "import sys; sys.argv[1:] = ['--version']; import runpy; runpy.run_module('vgg_keras')"
    command = [sys.executable, "-c", code.replace("'vgg_keras')", "'vgg_keras', None, '__main__')")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "version" in done.stdout


@pytest.mark.parametrize(
    ("typed", "incomplete", "expected"),
    [
        ("train --net", "", {*NETS, "vgg11", "vgg13", "vgg16", "vgg19"}),
        ("train --net", "A-", {"A-LRN"}),
        ("train --net", "vgg1", {"vgg11", "vgg13", "vgg16", "vgg19"}),
        ("sweep --nets", "A,B-", {"A,B-shallow"}),
        ("describe --nets", "A,D,E", {"A,D,E"}),
        ("train --recipe", "paper", {"paper", "paper-384", "paper-jitter"}),
        ("recipe", "s", {"small"}),
        ("evaluate --protocol", "multi", {"multi-crop", "multi-crop+dense"}),
        ("transfer --protocol", "voc2012", {"voc2012", "voc2012-action"}),
        ("localise evaluate --protocol", "c", {"centre-gt"}),
        ("evaluate --weights", "imagenet:D", {"imagenet:D", ""}),  # and files
        ("train --initialisation", "gl", {"glorot"}),
    ],
)
def test_shells_complete_names(typed, incomplete, expected):
    completed = ShellComplete(main, {}, "vgg-keras", "_VGG_KERAS_COMPLETE").get_completions(
        typed.split(), incomplete
    )
    found = {item.value for item in completed}
    if "" in expected:
        assert any(value.startswith(incomplete) for value in found)
    else:
        assert found == expected
