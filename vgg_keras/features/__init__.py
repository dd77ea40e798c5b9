"""Very deep features for other data sets: Appendix B of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vgg_keras.features.estimator import DeepFeatures

__all__ = ["DeepFeatures"]


def __getattr__(name: str):
    if name == "DeepFeatures":  # scikit-learn and TensorFlow are loaded on first use
        from vgg_keras.features.estimator import DeepFeatures

        return DeepFeatures
    raise AttributeError(f"module 'vgg_keras.features' has no attribute {name!r}")
