"""Nets that compute features: a trained net up to one of its layers (Appendix B)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from vgg_keras.architecture import Architecture
from vgg_keras.errors import WeightsError
from vgg_keras.evaluation.posteriors import make_descriptor_fn
from vgg_keras.evaluation.procedure import CROP_OF_PAPER
from vgg_keras.facts import as_colour
from vgg_keras.forward import on_all_devices, scope_of
from vgg_keras.nets import FC_NAMES, STRIDE
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.trained import TrainedNet, digest_of
from vgg_keras.weights import Contents, read

PENULTIMATE = "fc2"  # §B: the net without its last layer


@dataclass(frozen=True, eq=False)
class FeatureExtractor:
    """A net up to a layer, whose activations are features.

    Attributes:
        model: Keras model from RGB images minus `mean`, float32 `(B, H, W, 3)`, to the map of the
            layer, `(B, h, w, D)`.
        mean: RGB mean, 0 to 255, to be subtracted from images.
        min_side: smallest side in pixels that an image must have.
        metadata: the net, the layer, and where the weights come from; can be written as JSON.

    Example:
        extractor = FeatureExtractor.load("vgg19.npz", layer="block3_pool")
        extract_features(extractor, open_source("folder:photos")).save("photos.parquet")
    """

    model: keras.Model
    mean: tuple[float, float, float]
    min_side: int
    metadata: dict[str, Any]
    _scorers: dict[bool, Callable[[tf.Tensor], tf.Tensor]] = field(default_factory=dict, repr=False)

    @classmethod
    def of_net(cls, net: TrainedNet, layer: str = PENULTIMATE) -> FeatureExtractor:
        """Makes an extractor from a trained net.

        Args:
            net: from `TrainedNet.load` or `TrainedNet.of_model`. The extractor of a net without a
                recipe has a copy of its weights; otherwise the variables are shared.
            layer: name of the layer, as in Keras Applications.

        Raises:
            ArgumentError: the net has no such layer.
        """
        model = _up_to(_with_default_options(net), layer)
        min_side = net.architecture.crop_size if layer in FC_NAMES else STRIDE
        metadata = {**net.metadata(), "layer": layer, "mean": list(net.mean)}
        return cls(model, net.mean, min_side, metadata)

    @classmethod
    def load(
        cls,
        where: str | os.PathLike,
        layer: str = PENULTIMATE,
        *,
        net: str | None = None,
        preprocessing: str | None = None,
        mean: Sequence[float] | None = None,
        precision: str | None = None,
        pool_rounding: str | None = None,
    ) -> FeatureExtractor:
        """Loads a run, a saved net, a weights file or a released net.

        Args:
            where: folder of a run or of a saved net, or a weights file or released net such as
                "imagenet:D" that `vgg_keras.weights.read` reads. A file needs only the layers up to
                `layer`.
            layer: name of the layer, as in Keras Applications.
            net, preprocessing, mean, precision, pool_rounding: see `TrainedNet.load`.

        Raises:
            RunError: the folder is no run and no saved net, or has no weights yet.
            WeightsError: the file cannot be read, or lacks a layer that is needed.
            ArgumentError: the net has no such layer, or an argument does not fit.
        """
        of_file = {"net": net, "preprocessing": preprocessing, "mean": mean}
        of_net = {"precision": precision, "pool_rounding": pool_rounding}
        if Path(where).is_dir():
            return cls.of_net(TrainedNet.load(where, **of_file, **of_net), layer)  # type: ignore[arg-type]  # a dictionary of several types
        return load_file(Path(where), layer, **of_file, **of_net)  # type: ignore[arg-type]  # as above

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the layers and the weights."""
        return digest_of(self.model)

    def scorer(self, flip: bool) -> Callable[[tf.Tensor], tf.Tensor]:
        """Makes a function from images to descriptors. One trace serves all image sizes.

        Args:
            flip: whether to average with the mirror images, which pass through the net in the same
                batch.

        Returns:
            A `tf.function` from float32 `(B, 1, H, W, 3)`, RGB in 0..255, to float32 `(B, D)`:
            activations averaged over positions and, with `flip`, over both flips.
        """
        if flip not in self._scorers:
            descriptor_fn = make_descriptor_fn(self.model, self.mean, flip)
            views_of_any_size = tf.TensorSpec((None, 1, None, None, 3), tf.float32)
            self._scorers[flip] = tf.function(
                lambda views: on_all_devices(self.model, lambda v: descriptor_fn(v[:, 0]), views),
                input_signature=[views_of_any_size],
                autograph=False,
            )
        return self._scorers[flip]


def _with_default_options(net: TrainedNet) -> keras.Model:
    """The model of a net; without a recipe, built anew with the default options of `vgg`.

    Options such as the initialisation do not change what a net computes, but they change its
    digest. With the default options a weights file, a saved net and a fitted model with the same
    weights have the same digest.
    """
    if net.recipe is not None:
        return net.model
    with scope_of(net.model):
        return net.in_precision(net.precision).model


def _up_to(model: keras.Model, layer: str) -> keras.Model:
    """The model up to a layer, which must give a map."""
    names = [one.name for one in model.layers]
    maps = [name for name in names if name.startswith("block") or name in FC_NAMES]
    check_choice("layer", layer, maps)
    return keras.Model(model.input, model.get_layer(layer).output, name=model.name)


def load_file(
    path: Path,
    layer: str,
    *,
    net: str | None,
    preprocessing: str | None,
    mean: Sequence[float] | None,
    precision: str | None,
    pool_rounding: str | None,
    subtracted: Sequence[float] | None = None,
) -> FeatureExtractor:
    """Loads a weights file.

    Args:
        subtracted: RGB mean that the net subtracts; by default that of the file.
        path, layer, net, preprocessing, mean, precision, pool_rounding: see
            `FeatureExtractor.load`.
    """
    layers, contents = read(
        path,
        net,
        partial=True,
        preprocessing=preprocessing,
        mean=subtracted,
        source_mean=None if mean is None else as_colour(mean),
    )
    subtracted = contents.preprocessing.mean if subtracted is None else as_colour(subtracted)
    # FC layers that are not needed may be missing from the file, and are built as small as can be.
    needs_fc = layer in FC_NAMES
    architecture = Architecture(
        contents.net,
        contents.num_classes if needs_fc else 1,
        contents.crop_size if needs_fc else STRIDE,
        contents.width,
        pool_rounding=pool_rounding or "down",
    )
    precision = precision or "float32"
    whole = architecture.build(precision=precision, classifier_activation=None, initialise=False)
    model = _up_to(whole, layer)
    needed = [one.name for one in model.layers if one.weights]
    _check_layers(path, layer, needed, contents)
    for name in needed:
        model.get_layer(name).set_weights(layers.pop(name))
    metadata = {
        "weights": str(path),
        "net": contents.net,
        "layer": layer,
        "crop_size": architecture.crop_size if needs_fc else CROP_OF_PAPER,
        "width": contents.width,
        "pool_rounding": architecture.pool_rounding,
        "precision": precision,
        "input": contents.input,
        "mean": list(subtracted),
    }
    if preprocessing is not None:
        metadata["preprocessing"] = preprocessing
    if mean is not None:
        metadata["source_mean"] = list(as_colour(mean))
    return FeatureExtractor(model, subtracted, architecture.crop_size, metadata)


def _check_layers(path: Path, layer: str, needed: Sequence[str], contents: Contents) -> None:
    """Raises WeightsError if a file lacks a layer that is needed up to `layer`."""
    missing = [name for name in needed if name not in contents.taken]
    if missing:
        raise WeightsError(
            f"{path} lacks {', '.join(missing)}, which the layer {layer} of net {contents.net} "
            f"needs. It has {', '.join(contents.taken)}: give the last of these, or the pooling "
            f"layer after it, as layer."
        )
