"""Which features of a TFDS data set hold the image, the label and the boxes.

Features have no order: TFDS lists them differently in every process. So none is ever the first.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow_datasets as tfds

from vgg_keras.pipelines.errors import SourceError

_SEVERAL = "labels"  # TFDS's name for all classes of an image


def chosen_features(spec: str, query: str) -> dict[str, str]:
    """The features that a spec chooses, as in `?image=photo&label=breed`."""
    parts = query.split("&") if query else []
    chosen = {part.partition("=")[0]: part.partition("=")[2] for part in parts}
    if len(chosen) < len(parts) or set(chosen) - {"image", "label"}:
        raise SourceError(
            f"Features must be chosen as tfds:NAME?image=FEATURE&label=FEATURE. Received: {spec!r}"
        )
    return chosen


def image_and_label(
    spec: str, builder: tfds.core.DatasetBuilder, several_labels: bool, chosen: Mapping[str, str]
) -> tuple[str, str]:
    """Names of the features that hold the image and its label.

    The spec chooses them; else TFDS states them as supervised; else there is one of each.
    """
    features = dict(builder.info.features)
    candidates = {
        "image": [
            key
            for key, feature in features.items()
            if isinstance(feature, tfds.features.Image)
            and not isinstance(feature, tfds.features.LabeledImage)  # a segmentation
        ],
        "label": [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)],
    }
    stated = dict(zip(candidates, builder.info.supervised_keys or (), strict=False))
    if any(stated.get(role) not in candidates[role] for role in candidates):
        stated = {}
    if several_labels and _is_sequence_of_labels(features.get(_SEVERAL)):
        candidates["label"].append(_SEVERAL)
        stated["label"] = _SEVERAL
    if not all(candidates.values()):
        raise SourceError(
            f"{spec} has no single label an image, which classification needs. "
            f"Its features: {', '.join(sorted(features))}."
        )
    keys = {}
    for role, possible in candidates.items():
        default = stated.get(role, possible[0] if len(possible) == 1 else "no choice")
        keys[role] = chosen.get(role, default)
        if keys[role] not in possible:
            raise SourceError(
                f"{spec} must choose one of the features {', '.join(sorted(possible))} as "
                f"tfds:NAME?{role}=FEATURE. Received: {keys[role]}"
            )
    return keys["image"], keys["label"]


def find_box_features(
    features: tfds.features.FeaturesDict,
) -> list[tuple[str, str | None, bool]]:
    """For each feature with boxes: its name, name of the boxes in it, and whether it has labels."""
    found: list[tuple[str, str | None, bool]] = []
    for name, feature in features.items():
        inner = getattr(feature, "feature", None)
        if isinstance(feature, tfds.features.BBoxFeature):
            found.append((name, None, False))
        elif isinstance(inner, tfds.features.FeaturesDict):
            found += [
                (name, key, "label" in inner)
                for key, value in inner.items()
                if isinstance(value, tfds.features.BBoxFeature)
            ]
    return found


def _is_sequence_of_labels(feature: tfds.features.FeatureConnector | None) -> bool:
    return isinstance(getattr(feature, "feature", None), tfds.features.ClassLabel)
