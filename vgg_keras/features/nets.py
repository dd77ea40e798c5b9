"""Nets that describe pictures: a run or a weights file, cut at a layer (§B)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from vgg_keras.distribution import on_all_devices
from vgg_keras.evaluation.cache import digest_of
from vgg_keras.evaluation.passes import make_descriptor_fn
from vgg_keras.models import vgg
from vgg_keras.nets import FC_NAMES, STRIDE
from vgg_keras.pipelines.statistics import ILSVRC, Statistics
from vgg_keras.runs import Run, load_run
from vgg_keras.weights import WeightsError, read

PENULTIMATE = "fc2"  # §B: the net without its last layer


@dataclass(frozen=True, eq=False)
class FeatureExtractor:
    """A net up to a layer.

    Attributes:
        model: from float32 `(B, H, W, 3)`, RGB minus the mean, to the layer's map
            `(B, h, w, D)`.
        mean: RGB, to be subtracted.
        smallest: side that pictures must have at least, in pixels.
        about: which net and layer, and where its weights come from; can be written as JSON.
    """

    model: keras.Model
    mean: tuple[float, float, float]
    smallest: int
    metadata: dict[str, Any]
    _looks: dict[bool, Callable] = field(default_factory=dict, repr=False)

    def look(self, flip: bool) -> Callable[[tf.Tensor], tf.Tensor]:
        """A `tf.function` from float32 `(B, 1, H, W, 3)`, RGB in 0..255, to float32 `(B, D)`:
        activations averaged over places, and with the mirror image's. One trace for all sizes."""
        if flip not in self._looks:
            describe = make_descriptor_fn(self.model, self.mean, flip)
            views = tf.TensorSpec((None, 1, None, None, 3), tf.float32)
            self._looks[flip] = tf.function(
                lambda views: on_all_devices(self.model, lambda v: describe(v[:, 0]), views),
                input_signature=[views],
                autograph=False,
            )
        return self._looks[flip]

    @functools.cached_property
    def digest(self) -> str:
        """Of the layers and their weights."""
        return digest_of(self.model)

    @classmethod
    def of_run(
        cls,
        run: Run | str | os.PathLike,
        layer: str = PENULTIMATE,
        *,
        precision: str | None = None,
        pool_rounding: str = "down",
    ) -> FeatureExtractor:
        """From a run or its folder.

        Args:
            run: its folder, or what `load_run` gives, which has a precision and a rounding.
            layer: as Keras Applications names it.
            precision, pool_rounding: see `load_run`.

        Raises:
            RunError: the folder is no run.
            ValueError: the net has no such layer.
        """
        if not isinstance(run, Run):
            run = load_run(run, precision=precision, pool_rounding=pool_rounding)
        metadata = {
            "run": str(run.path),
            "net": run.recipe.net,
            "layer": layer,
            "crop_size": run.recipe.crop_size,
            "width": run.recipe.width,
            "train_scale": list(run.recipe.train_scale),
            "pool_rounding": run.pool_rounding,
            "precision": run.recipe.precision,
        }
        smallest = run.recipe.crop_size if layer in FC_NAMES else STRIDE
        return cls(_up_to(run.model, layer), run.statistics.mean, smallest, metadata)

    @classmethod
    def of_weights(
        cls,
        path: str | os.PathLike,
        net: str | None = None,
        layer: str = PENULTIMATE,
        *,
        preprocessing: str | None = None,
        statistics: Statistics | None = None,
        pool_rounding: str = "down",
    ) -> FeatureExtractor:
        """From a weights file, of which the layers up to `layer` are enough.

        Args:
            path: any kind of file that `vgg_keras.weights` reads.
            net: name of Table 1; by default the one whose layers the file has.
            layer: as Keras Applications names it.
            preprocessing, statistics: see `load_weights_file`.
            pool_rounding: see `vgg`.

        Raises:
            WeightsError: the file cannot be read, or lacks a layer that is needed.
            ValueError: the net has no such layer.
        """
        layers, contents = read(
            path,
            net,
            partial=True,
            preprocessing=preprocessing,
            mean=(statistics or ILSVRC).mean,
            source_mean=statistics.mean if statistics else None,
        )
        # Where the FC layers are not looked at they need not be there, nor take room.
        crop_size, outputs = STRIDE, 1
        if layer in FC_NAMES:
            crop_size, outputs = contents.crop_size, contents.num_classes
        whole = vgg(
            contents.net,
            outputs,
            crop_size,
            contents.width,
            pool_rounding=pool_rounding,
            classifier_activation=None,
        )
        model = _up_to(whole, layer)
        needed = [one.name for one in model.layers if one.weights]
        missing = [name for name in needed if name not in layers]
        if missing:
            raise WeightsError(
                f"{path} lacks {', '.join(missing)}, which the layer {layer} of net "
                f"{contents.net} needs. It has {', '.join(contents.taken)}: give the last of "
                f"these, or the pool after it, as --layer."
            )
        for name in needed:
            model.get_layer(name).set_weights(layers.pop(name))
        metadata = {
            "weights": str(Path(path)),
            "net": contents.net,
            "layer": layer,
            "crop_size": crop_size if layer in FC_NAMES else 224,
            "width": contents.width,
            "pool_rounding": pool_rounding,
            "precision": "float32",
        }
        given = {"preprocessing": preprocessing, "statistics": statistics and list(statistics.mean)}
        metadata |= {key: value for key, value in given.items() if value}
        return cls(model, (statistics or ILSVRC).mean, crop_size, metadata)


def _up_to(model: keras.Model, layer: str) -> keras.Model:
    """The net up to a layer, which must give a map."""
    names = [one.name for one in model.layers]
    maps = [name for name in names if name.startswith("block") or name in FC_NAMES]
    if layer not in maps:
        raise ValueError(
            f"layer must be one of net {model.name}'s: {', '.join(maps)}. Received: {layer!r}"
        )
    return keras.Model(model.input, model.get_layer(layer).output, name=model.name)
