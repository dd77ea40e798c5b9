from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import encode
from tests.tiny import MEAN, lively
from tests.vgg_keras.test_nets import PARAMETERS
from vgg_keras import TrainedNet
from vgg_keras.cli import main
from vgg_keras.commands.errors import one_line_errors, with_flags
from vgg_keras.commands.images import check_images
from vgg_keras.commands.options import NetName, Several, TrainScale
from vgg_keras.errors import ArgumentError, RunError
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.metadata import rounded
from vgg_keras.pipelines.sources import open_source
from vgg_keras.recipes import RECIPES, Recipe
from vgg_keras.version import __version__


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_describe_prints_json():
    described = json.loads(invoke("describe", "--json").stdout)["results"]
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
    )["results"]
    assert (d["net"], d["crop_size"], d["layers"][-1]["outputs"]) == ("D", 64, 10)
    assert "receptive field" in invoke("describe", "--net", "D").stdout


def test_an_unknown_net_lists_the_known_ones():
    result = invoke("describe", "--net", "F")
    assert result.exit_code == 2
    assert "A, A-LRN, B, C, D, E, B-shallow" in result.output


def test_every_field_of_the_recipe_is_a_flag():
    text = invoke("train", "--help").stdout
    for field in dataclasses.fields(Recipe):
        assert f"--{field.name.replace('_', '-')}" in text


@pytest.mark.parametrize("name", RECIPES)
def test_flags_that_are_not_given_do_not_change_the_recipe(name, monkeypatch):
    import vgg_keras.training

    received = []
    monkeypatch.setattr(
        vgg_keras.training, "train", lambda recipe, out, **_: received.append(recipe)
    )
    command = ("train", "--recipe", name, "--out", "x", "--data", "folder:x")
    assert invoke(*command).exit_code == 0
    changes = {"data": "folder:x"}
    assert received == [dataclasses.replace(RECIPES[name], **changes)]
    flags = ("--train-scale", 300, "--no-flip", "--net", "vgg19", "--width", 0.5)
    assert invoke(*command, *flags).exit_code == 0
    changes |= {"train_scale": (300, 300), "flip": False, "net": "E", "width": 0.5}
    assert received[1] == dataclasses.replace(RECIPES[name], **changes)


def test_help_does_not_import_tensorflow():
    code = (
        "import sys; from click.testing import CliRunner; from vgg_keras.cli import main; "
        "done = [CliRunner().invoke(main, c) for c in (['describe', '--json'], ['--help'])]; "
        "assert not any(result.exit_code for result in done); "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def commands(group, path=()):
    """Yields the name and the command for all commands of a group and its subgroups."""
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize(("name", "command"), list(commands(main)), ids=str)
def test_every_command_and_option_has_a_help_text(name, command):
    assert command.help, name
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts


OPTIONS = [
    (f"{name} {option.opts[0]}", name.split(), option)
    for name, command in [("", main), *commands(main)]
    for option in command.params
    if isinstance(option, click.Option) and not option.is_eager
]


def test_every_option_that_takes_one_value_is_refused_if_it_is_given_twice():
    """Click takes the last value without a word."""
    assert len(OPTIONS) > 200
    for title, command, option in OPTIONS:
        once = [option.opts[0], *([] if option.is_flag else ["1"] * option.nargs)]
        again = [option.secondary_opts[0]] if option.secondary_opts else once
        result = invoke(*command, *once, *again, "--help")
        if option.multiple:
            assert result.exit_code == 0, title
        else:
            assert result.exit_code == 2, title
            assert f"Error: {option.opts[0]}" in result.output, title
            assert "must be given once" in result.output, title


def test_the_message_about_an_option_given_twice_says_how_to_give_several_values():
    scales = ("--test-scales", 64, "--test-scales", 80)
    result = invoke("predict", "x.jpg", *scales)
    assert result.output.endswith(
        "Error: --test-scales must be given once, with commas between values. Received: 2 times\n"
    )
    assert invoke("predict", "--help", "--help").exit_code == 0


def test_an_empty_path_is_not_the_current_folder():
    """As in `--out "$UNSET"`."""
    paths = [found for found in OPTIONS if isinstance(found[2].type, click.Path)]
    assert len(paths) > 30
    for title, command, option in paths:
        result = invoke(*command, option.opts[0], "")
        assert result.exit_code == 2, title
        assert "a path must not be empty" in result.output, title


@pytest.mark.parametrize("command", [("train",), ("localise", "train"), ("sweep",)], ids=" ".join)
def test_training_needs_data(command, tmp_path):
    result = invoke(*command, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "Missing option '--data'" in result.output
    assert not (tmp_path / "run").exists()


_TAKE_FOLDERS = {"predict", "features", "localise"}


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "--run", "."),
        ("features", "--run", ".", "--out", "f.npy"),
        ("localise", "predict", "--run", "."),
        ("similar", "--features", "f.npy"),
        ("request", "--url", "http://h/v1/models/m"),
        ("verify", "e/1"),
    ],
    ids=lambda command: command[0],
)
class TestImagePaths:
    """Every command that takes images says what is wrong with a path, before it loads a net."""

    def test_what_is_no_file_is_named(self, command, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("photos").mkdir()
        os.mkfifo("fifo")
        of_folder = {
            "photos": "Images must be given as files, those of a folder as photos/*. Received a "
            "folder: photos",
        }
        for path, message in {
            **({} if command[0] in _TAKE_FOLDERS else of_folder),
            "none.jpg": "There is no such file: none.jpg",
            "photos/*.jpg": "No file has a name of this form: photos/*.jpg",
            "fifo": "Images must be regular files. Received: fifo",
            "": "There is no such file: ''",
        }.items():
            result = invoke(*command, path)
            assert (result.exit_code, result.output) == (1, f"Error: {message}\n")


def test_text_is_not_taken_for_a_broken_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.full((60, 80, 3), 200, np.uint8)
    for kind in ("JPEG", "PNG", "GIF", "BMP"):
        Path(f"image.{kind}").write_bytes(encode(pixels, kind))
    Path("empty.jpg").touch()
    check_images([path.name for path in tmp_path.iterdir()])
    Path("run").mkdir()
    for text in ("a.jpg\nb.jpg\n", "<html>" + "é" * 400, "1"):
        Path("list.txt").write_text(text)
        result = invoke("predict", "--run", "run", "list.txt")
        assert result.exit_code == 1
        assert result.output == (
            "Error: Images must be JPEG, PNG, GIF or BMP files. Received: list.txt, which is text\n"
        )
        skipping = invoke("predict", "--run", "run", "list.txt", "--on-bad-image", "skip")
        assert "list.txt" not in skipping.output


def test_a_run_and_a_weights_file_are_not_confused_without_a_hint(tmp_path):
    (tmp_path / "w.npz").touch()
    result = invoke("predict", "x", "--run", tmp_path / "w.npz")
    assert "A weights file is given as --weights." in result.output
    result = invoke("predict", "x", "--weights", tmp_path)
    assert "A run or saved net is given as --run." in result.output


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ("--crop-size", 50),
                "--crop-size must be a positive multiple of 32 (five poolings of stride 2). "
                "Received: --crop-size 50",
            ),
            (("--width", 0), "--width must be above 0 and finite. Received: --width 0.0"),
        ],
    )
    def test_errors_are_one_line_that_begins_with_the_flag(self, arguments, message):
        result = invoke("describe", *arguments, "--json")
        assert (result.exit_code, result.output) == (1, f"Error: {message}\n")

    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (
                ArgumentError("A test scale must be at least 224. Received: 64", "test_scales"),
                "--test-scales: A test scale must be at least 224. Received: 64",
            ),
            (ArgumentError("out must be empty.", "out"), "--out must be empty."),
            (
                ArgumentError("The folder is taken.", "folder"),
                "--out: The folder is taken.",
            ),
            (
                ArgumentError("A classification net is needed.", "net"),
                "--run: A classification net is needed.",
            ),
            (ArgumentError("boxes must be given.", "boxes"), "boxes must be given."),
            (
                RunError("a is taken. Give another folder."),
                "a is taken. Give another folder (--out).",
            ),
            (RunError("The data differ; set cache_dir."), "The data differ; set --cache-dir."),
            (FileNotFoundError(2, "No such file", "a/b"), "a/b: No such file"),
            (OSError(28, "No space left on device"), "No space left on device"),
        ],
    )
    def test_errors_name_the_flags_of_the_command(self, error, line):
        result = raising(error)
        assert (result.exit_code, result.output) == (1, f"Error: {line}\n")

    @pytest.mark.parametrize(
        "error", [ValueError("a bug"), OSError("a bug"), ImportError("a bug"), KeyError("a bug")]
    )
    def test_a_bug_has_a_traceback(self, error):
        assert raising(error).exception is error

    def test_every_error_has_a_traceback_if_verbose(self):
        error = ArgumentError("out must be empty.", "out")
        assert raising(error, verbose=True).exception is error

    def test_an_interrupt_exits_with_code_130(self):
        result = raising(KeyboardInterrupt())
        assert result.exit_code == 130
        assert result.output.startswith("Interrupted.")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('on_bad_image="skip" ignores it', "--on-bad-image skip ignores it"),
            ("with cache_dir, or cache_dir=None.", "with --cache-dir, or --cache-dir None."),
            ("Give another cache_dir.", "Give another --cache-dir."),
            ("Received: multi_scale=True", "Received: --multi-scale"),
            ("test_scales=(64, 32)", "--test-scales (64, 32)"),
            ("the data of /x/cache_dir/y and cache_dir.json", None),
            ("data of the net, or a data.csv", None),
            ("data='folder:a'", "--data folder:a"),
            ("batch_size_of and my_cache_dir, other=1", None),
            ('data="folder:my a?val=0.1".', "--data folder:my a --val-fraction 0.1."),
            ('data="folder:a?train=T&val=0.1"', "--data folder:a?train=T --val-fraction 0.1"),
            ("Received: 'folder:a?val=2'", None),
            ('Give RECIPES["paper-384"].', "Give --recipe paper-384."),
            ("Its splits: all.", "Its splits (--split): all."),
        ],
    )
    def test_arguments_become_flags(self, text, expected):
        names = ("on_bad_image", "cache_dir", "multi_scale", "test_scales", "data", "batch_size")
        names += ("val_fraction", "recipe", "split")
        flags = {name: "--" + name.replace("_", "-") for name in names}
        assert with_flags(text, flags) == (expected or text)


def raising(error, verbose=False):
    """Runs a command that raises."""

    @click.command()
    @click.option("--run")
    @click.option("--net")
    @click.option("--out")
    @click.option("--cache-dir")
    @click.option("--test-scales")
    def command(**_):
        with one_line_errors(verbose):
            raise error

    return CliRunner().invoke(command, [])


class TestOptions:
    def test_values_are_separated_by_commas(self):
        scales = Several(TrainScale()).convert("256,384, 256:512", None, None)
        assert scales == ((256, 256), (384, 384), (256, 512))
        assert Several(click.FLOAT).convert("0.25,1", None, None) == (0.25, 1)
        assert Several(NetName()).convert("A,vgg16", None, None) == ("A", "D")

    @pytest.mark.parametrize("text", ["x", "1,2,3", "", "1:x"])
    def test_a_bad_training_scale_is_refused(self, text):
        with pytest.raises(click.BadParameter, match="S_MIN:S_MAX"):
            TrainScale().convert(text, None, None)

    def test_center_is_an_alias_of_centre(self):
        (protocol,) = (p for p in main.commands["evaluate"].params if p.name == "protocol")
        assert protocol.type.convert("center", None, None) == "centre"
        assert protocol.type.convert("dense+multi-crop", None, None) == "multi-crop+dense"


class TestNets:
    """The options `--run` and `--weights` of a command."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "Give either --run or --weights. Received: neither; --weights imagenet:D is"),
            (
                ("--run", "r", "--weights", "w.npz"),
                "Give either --run or --weights. Received: both; take away --run r or --weights "
                "w.npz",
            ),
            (("--run", "r", "--statistics", "s.json"), "--statistics goes with --weights"),
            (("--run", "none"), "--run: There is no folder none."),
            (("--weights", "w", "--weights", "v", "--net", "D"), "--net once for each of the 2"),
            (("--weights", "w", "--statistics", "none.json"), "none.json"),
        ],
    )
    def test_options_that_exclude_each_other_are_refused(self, arguments, message):
        result = invoke("evaluate", "--data", "shapes", *arguments)
        assert (result.exit_code, result.output.count("\n")) == (1, 1), result.output
        assert message in result.output

    def test_a_saved_net_has_the_errors_of_the_net_in_memory(self, folder, tmp_path):
        names = ("blue", "green", "red")
        model = lively(num_classes=3, pool_rounding="up")
        net = TrainedNet.of_model(model, mean=MEAN, class_names=names, train_scale=(32, 40))
        net.save(tmp_path / "net")
        options = ("--run", tmp_path / "net", "--data", folder, "--protocol", "center")
        (printed,) = json.loads(invoke("evaluate", *options, "--json").stdout)["results"]
        expected = evaluate(net, open_source(folder), protocol="centre").result()
        for key in ("top1_error", "top5_error", "images", "protocol", "pool_rounding"):
            assert printed[key] == rounded(expected[key])
        measured = printed["provenance"]
        assert measured["version"] == __version__
        assert measured["command"].endswith(f"evaluate {shlex.join(map(str, options))} --json")
        assert measured["images_per_second"] == pytest.approx(12 / measured["seconds"], rel=0.1)
        assert measured.keys() - {"seconds", "images_per_second", "version", "command"} == {
            "commit",
            "date",
            "hardware",
        }
        assert printed["pool_rounding"] == "up"  # the setting of the saved net
        assert len(list((tmp_path / "net/evaluation").glob("*.npy"))) == 1
        line = invoke("evaluate", *options).stdout
        assert line == (
            f"net A, Q = 36, centre: top-1 error {expected['top1_error']:.2f} %, "
            f"top-5 error {expected['top5_error']:.2f} % of 12 images\n"
        )

    def test_all_runs_are_checked_before_the_first_is_scored(self, folder, tmp_path):
        """The first run could be scored, but it has no cache after the error."""
        for name, scale in (("a", (64, 64)), ("b", (32, 32))):
            net = TrainedNet.of_model(
                lively(num_classes=3),
                mean=MEAN,
                class_names=("blue", "green", "red"),
                train_scale=scale,
            )
            net.save(tmp_path / name)
        runs = ("--run", tmp_path / "a", "--run", tmp_path / "b", "--data", folder)
        result = invoke("evaluate", *runs, "--multi-scale")
        assert result.exit_code == 1
        assert result.output.startswith("Error: --test-scales must be given")
        assert not (tmp_path / "a/evaluation").exists()


def test_statistics_of_a_folder_are_printed_and_written(folder, tmp_path):
    result = invoke("statistics", "--data", folder, "--out", tmp_path / "s.json")
    assert json.loads(result.stdout)["images"] == 24
    assert json.loads((tmp_path / "s.json").read_text()) == json.loads(result.stdout)
