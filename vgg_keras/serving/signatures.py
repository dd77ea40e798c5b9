"""The signatures that every export has, as functions on tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from vgg_keras.evaluation.posteriors import make_descriptor_fn, make_predict_fn
from vgg_keras.evaluation.procedure import Pass
from vgg_keras.pipelines.images import rescale
from vgg_keras.saved_models.export import Endpoint
from vgg_keras.saved_models.images import Limits, apply_by_size, images_of_examples, read_sizes
from vgg_keras.saved_models.records import CLASSIFY, EXAMPLE_FEATURE, examples
from vgg_keras.saved_models.tensors import image_inputs
from vgg_keras.trained import TrainedNet

_GROUP = 16  # crops, or as many pixels of whole images, that pass through the net together

Outputs = dict[str, tf.Tensor]


@dataclass(frozen=True, eq=False)
class Signatures:
    """The signatures that every export has, all with the variables of one net.

    Each method is the function of the signature of that name.

    Attributes:
        net: classification net.
        passes: of the dense protocol, see `Procedure.passes`; results are averaged over them.
        class_names: table from class indices, int64, to class names.
        top: number of classes that `serving_default` and `classify` name for an image.
        limits: which images are refused.
    """

    net: TrainedNet
    passes: Sequence[Pass]
    class_names: tf.lookup.StaticHashTable
    top: int
    limits: Limits

    def serving_default(self, image_bytes: tf.Tensor) -> Outputs:
        """The most probable classes of encoded images, string `(B,)`, by the dense protocol.

        Returns:
            `classes` int64 `(B, top)`, -1 for an image with an error, `class_names` string
            `(B, top)`, `probabilities` float32 `(B, top)` and `error` string `(B,)`, "" for an
            image without one.
        """
        posteriors, errors = self.posteriors(image_bytes)
        probabilities, classes = tf.math.top_k(posteriors, self.top)
        classes = tf.where(tf.equal(errors, "")[:, None], tf.cast(classes, tf.int64), -1)
        return {
            "classes": classes,
            "class_names": self.class_names.lookup(classes),
            "probabilities": probabilities,
            "error": errors,
        }

    def images(self, images: tf.Tensor) -> Outputs:
        """The class score map of images of one size, float32 `(B, H, W, 3)`, RGB in 0..255.

        Returns:
            `score_map` float32 `(B, h, w, classes)`, and `probabilities` float32 `(B, classes)`
            by the dense protocol at the scale that the images have.
        """
        rule = f"images must be (B, H, W, 3), B at least 1, H and W at least {self._crop_size}."
        return self._predict(self._predict_fn, images, tf.greater_equal, rule)

    def crops(self, images: tf.Tensor) -> Outputs:
        """The net itself on crops, float32 `(B, crop_size, crop_size, 3)`, RGB in 0..255.

        Returns:
            `score_map` float32 `(B, 1, 1, classes)` and `probabilities` float32 `(B, classes)`.
        """
        size = self._crop_size
        rule = f"crops must be (B, {size}, {size}, 3), B at least 1."
        return self._predict(self._predict_crops_fn, images, tf.equal, rule)

    def features(self, image_bytes: tf.Tensor) -> Outputs:
        """The descriptors of encoded images, string `(B,)`, from the layer fc2 (§B).

        Returns:
            `features` float32 `(B, D)`, L2-normalised, zeros for an image with an error, and
            `error` string `(B,)`.
        """
        width = self.net.model.get_layer("fc2").units
        descriptors, errors = self._mean_over_scales(self._descriptor_fn, width, image_bytes)
        return {"features": tf.math.l2_normalize(descriptors, -1), "error": errors}

    def classify(self, serialised: tf.Tensor) -> Outputs:
        """`serving_default` for serialised `tf.train.Example`s, string `(B,)`.

        Returns:
            `classes` string `(B, top)`, the names, and `scores` float32 `(B, top)`.
        """
        found = self.serving_default(images_of_examples(serialised, EXAMPLE_FEATURE))
        return {"classes": found["class_names"], "scores": found["probabilities"]}

    def posteriors(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Posteriors of encoded images, float32 `(B, classes)`, and errors, string `(B,)`."""
        classes = self.net.architecture.num_classes
        return self._mean_over_scales(
            lambda images: self._predict_fn(images)["posteriors"], classes, image_bytes
        )

    def endpoints(self) -> dict[str, Endpoint]:
        """The endpoints by signature name, each with an example to warm a server up with."""
        files = [self.example_file]
        image = self._example_image
        at_scale = {"images": rescale(image, self.test_scales[0])[None].numpy()}
        size = self._crop_size
        crop = {"crops": image[None, :size, :size].numpy()}
        names = [tf.TensorSpec((None,), tf.string, "image_bytes")]
        return {
            "serving_default": Endpoint(self.serving_default, names, image_inputs(files)),
            "images": Endpoint(self.images, pixels(None, "images"), at_scale),
            "crops": Endpoint(self.crops, pixels(size, "crops"), crop),
            "features": Endpoint(self.features, names, image_inputs(files)),
            "classify": Endpoint(
                self.classify,
                [tf.TensorSpec((None,), tf.string, "inputs")],
                examples(files),
                CLASSIFY,
            ),
        }

    @functools.cached_property
    def example_file(self) -> bytes:
        """A JPEG file to warm a server up with."""
        return tf.io.encode_jpeg(tf.cast(self._example_image, tf.uint8)).numpy()

    @property
    def test_scales(self) -> list[int]:
        """Q, one or more."""
        return [one.test_scale for one in self.passes]

    @property
    def flip(self) -> bool:
        """Whether results are averaged with those of the mirror images."""
        return self.passes[0].flip

    @property
    def map_average(self) -> str:
        """Either "scores" or "posteriors", see `Pass`."""
        return self.passes[0].map_average

    @property
    def group_pixels(self) -> int:
        """Number of pixels that pass through the net together."""
        return _GROUP * self._crop_size**2 // (1 + self.flip)

    @property
    def _crop_size(self) -> int:
        return self.net.architecture.crop_size

    @functools.cached_property
    def _example_image(self) -> tf.Tensor:
        """Colours that blend into each other, float32 `(H, W, 3)`."""
        side, aspect = self.test_scales[0], min(4 / 3, self.limits.aspect)
        coarse = tf.random.stateless_uniform((6, 8, 3), (0, 0), maxval=255.0)
        return tf.image.resize(coarse, (side, int(side * aspect)))

    @functools.cached_property
    def _predict_fn(self) -> Callable[[tf.Tensor], Outputs]:
        return make_predict_fn(self.net, flip=self.flip, map_average=self.map_average)

    @functools.cached_property
    def _predict_crops_fn(self) -> Callable[[tf.Tensor], Outputs]:
        return make_predict_fn(self.net, flip=False)

    @functools.cached_property
    def _descriptor_fn(self) -> Callable[[tf.Tensor], tf.Tensor]:
        model = self.net.model
        layer = keras.Model(model.input, model.get_layer("fc2").output)
        return make_descriptor_fn(layer, self.net.mean, self.flip)

    def _predict(
        self, predict_fn: Callable, images: tf.Tensor, compare: Callable, rule: str
    ) -> Outputs:
        """Score maps and posteriors of pixels, whose sides are compared with the crop size."""
        shape = tf.shape(images)
        sides_fit = tf.reduce_all(compare(shape[1:3], self._crop_size))
        fits = sides_fit & (shape[0] > 0) & tf.equal(shape[3], 3)
        check = tf.debugging.Assert(fits, [f"{rule} Received:", shape])
        with tf.control_dependencies([check]):  # it fails before the net does, with a clear message
            return score_outputs(predict_fn(tf.identity(images)))

    def _mean_over_scales(
        self, function: Callable[[tf.Tensor], tf.Tensor], outputs: int, image_bytes: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean of the results of a function over the test scales, and errors.

        Args:
            function: from float32 `(G, H, W, 3)`, RGB in 0..255, to float32 `(G, outputs)`.
            outputs: number of results for each image.
            image_bytes: encoded images, string `(B,)`.

        Returns:
            float32 `(B, outputs)`, zeros for an image with an error; errors, string `(B,)`.
        """
        sizes, errors = read_sizes(image_bytes, self.limits)
        results = []
        for scale in self.test_scales:
            result, errors = apply_by_size(
                lambda images, indices: function(images),
                image_bytes,
                sizes,
                errors,
                test_scale=scale,
                outputs=outputs,
                group_pixels=self.group_pixels,
            )
            results.append(result)
        return tf.reduce_mean(tf.stack(results), 0), errors


def score_outputs(found: Outputs) -> Outputs:
    """The outputs of `images` and `crops`, of what `make_predict_fn` computes."""
    return {"score_map": found["score_map"], "probabilities": found["posteriors"]}


def pixels(side: int | None, name: str) -> list[tf.TensorSpec]:
    """The input of `images`, or with a side that of `crops`."""
    return [tf.TensorSpec((None, side, side, 3), tf.float32, name)]
