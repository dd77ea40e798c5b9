"""Features as a scikit-learn transformer."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from vgg_keras.errors import ArgumentError
from vgg_keras.evaluation.procedure import as_scales
from vgg_keras.features.descriptors import compute_descriptors, default_scales
from vgg_keras.features.extractor import PENULTIMATE, FeatureExtractor
from vgg_keras.features.procedure import check_procedure
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.trained import TrainedNet


class DeepFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Transforms image files to descriptors, for use in a `Pipeline` (§B).

    The input is one column of paths, where other transformers take rows of numbers: a sequence, a
    Series, a DataFrame of one column, or an array `(N,)` or `(N, 1)`. Nothing is learned: `fit`
    loads the net. A pickled estimator holds the path of the net, not its weights, and loads the
    net again.

    Args:
        net: path of a run, a saved net or a weights file; or a `TrainedNet`, with which the
            estimator can be cloned but not pickled.
        preprocessing: of the images that a weights file was trained on, see
            `vgg_keras.weights.read`.
        layer: name of the layer whose activations are the features.
        test_scales, aggregate, flip: see `compute_descriptors`.
        batch_size: see `RowFiller`.
        verbose: 0 for no progress; 1 or "auto" for a bar on a terminal and lines elsewhere.

    Attributes:
        n_features_in_: 1, the number of columns.
        feature_names_in_: name of the column; only if `fit` received a DataFrame.

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

    def fit(self, X: Any, y: Any = None) -> DeepFeatures:
        """Loads the net. The images are not read.

        Args:
            X: paths of images, see the class.
            y: ignored.

        Raises:
            RunError, WeightsError: the net cannot be loaded.
            ArgumentError: X is not one column of paths, the net has no such layer, or
                `preprocessing` is given without a weights file.
        """
        _column(X)
        extractor = self._extractor()
        scales = as_scales(self.test_scales) or default_scales(extractor)
        check_procedure(self.aggregate, scales)
        self.n_features_in_ = 1
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.asarray(X.columns, object)
        size = int(extractor.model.output_shape[-1])
        self._n_features_out = size * len(scales) if self.aggregate == "stack" else size
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Descriptors of image files, float32 `(len(X), D)`, L2-normalised.

        Args:
            X: paths of images, see the class.

        Raises:
            NotFittedError: `fit` was not called.
            SourceError, BadImageError: an image is missing or cannot be read.
            ArgumentError: X is not one column of paths.
            OutOfMemoryError: see `compute_descriptors`.
        """
        check_is_fitted(self)
        return compute_descriptors(
            self._extractor(),
            as_split(_column(X)),
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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = False  # but for a column
        tags.no_validation = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_n_features_out")

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


def _column(X: Any) -> list[Any]:
    """The elements of one column.

    Raises:
        ArgumentError: `X` is a single path, or has several columns.
    """
    if isinstance(X, str | bytes | os.PathLike):
        raise ArgumentError(f"X must be a column of paths, such as [path]. Received: {X!r}", "X")
    is_table = len(getattr(X, "shape", ())) == 2
    rows = list(np.asarray(X, object) if is_table else X)
    if not is_table and not any(isinstance(row, list | tuple) for row in rows):
        return rows
    wrong = next(
        (r for r in rows if not isinstance(r, list | tuple | np.ndarray) or len(r) != 1), None
    )
    if wrong is not None:
        raise ArgumentError(f"X must have one column, of paths. Received: {wrong!r:.80}", "X")
    return [row[0] for row in rows]
