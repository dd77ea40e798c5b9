"""`TrainedNet`: a model together with the facts that are needed to use it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from vgg_keras.architecture import POSTERIORS, SCORES, Architecture
from vgg_keras.errors import ArgumentError
from vgg_keras.facts import NetFacts, as_colour, as_pair
from vgg_keras.net_files import load_model, load_weights_file, read_facts, write_net


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TrainedNet(NetFacts):
    """A model together with the facts that are needed to use it.

    `load` makes one from a run, a saved net or a weights file, `of_model` from a model in memory.
    `evaluate`, `predict`, `extract_features`, `localise`, `export` and `verify` take a
    `TrainedNet`.

    Attributes:
        model: Keras model from RGB images minus `mean`, float32 `(B, H, W, 3)`, to
            `(B, num_classes)`. `NetFacts` describes the other attributes.

    Example:
        net = TrainedNet.of_model(model, mean=colours.mean, class_names=names, train_scale=256)
        evaluate(net, data, protocol="dense").result()
    """

    model: keras.Model

    @classmethod
    def of_model(
        cls,
        model: keras.Model,
        *,
        mean: Sequence[float],
        class_names: Sequence[str] | None = None,
        train_scale: int | Sequence[int] | None = None,
        regression: str | None = None,
    ) -> TrainedNet:
        """Makes a net from a model that `vgg` made.

        The model may have been loaded, cloned or frozen, and may end in a soft-max or in logits.
        The net shares the variables of the model.

        Args:
            model: Keras model that `vgg` made.
            mean: RGB mean, 0 to 255, that was subtracted from the training images.
            class_names: names of the classes, in the order of the outputs; by default "0", "1", ...
            train_scale: S, or the pair (S_min, S_max). It decides the default test scales.
            regression: "per-class" or "single-class" if the outputs are boxes (§A.1).

        Raises:
            ArgumentError: the model was not made by `vgg`, or an argument does not fit it.
        """
        architecture = Architecture.of_model(model)
        if class_names is None:
            class_names = tuple(map(str, range(architecture.num_classes)))
        return cls(
            architecture=architecture,
            mean=as_colour(mean),
            class_names=tuple(class_names),
            train_scale=as_pair(train_scale),
            origin={"model": model.name},
            regression=regression,
            precision=model.get_layer("block1_conv1").dtype_policy.name,
            model=model,
        )

    @classmethod
    def load(
        cls,
        where: str | os.PathLike,
        *,
        net: str | None = None,
        class_names: Sequence[str] | None = None,
        head: str | None = None,
        preprocessing: str | None = None,
        mean: Sequence[float] | None = None,
        train_scale: int | Sequence[int] | None = None,
        precision: str | None = None,
        pool_rounding: str | None = None,
        classifier_activation: str | None = "softmax",
    ) -> TrainedNet:
        """Loads a run, a saved net, a weights file or a released net.

        Args:
            where: folder of a run (its best weights are loaded) or of a saved net, or a weights
                file or released net such as "imagenet:D" that `vgg_keras.weights.read` reads. The
                arguments from `net` to `train_scale` are only for these two.
            net, head, preprocessing: see `vgg_keras.weights.read`.
            class_names: names of the classes, in the order of the outputs; by default ILSVRC's for
                1,000 outputs (some of these names are enough), otherwise "0", "1", ...
            mean: RGB mean that was subtracted from the training images, and that the net subtracts;
                by default inferred from the file.
            train_scale: S or (S_min, S_max); by default of the release, else 256 * crop_size / 224.
            precision: Keras dtype policy; by default that of the folder, or float32.
            pool_rounding: see `vgg`; by default that of the saved net, else "down".
            classifier_activation: "softmax", or None for logits. A model of boxes has neither.

        Raises:
            RunError: the folder is no run and no saved net, or its weights are missing or damaged.
            WeightsError: the file cannot be read, or its FC layers are missing.
            ArgumentError: an argument does not fit.
        """
        of_file = {
            "net": net,
            "class_names": class_names,
            "head": head,
            "preprocessing": preprocessing,
            "mean": mean,
            "train_scale": train_scale,
        }
        given = {name: value for name, value in of_file.items() if value is not None}
        path, options = Path(where), {"precision": precision, "pool_rounding": pool_rounding}
        if not path.is_dir():
            facts, model = load_weights_file(
                path, given, classifier_activation, precision=precision, pool_rounding=pool_rounding
            )
        elif given:
            argument = next(iter(given))
            raise ArgumentError(
                f"{argument} goes with a weights file; a run or saved net has its own. "
                f"Received: {argument}={given[argument]!r} for {path}",
                argument,
            )
        else:
            facts = read_facts(path, **options)
            model = load_model(path, facts, classifier_activation)
        return cls(**vars(facts), model=model)

    def save(self, folder: str | os.PathLike) -> Path:
        """Saves the net in a folder, which `load` and the option `--run` of the commands take.

        The files are `best.weights.h5` and `net.json`. A saved net in the folder is replaced.

        Returns:
            The folder.

        Raises:
            RunError: the folder holds a run or something else.
            WriteError: the folder cannot be written.
        """
        write_net(Path(folder), self, self.logits)
        return Path(folder)

    @property
    def logits(self) -> keras.Model:
        """The model up to its class scores, before the soft-max."""
        scores = self.model.get_layer(SCORES).output
        return keras.Model(self.model.input, scores, name=self.architecture.net)

    @property
    def digest(self) -> str:
        """Hash of the layers and the weights as they are now, with or without a soft-max."""
        return digest_of(self.logits)

    def in_precision(self, policy: str) -> TrainedNet:
        """Copies the net into another Keras dtype policy. The variables are not shared.

        Args:
            policy: name of a Keras dtype policy. With "bfloat16" the variables are rounded too,
                except those of the last layer, whose scores stay float32.
        """
        activation = "softmax" if self.model.layers[-1].name == POSTERIORS else None
        model = self.architecture.build(
            precision=policy, classifier_activation=activation, initialise=False
        )
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(self.model.get_layer(layer.name).get_weights())
        return dataclasses.replace(self, model=model, precision=policy)

    def predict(self, images: Any, **options: Any) -> Any:
        """Computes posteriors for images without labels: `vgg_keras.predict` with this net.

        Example:
            net.predict("photo.jpg").top(5)
        """
        import vgg_keras  # the public function, which builds on this module

        return vgg_keras.predict(self, images, **options)


def digest_of(model: keras.Model) -> str:
    """Hash of a model's layers and weights; frozen layers do not change it."""
    layers = model.to_json().replace('"trainable": false', '"trainable": true')
    digest = hashlib.blake2b(layers.encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
