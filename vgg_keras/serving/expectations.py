"""What the Keras net gives for some photos, one expectation a signature."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vgg_keras.evaluation.predict import predict
from vgg_keras.ilsvrc import label
from vgg_keras.localisation.dense import make_finder
from vgg_keras.localisation.merging import best_boxes
from vgg_keras.models import fully_convolutional
from vgg_keras.pipelines.images import decode, rescale
from vgg_keras.saved_models.records import CLASSIFY, Request, examples
from vgg_keras.saved_models.tensors import Tensors, image_inputs
from vgg_keras.serving.differences import (
    greatest,
    name_difference,
    posteriors_of,
    top_difference,
    value_difference,
)
from vgg_keras.serving.localise import Localisers
from vgg_keras.trained import TrainedNet


@dataclass(frozen=True, eq=False)
class Expectation:
    """A request, and how far a reply to it is from what the Keras net gives.

    Attributes:
        request: what is sent.
        description: of the request, for people.
        count: number of images in the request.
        difference: from the outputs of a reply to their greatest relative difference.
    """

    request: Request
    description: str
    count: int
    difference: Callable[[Tensors], float]


class Expectations:
    """What the Keras net gives for some photos; each method is for the signature of its name.

    Layers are called on the photos as they are: `Model.predict` would be compiled for each size.

    Args:
        net: in the precision of the export.
        metadata: of the export.
        photos: paths of JPEG or PNG files.
        verbose: see `predict`.
    """

    def __init__(
        self,
        net: TrainedNet,
        metadata: Mapping[str, Any],
        photos: Sequence[str],
        verbose: int | str = "auto",
    ):
        self.net = net
        self.photos = list(photos)
        self.verbose = verbose
        self.scales: Sequence[int] = metadata["test_scales"]
        self.flip: bool = metadata["flip"]
        self.map_average: str = metadata["map_average"]
        self.top: int = metadata["top"]
        self.mean = np.float32(metadata["mean"])
        self.files = [Path(photo).read_bytes() for photo in photos]
        self.decoded = [decode(file) for file in self.files]
        self.names = np.array([label(name) for name in net.class_names], object)

    def all(self, localisers: Localisers | None = None) -> list[Expectation]:
        """Those of all signatures; `images` has one for each photo."""
        found = [
            self.serving_default(),
            self.classify(),
            self.features(),
            *self.images(),
            self.crops(),
        ]
        return [*found, self.localise(localisers)] if localisers else found

    def serving_default(self) -> Expectation:
        def difference(found: Tensors) -> float:
            return max(
                top_difference(found["classes"], found["probabilities"], self.posteriors),
                name_difference(found["class_names"], self.names[found["classes"]]),
                name_difference(found["error"], ""),
            )

        return self._of_photos(Request("serving_default", image_inputs(self.files)), difference)

    def classify(self) -> Expectation:
        def difference(found: Tensors) -> float:
            named = posteriors_of(found["classes"], self.names, self.posteriors)
            return max(
                value_difference(found["scores"], greatest(self.posteriors, self.top)),
                value_difference(found["scores"], named),
            )

        return self._of_photos(Request("classify", examples(self.files), CLASSIFY), difference)

    def features(self) -> Expectation:
        descriptors = np.stack([self._descriptor(image) for image in self.decoded])

        def difference(found: Tensors) -> float:
            return max(
                value_difference(found["features"], descriptors),
                name_difference(found["error"], ""),
            )

        return self._of_photos(Request("features", image_inputs(self.files)), difference)

    def images(self) -> list[Expectation]:
        maps = fully_convolutional(self.net.model)
        posteriors = self.posteriors
        if len(self.scales) > 1:
            posteriors = self._predict(self.scales[:1])

        def of_image(image: np.ndarray, expected: np.ndarray) -> Expectation:
            score_map = maps(image - self.mean)["score_map"].numpy()

            def difference(found: Tensors) -> float:
                return max(
                    value_difference(found["score_map"], score_map),
                    value_difference(found["probabilities"][0], expected),
                )

            size = f"{image.shape[1]} x {image.shape[2]}"
            return Expectation(Request("images", {"images": image}), size, 1, difference)

        return [of_image(*both) for both in zip(self._rescaled, posteriors, strict=True)]

    def crops(self) -> Expectation:
        side = self.net.architecture.crop_size
        crops = np.concatenate([image[:, :side, :side] for image in self._rescaled])
        scores = self.net.logits(crops - self.mean).numpy()  # a map of one position

        def difference(found: Tensors) -> float:
            return max(
                value_difference(found["probabilities"], tf.nn.softmax(scores).numpy()),
                value_difference(found["score_map"], scores[:, None, None]),
            )

        size = f"{len(crops)} x {side} x {side}"
        return Expectation(Request("crops", {"crops": crops}), size, len(crops), difference)

    def localise(self, localisers: Localisers) -> Expectation:
        """The boxes for the classes of the reply, found and merged image by image."""
        finders = [(make_finder(n, [self.net], self.flip), q) for n, q in localisers.passes()]

        def boxes_in(image: tf.Tensor, classes: np.ndarray) -> np.ndarray:
            found = [find(rescale(image, q)[None], classes[None])[0] for find, q in finders]
            height, width = image.shape[:2]
            boxes = best_boxes(tf.concat(found, 1), localisers.threshold)
            return boxes.numpy() * [width, height, width, height]

        def difference(found: Tensors) -> float:
            pairs = zip(self.decoded, found["classes"], strict=True)
            boxes = np.stack([boxes_in(image, classes) for image, classes in pairs])
            return max(
                top_difference(found["classes"], found["probabilities"], self.posteriors),
                value_difference(found["boxes"], boxes),
                name_difference(found["error"], ""),
            )

        return self._of_photos(Request("localise", image_inputs(self.files)), difference)

    @functools.cached_property
    def posteriors(self) -> np.ndarray:
        """By the dense protocol of the export, float32 `(photos, classes)`."""
        return self._predict(self.scales)

    def _predict(self, scales: Sequence[int]) -> np.ndarray:
        return predict(
            self.net,
            self.photos,
            test_scales=scales,
            flip=self.flip,
            map_average=self.map_average,
            verbose=self.verbose,
        ).posteriors

    def _of_photos(self, request: Request, difference: Callable[[Tensors], float]) -> Expectation:
        count = len(self.photos)
        return Expectation(request, f"{count} photo{'s' * (count > 1)}", count, difference)

    @functools.cached_property
    def _rescaled(self) -> list[np.ndarray]:
        """Photos at the first test scale, float32 `(1, H, W, 3)` each."""
        return [rescale(image, self.scales[0])[None].numpy() for image in self.decoded]

    @functools.cached_property
    def _penultimate(self) -> keras.Model:
        model = self.net.model
        return keras.Model(model.input, model.get_layer("fc2").output)

    def _descriptor(self, image: tf.Tensor) -> np.ndarray:
        """§B from Keras's own layers, image by image; float32 `(D,)`, L2 norm 1."""
        parts = []
        for scale in self.scales:
            centred = rescale(image, scale)[None].numpy() - self.mean
            for view in (centred, centred[:, :, ::-1])[: 1 + self.flip]:
                activations = tf.cast(self._penultimate(view), tf.float32)
                parts.append(activations.numpy().mean((0, 1, 2)))
        descriptor = np.mean(parts, 0)
        return descriptor / max(np.linalg.norm(descriptor), 1e-6)
