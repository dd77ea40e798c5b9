"""Carries out the steps of a plan with the functions that the commands call too."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from vgg_keras import runs
from vgg_keras.distribution import find_devices
from vgg_keras.errors import WriteError
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.evaluation.fusion import fuse
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.features.descriptors import extract_features
from vgg_keras.features.extractor import FeatureExtractor
from vgg_keras.features.svm import transfer
from vgg_keras.features.table import Features, stacked
from vgg_keras.localisation.answers import Dense
from vgg_keras.localisation.localise import centre_of_true_class, localise_together
from vgg_keras.localisation.task import LOCALISATION
from vgg_keras.net_files import read_recipe
from vgg_keras.pipelines.files import atomic_path, atomic_write
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.splits import Source
from vgg_keras.recipes import LocalisationRecipe, Recipe
from vgg_keras.reproduction.steps import (
    Evaluate,
    ExtractFeatures,
    Fuse,
    Localise,
    Step,
    Train,
    Transfer,
)
from vgg_keras.run_files import BAD_IMAGES, DATA, LAST_WEIGHTS, RECIPE, STATISTICS
from vgg_keras.trained import TrainedNet
from vgg_keras.training import train

CACHE = "cache"  # rows of all evaluations, so that no pass is computed twice
_SHARED = (STATISTICS, BAD_IMAGES, DATA)  # depend on the data and the task alone


@dataclasses.dataclass(frozen=True, eq=False)
class Executor:
    """Carries out steps in a folder.

    Attributes:
        out: folder of the plan.
        on_bad_image: "stop" or "skip", see `evaluate`.
        data_dir: see `open_source`.
        devices: see `find_devices`.
        callbacks: Keras callbacks of all trainings.
    """

    out: Path
    on_bad_image: str = "stop"
    data_dir: str | os.PathLike | None = None
    devices: int | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()

    @functools.cache  # noqa: B019  # an executor lives as long as its process
    def source(self, data: str, several_labels: bool) -> Source:
        """Opens data; `several_labels` is whether images may have several."""
        return open_source(data, self.data_dir, several_labels=several_labels)

    @functools.singledispatchmethod
    def carry_out(self, step: Step) -> None:
        """Makes the output of a step. An output that was begun is completed.

        Raises:
            UserError: the step failed.
        """
        raise NotImplementedError(step)

    @carry_out.register
    def _(self, step: Train) -> None:
        keras.backend.clear_session()
        path, recipe = self.out / step.output, step.recipe
        start = str(self.out / recipe.init_from) if recipe.init_from else ""
        recipe = _continued(path, dataclasses.replace(recipe, init_from=start))
        # Localisation only uses the images with boxes, so that its statistics may be others.
        has_boxes = isinstance(recipe, LocalisationRecipe)
        kind = "localisation" if has_boxes else "classification"
        shared = self.out / "shared" / kind / _folder_name(recipe.data)
        _share(recipe, shared, path)
        train(
            recipe,
            path,
            data_dir=self.data_dir,
            devices=self.devices,
            callbacks=self.callbacks,
            verbose=0,
            task=LOCALISATION if has_boxes else None,
            source=self.source(recipe.data, False),
        )
        for name in _SHARED:
            _copy_once(path / name, shared / name)

    @carry_out.register
    def _(self, step: Evaluate) -> None:
        (net,) = self._nets(step.run)
        found = evaluate(
            net,
            self.source(_data_of(net), False),
            protocol=step.protocol,
            multi_scale=step.multi_scale,
            on_bad_image=self.on_bad_image,
            cache_dir=self.out / CACHE,
            verbose=0,
        )
        found.save(self.out / step.output)

    @carry_out.register
    def _(self, step: Fuse) -> None:
        fuse([Predictions.load(self.out / file) for file in step.files]).save(
            self.out / step.output
        )

    @carry_out.register
    def _(self, step: Localise) -> None:
        runs = (*step.runs, *step.classifiers)
        nets = dict(zip(runs, self._nets(*runs), strict=True))
        source = self.source(_data_of(nets[runs[0]]), False)
        options: dict[str, Any] = {"on_bad_image": self.on_bad_image, "verbose": 0}
        if step.protocol == "dense":
            tests = [
                Dense.checked(
                    [nets[run] for run in test.runs],
                    [nets[run] for run in test.classifiers],
                    test.test_scales,
                )
                for test in step.tests
            ]
            found = localise_together(tests, source, cache_dir=self.out / CACHE, **options)
        else:
            found = [
                centre_of_true_class(nets[run], source, test_scale=scale, **options)
                for test in step.tests
                for run, (scale,) in zip(test.runs, test.test_scales, strict=True)
            ]
        for file, localised in zip(step.outputs, found, strict=True):
            localised.save(self.out / file)

    @carry_out.register
    def _(self, step: ExtractFeatures) -> None:
        (net,) = self._nets(step.run)
        found = extract_features(
            FeatureExtractor.of_net(net),
            self.source(step.data, True),
            test_scales=step.test_scales,
            aggregate=step.aggregate,
            on_bad_image=self.on_bad_image,
            cache_dir=self.out / CACHE,
            verbose=0,
        )
        found.save(self.out / step.output)

    @carry_out.register
    def _(self, step: Transfer) -> None:
        features = stacked([Features.load(self.out / file) for file in step.files])
        result = transfer(features, step.protocol)
        result["files"] = [str(self.out / file) for file in step.files]
        atomic_write(self.out / step.output, json.dumps(result) + "\n")

    def _nets(self, *folders: str) -> list[TrainedNet]:
        used = find_devices(self.devices)
        keras.backend.clear_session()
        with used.scope():
            return [TrainedNet.load(self.out / folder) for folder in folders]


def _data_of(net: TrainedNet) -> str:
    assert net.recipe is not None  # a run has one
    return net.recipe.data


def _continued(path: Path, recipe: Recipe) -> Recipe:
    """The recipe, or that of the run to continue if only the path of the start has changed.

    The folder of a plan may be moved. The weights to start from are only used once.
    """
    if (path / RECIPE).exists() and (path / LAST_WEIGHTS).exists():
        stored = read_recipe(path / RECIPE)
        if dataclasses.replace(stored, init_from=recipe.init_from) == recipe:
            return stored
    return recipe


def _share(recipe: Recipe, shared: Path, path: Path) -> None:
    """Gives a run what an earlier run on the same data has found in reading all images."""
    if not (path / LAST_WEIGHTS).exists() and (shared / STATISTICS).exists():
        with runs.lock_run(path):
            runs.prepare_run_folder(path, recipe)
            for name in _SHARED:
                _copy_once(shared / name, path / name)


def _copy_once(source: Path, target: Path) -> None:
    if source.exists() and not target.exists():
        try:
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
        except OSError as error:
            raise WriteError(f"{source} cannot be copied to {target}: {error}") from error


def _folder_name(data: str) -> str:
    """A name for a folder that tells data apart."""
    readable = "".join(c if c.isalnum() else "-" for c in data)[-60:]
    digest = hashlib.blake2b(data.encode("utf-8", "surrogateescape"), digest_size=4)
    return f"{readable}-{digest.hexdigest()}"
