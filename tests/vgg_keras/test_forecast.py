"""What `train` says before it begins: parameters, steps, memory, and days on a CPU."""

from __future__ import annotations

import dataclasses

import pytest

from vgg_keras import forecast as forecasts
from vgg_keras.forecast import Forecast, memory_of
from vgg_keras.recipes import RECIPES, LocalisationRecipe, Recipe

ILSVRC = 1_281_167


@pytest.mark.parametrize(
    ("batch_size", "gigabytes"), [(8, 2.6), (32, 7.1), (128, 25.0), (256, 49.0)]
)
def test_memory_is_that_of_the_table_in_the_docs(batch_size, gigabytes):
    recipe = Recipe(net="D", batch_size=batch_size)
    assert Forecast(recipe, 1000, ILSVRC, kind="GPU").memory / 1e9 == pytest.approx(
        gigabytes, abs=0.07
    )


def test_memory_depends_on_devices_precision_and_what_is_trained():
    def memory(devices=1, processes=1, kind="GPU", **fields):
        recipe = Recipe(net="D", **fields)
        return Forecast(recipe, 1000, ILSVRC, devices, processes, kind).memory

    weights = 8 * 138_357_544
    assert memory(devices=8) - weights == pytest.approx((memory() - weights) / 8)
    assert memory(precision="mixed_bfloat16") - weights == pytest.approx((memory() - weights) / 2)
    assert memory(trainable="fc") == pytest.approx(4 * 138_357_544 + 2 * 4 * 123_642_856)
    assert memory(batch_size=1) == pytest.approx(12 * 138_357_544)  # gradients, at the least
    # Virtual devices share the memory of the CPU; those of other processes have their own.
    assert memory(devices=4, kind="CPU") == pytest.approx(4 * memory(devices=4))
    assert memory(4, 4, "CPU") == memory(devices=4)


def test_the_line_says_what_will_be_done():
    recipe = Recipe(net="D", precision="mixed_bfloat16")
    assert Forecast(recipe, 1000, ILSVRC, devices=8, kind="GPU").line() == (
        "net D, 1,000 classes, 138,357,544 parameters; 1,281,167 images, 5,004 steps an epoch, 74 "
        "epochs at most; 8 GPUs, mixed_bfloat16; about 4.1 GB of memory for each"
    )
    boxes = LocalisationRecipe(crop_size=32, width=1 / 64, train_scale=(32, 32), epochs=1)
    line = Forecast(dataclasses.replace(boxes, batch_size=4), 1, 4).line()
    assert "1 class, " in line
    assert "4 images, 1 step an epoch, 1 epoch at most; 1 CPU" in line


def test_a_machine_that_cannot_is_warned_of(monkeypatch):
    monkeypatch.setattr(forecasts, "cpu_cores", lambda: 2)
    paper = Forecast(Recipe(net="D"), 1000, ILSVRC)
    memory, days = paper.warnings(available=16 * 10**9)
    assert memory.startswith(
        "this training needs about 49.0 GB of memory, and the CPU has 16.0 GB: it will most likely"
    )
    assert "about 509 days on this CPU" in days
    assert "rough" in days
    assert list(paper.warnings(None)) == [days]
    assert list(dataclasses.replace(paper, kind="GPU").warnings(80 * 10**9)) == []
    small = dataclasses.replace(RECIPES["small"], data="shapes")
    assert list(Forecast(small, 10, 5000).warnings(16 * 10**9)) == []


def test_memory_of_a_device_may_be_unknown(monkeypatch):
    assert memory_of("CPU") > 10**8
    assert memory_of("TPU") is None
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    assert memory_of("GPU") is None


def test_memory_of_a_container_is_its_limit(monkeypatch, tmp_path):
    real = forecasts.Path
    monkeypatch.setattr(forecasts, "Path", lambda _, name: real(tmp_path, name))
    free = memory_of("CPU")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_of("CPU") == free
    (tmp_path / "memory.max").write_text("4096\n")
    assert memory_of("CPU") == 4096
