"""Features as a scikit-learn transformer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from vgg_keras.features.descriptors import describe
from vgg_keras.features.nets import PENULTIMATE, FeatureExtractor
from vgg_keras.pipelines.sources.own import as_split


class DeepFeatures(TransformerMixin, BaseEstimator):
    """From paths of pictures to descriptors, for use in a `Pipeline` (§B).

    `Pipeline([("features", DeepFeatures(run="runs/d")), ("svm", LinearSVC(C=10))])` takes paths
    where other pipelines take rows of numbers. Nothing is learnt: `fit` loads the net. A copy that
    was pickled or cloned loads it again.

    Args:
        run: folder of a run; or else
        weights: a weights file.
        net: with `weights`: its net; by default told by its layers.
        preprocessing: with `weights`: see `vgg_keras.weights.read`.
        layer: whose activations.
        test_scales, aggregate, flip: see `describe`.
        batch_size: see `PassRunner`.
    """

    def __init__(
        self,
        run: str | os.PathLike | None = None,
        weights: str | os.PathLike | None = None,
        net: str | None = None,
        preprocessing: str | None = None,
        layer: str = PENULTIMATE,
        test_scales: Sequence[int] | None = None,
        aggregate: str = "mean",
        flip: bool = True,
        batch_size: int = 64,
    ):
        self.run = run
        self.weights = weights
        self.net = net
        self.preprocessing = preprocessing
        self.layer = layer
        self.test_scales = test_scales
        self.aggregate = aggregate
        self.flip = flip
        self.batch_size = batch_size

    def fit(self, X: Sequence[str | os.PathLike], y: Any = None) -> DeepFeatures:
        """Loads the net; the pictures are not looked at.

        Raises:
            ValueError: not either a run or weights, or one that cannot be loaded.
        """
        self._describer()
        self.is_fitted_ = True
        return self

    def transform(self, X: Sequence[str | os.PathLike]) -> np.ndarray:
        """Descriptors of picture files, float32 `(len(X), D)`, rows of length 1.

        Raises:
            NotFittedError: before `fit`.
            SourceError, BadImageError: a picture is missing or cannot be read.
            ValueError, MemoryError: see `describe`.
        """
        check_is_fitted(self)
        return describe(
            self._describer(),
            as_split(X),
            test_scales=self.test_scales,
            aggregate=self.aggregate,
            flip=self.flip,
            batch_size=self.batch_size,
        )

    def _describer(self) -> FeatureExtractor:
        loaded = self.__dict__.get("_loaded")
        wanted = self.run, self.weights, self.net, self.preprocessing, self.layer
        if loaded is None or loaded[0] != wanted:
            loaded = self._loaded = wanted, self._load()
        return loaded[1]

    def _load(self) -> FeatureExtractor:
        if self.run is not None and self.weights is None:
            return FeatureExtractor.of_run(self.run, self.layer)
        if self.weights is None or self.run is not None:
            raise ValueError(
                f"Give either run or weights. Received: run={self.run}, weights={self.weights}"
            )
        return FeatureExtractor.of_weights(
            self.weights, self.net, self.layer, preprocessing=self.preprocessing
        )

    def __getstate__(self):
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_loaded"}
