"""A net as a SavedModel: the dense protocol from bytes to class names in one graph (§3.2)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from vgg_keras.evaluation.evaluate import plan
from vgg_keras.evaluation.passes import make_descriptor_fn, make_predict_fn
from vgg_keras.evaluation.predictions import TOP
from vgg_keras.ilsvrc import label
from vgg_keras.localisation.evaluate import scales_of
from vgg_keras.localisation.serving import Localisers, localise_signature
from vgg_keras.pipelines.images import rescale
from vgg_keras.recipes import SERVING_PRECISIONS
from vgg_keras.runs import Run, in_precision
from vgg_keras.saved_models.export import Endpoint, check_version, class_name_table, write_version
from vgg_keras.saved_models.images import Limits, apply_by_size, images_of_examples, read_sizes
from vgg_keras.saved_models.records import CLASSIFY, EXAMPLE_FEATURE, examples
from vgg_keras.saved_models.tensors import image_inputs
from vgg_keras.version import __version__

_GROUP = 16  # crops, or as many pixels of whole pictures, that go through the net at once


def export(
    run: Run,
    out: str | os.PathLike,
    *,
    version: int | None = None,
    top: int = TOP,
    precision: str = "float32",
    test_scales: Sequence[int] | None = None,
    multi_scale: bool = False,
    flip: bool | None = None,
    map_average: str = "scores",
    limits: Limits | None = None,
    localisers: Localisers | None = None,
    source: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a run as `out/VERSION/`, which TensorFlow Serving takes as it is.

    Signatures, all from the same variables: `serving_default`, `images`, `crops`, `features` and
    `classify`, and with localisation nets `localise`; docs/serving.md has their inputs and outputs.

    Args:
        run: from `load_run` or `load_weights_file`.
        out: folder that a server watches; its last part is the model's name.
        version: by default one more than the greatest that is there.
        top: classes to name for a picture.
        precision: "float32", or "bfloat16" for half the size: variables and computation, but for
            the scores.
        test_scales, multi_scale, flip, map_average: of the dense protocol, see `evaluate`.
        limits: which pictures to refuse; by default those of `Limits()`.
        localisers: localisation nets to take along.
        source: where the run came from, for `verify`; by default its path.

    Returns:
        The version's folder.

    Raises:
        ExportError: the version is there already.
        ValueError: another argument cannot be.
        OSError: the folder cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"SavedModels are written with KERAS_BACKEND=tensorflow, which reads the runs of all "
            f"backends. Received: {keras.backend.backend()}"
        )
    if precision not in SERVING_PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(SERVING_PRECISIONS)}. Received: {precision!r}"
        )
    if top < 1:
        raise ValueError(f"top must be 1 or more. Received: {top}")
    check_version(Path(out), version)
    passes = plan(run.recipe, "dense", test_scales, multi_scale, flip, map_average)
    procedure = {
        "test_scales": [one.test_scale for one in passes],
        "flip": passes[0].flip,
        "map_average": map_average,
    }
    limits = limits or Limits()
    if localisers:
        localisers.check(run)
        runs = [in_precision(one, precision) for one in localisers.runs]
        localisers = replace(localisers, runs=runs)
    run = in_precision(run, precision)
    with tempfile.TemporaryDirectory() as folder:
        table = class_name_table(Path(folder), [label(name) for name in run.class_names])
        top = min(top, len(run.class_names))
        return write_version(
            out,
            _endpoints(run, procedure, table, top, limits, localisers),
            version=version,
            resources=[table],
            metadata={
                "vgg_keras": __version__,
                "tensorflow": tf.__version__,
                "source": dict(source or _source(run)),
                "net": run.recipe.net,
                "crop_size": run.recipe.crop_size,
                "width": run.recipe.width,
                "train_scale": list(run.recipe.train_scale),
                **procedure,
                "pool_rounding": run.pool_rounding,
                "precision": precision,
                "mean": list(run.statistics.mean),
                "top": top,
                "limits": asdict(limits),
                **(_about_localisers(localisers) if localisers else {}),
                "class_names": list(run.class_names),
            },
        )


def _about_localisers(localisers: Localisers) -> dict[str, Any]:
    return {
        "localisers": [str(Path(run.path).absolute()) for run in localisers.runs],
        "localiser_scales": [list(q) for q in scales_of(localisers.runs, localisers.test_scales)],
        "merge_threshold": localisers.threshold,
    }


def _source(run: Run) -> dict[str, str]:
    path = Path(run.path).absolute()
    return {"weights" if path.is_file() else "run": str(path)}


def _endpoints(
    run: Run,
    procedure: Mapping[str, Any],
    table: tf.lookup.StaticHashTable,
    top: int,
    limits: Limits,
    localisers: Localisers | None,
) -> dict[str, Endpoint]:
    """The signatures of an export."""
    mean, crop_size = run.statistics.mean, run.recipe.crop_size
    scales, flip = procedure["test_scales"], procedure["flip"]
    look = make_predict_fn(run.model, mean, flip, procedure["map_average"])
    look_at_crops = make_predict_fn(run.model, mean, flip=False)

    def of_pictures(function: Callable, outputs: int, image_bytes: tf.Tensor):
        """Average over the scales, `(B, outputs)`, zeros where there is an error; errors."""
        sizes, errors = read_sizes(image_bytes, limits)
        results = []
        for scale in scales:
            result, errors = apply_by_size(
                lambda images, places: function(images),
                image_bytes,
                sizes,
                errors,
                test_scale=scale,
                outputs=outputs,
                group_pixels=_GROUP * crop_size**2 // (1 + flip),
            )
            results.append(result)
        return tf.reduce_mean(tf.stack(results), 0), errors

    def posteriors_of(image_bytes):
        return of_pictures(
            lambda images: look(images)["posteriors"], len(run.class_names), image_bytes
        )

    def most_probable(image_bytes):
        posteriors, errors = posteriors_of(image_bytes)
        probabilities, classes = tf.math.top_k(posteriors, top)
        classes = tf.where(tf.equal(errors, "")[:, None], tf.cast(classes, tf.int64), -1)
        return {
            "classes": classes,
            "class_names": table.lookup(classes),
            "probabilities": probabilities,
            "error": errors,
        }

    def of_pixels(function: Callable, are_right: Callable, rule: str):
        def signature(images):
            shape = tf.shape(images)
            sides_are_right = tf.reduce_all(are_right(shape[1:3], crop_size))
            is_right = sides_are_right & (shape[0] > 0) & tf.equal(shape[3], 3)
            told = tf.debugging.Assert(is_right, [f"{rule} Received:", shape])
            with tf.control_dependencies([told]):  # before the net fails in its own words
                found = function(tf.identity(images))
            return {"score_map": found["score_map"], "probabilities": found["posteriors"]}

        return signature

    penultimate = keras.Model(run.model.input, run.model.get_layer("fc2").output)
    describe = make_descriptor_fn(penultimate, mean, flip)

    def features(image_bytes):
        descriptors, errors = of_pictures(describe, run.model.get_layer("fc2").units, image_bytes)
        return {"features": tf.math.l2_normalize(descriptors, -1), "error": errors}

    def classify(serialised):
        found = most_probable(images_of_examples(serialised, EXAMPLE_FEATURE))
        return {"classes": found["class_names"], "scores": found["probabilities"]}

    def strings(name):
        return [tf.TensorSpec((None,), tf.string, name)]

    def pixels(side, name):
        return [tf.TensorSpec((None, side, side, 3), tf.float32, name)]

    dense = of_pixels(
        look,
        tf.greater_equal,
        f"images must be (B, H, W, 3), B at least 1, H and W at least {crop_size}.",
    )
    alone = of_pixels(
        look_at_crops,
        tf.equal,
        f"crops must be (B, {crop_size}, {crop_size}, 3), B at least 1.",
    )
    picture = _drawn_picture(scales[0], min(4 / 3, limits.aspect))
    pictures = [tf.io.encode_jpeg(tf.cast(picture, tf.uint8)).numpy()]
    whole = {"images": rescale(picture, scales[0])[None].numpy()}
    crops = {"crops": picture[None, :crop_size, :crop_size].numpy()}
    endpoints = {
        "serving_default": Endpoint(most_probable, strings("image_bytes"), image_inputs(pictures)),
        "images": Endpoint(dense, pixels(None, "images"), whole),
        "crops": Endpoint(alone, pixels(crop_size, "crops"), crops),
        "features": Endpoint(features, strings("image_bytes"), image_inputs(pictures)),
        "classify": Endpoint(classify, strings("inputs"), examples(pictures), CLASSIFY),
    }
    if localisers:
        localise = localise_signature(
            localisers,
            run,
            posteriors_of,
            table.lookup,
            flip=flip,
            limits=limits,
            group_pixels=_GROUP * crop_size**2 // (1 + flip),
        )
        endpoints["localise"] = Endpoint(localise, strings("image_bytes"), image_inputs(pictures))
    return endpoints


def _drawn_picture(side: int, aspect: float) -> tf.Tensor:
    """A picture to warm up with: colours that run into each other, float32 `(side, W, 3)`."""
    coarse = tf.random.stateless_uniform((6, 8, 3), (0, 0), maxval=255.0)
    return tf.image.resize(coarse, (side, int(side * aspect)))
