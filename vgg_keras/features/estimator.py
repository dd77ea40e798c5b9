"""Features as a scikit-learn transformer."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from vgg_keras.errors import ArgumentError
from vgg_keras.features.descriptors import compute_descriptors
from vgg_keras.features.extractor import PENULTIMATE, FeatureExtractor
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.trained import TrainedNet


class DeepFeatures(TransformerMixin, BaseEstimator):
    """Transforms image files to descriptors, for use in a `Pipeline` (§B).

    The input is a sequence of paths, where other transformers take rows of numbers. Nothing is
    learned: `fit` loads the net. A pickled estimator holds the path of the net, not its weights,
    and loads the net again.

    Args:
        net: path of a run, a saved net or a weights file; or a `TrainedNet`, with which the
            estimator can be cloned but not pickled.
        preprocessing: of the images that a weights file was trained on, see
            `vgg_keras.weights.read`.
        layer: name of the layer whose activations are the features.
        test_scales, aggregate, flip: see `compute_descriptors`.
        batch_size: see `RowFiller`.
        verbose: 0 for no progress; 1 or "auto" for a bar on a terminal and lines elsewhere.

    Example:
        machine = make_pipeline(DeepFeatures("runs/d"), LinearSVC(C=10))
        machine.fit(paths, labels).predict(["photo.jpg"])
    """

    def __init__(
        self,
        net: str | os.PathLike | TrainedNet,
        preprocessing: str | None = None,
        layer: str = PENULTIMATE,
        test_scales: int | Sequence[int] | None = None,
        aggregate: str = "mean",
        flip: bool = True,
        batch_size: int = 64,
        verbose: int | str = 0,
    ):
        self.net = net
        self.preprocessing = preprocessing
        self.layer = layer
        self.test_scales = test_scales
        self.aggregate = aggregate
        self.flip = flip
        self.batch_size = batch_size
        self.verbose = verbose

    def fit(self, X: Sequence[str | os.PathLike], y: Any = None) -> DeepFeatures:
        """Loads the net. The images are not read.

        Raises:
            RunError, WeightsError: the net cannot be loaded.
            ArgumentError: the net has no such layer, or `preprocessing` is given without a weights
                file.
        """
        self._extractor()
        self.is_fitted_ = True
        return self

    def transform(self, X: Sequence[str | os.PathLike]) -> np.ndarray:
        """Descriptors of image files, float32 `(len(X), D)`, L2-normalised.

        Raises:
            NotFittedError: `fit` was not called.
            SourceError, BadImageError: an image is missing or cannot be read.
            ArgumentError, OutOfMemoryError: see `compute_descriptors`.
        """
        check_is_fitted(self)
        return compute_descriptors(
            self._extractor(),
            as_split(list(X)),
            test_scales=self.test_scales,
            aggregate=self.aggregate,
            flip=self.flip,
            batch_size=self.batch_size,
            verbose=self.verbose,
        )

    def _extractor(self) -> FeatureExtractor:
        loaded = self.__dict__.get("_loaded")
        wanted = self.net, self.preprocessing, self.layer
        if loaded is None or loaded[0] != wanted:
            loaded = self._loaded = wanted, self._load()
        return loaded[1]

    def _load(self) -> FeatureExtractor:
        if not isinstance(self.net, TrainedNet):
            return FeatureExtractor.load(self.net, self.layer, preprocessing=self.preprocessing)
        if self.preprocessing is not None:
            raise ArgumentError(
                f"preprocessing goes with a weights file; a TrainedNet has been loaded. "
                f"Received: preprocessing={self.preprocessing!r}",
                "preprocessing",
            )
        return FeatureExtractor.of_net(self.net, self.layer)

    def __sklearn_clone__(self) -> DeepFeatures:
        # The net is shared: scikit-learn would copy its weights for every clone.
        return type(self)(**self.get_params(deep=False))

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self.net, TrainedNet):
            raise pickle.PicklingError(
                "DeepFeatures with a TrainedNet cannot be pickled. Save the net with "
                'net.save("FOLDER"), and give its path: DeepFeatures("FOLDER").'
            )
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_loaded"}
