"""Very deep features for other data sets (Appendix B).

    features = extract_features(TrainedNet.load("runs/d"), open_source("folder:caltech"))
    features.save("caltech.parquet")
    transfer(features, "caltech101")["mean_class_recall"]

The names are loaded on first use, so that importing this package imports neither TensorFlow nor
scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "average_precision": ["class_recalls"],
        "descriptors": ["compute_descriptors", "extract_features"],
        "estimator": ["DeepFeatures"],
        "extractor": ["FeatureExtractor"],
        "protocols": ["TRANSFER_PROTOCOLS"],
        "similar": ["Neighbours", "nearest", "query_descriptors"],
        "svm": ["transfer"],
        "table": ["Features", "stacked"],
    },
)

if TYPE_CHECKING:  # the same names for type checkers and editors
    from vgg_keras.features.average_precision import class_recalls as class_recalls
    from vgg_keras.features.descriptors import compute_descriptors as compute_descriptors
    from vgg_keras.features.descriptors import extract_features as extract_features
    from vgg_keras.features.estimator import DeepFeatures as DeepFeatures
    from vgg_keras.features.extractor import FeatureExtractor as FeatureExtractor
    from vgg_keras.features.protocols import TRANSFER_PROTOCOLS as TRANSFER_PROTOCOLS
    from vgg_keras.features.similar import Neighbours as Neighbours
    from vgg_keras.features.similar import nearest as nearest
    from vgg_keras.features.similar import query_descriptors as query_descriptors
    from vgg_keras.features.svm import transfer as transfer
    from vgg_keras.features.table import Features as Features
    from vgg_keras.features.table import stacked as stacked
