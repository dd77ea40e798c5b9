"""The linear SVM protocols of Appendix B as data. This module imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

C_GRID = (0.1, 1.0, 10.0, 100.0)
SELECTION_SHARE = 0.2  # §B: share of the training images that selects hyper-parameters

MEAN_AP, MEAN_CLASS_RECALL = "mean_ap", "mean_class_recall"


@dataclass(frozen=True)
class Protocol:
    """How features are scored with linear SVMs.

    Attributes:
        measure: MEAN_AP, with one classifier for each class, for images of any number of classes;
            or MEAN_CLASS_RECALL, for images of one class each.
        rule: how AP is computed, see `average_precision`.
        train, validation, test: names of splits. The validation split selects C, and is then
            trained on too. If there is none, a share of the training images selects C. If `train`
            is empty, random splits are drawn from all images.
        splits: number of random splits.
        train_per_class: number of training images for each class.
        test_per_class: largest number of test images for each class; None for all that remain.
        unscored: classes that are distractors and have no AP.
        competition: VOC's name of the competition for methods that use other data than VOC's, as
            in the names of submission files; "" if there is none.
    """

    measure: str
    rule: str = ""
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    splits: int = 1
    train_per_class: int = 0
    test_per_class: int | None = None
    unscored: tuple[str, ...] = ()
    competition: str = ""


_CLASSIFICATION, ACTION = "comp2_cls", "comp10_action"

TRANSFER_PROTOCOLS: dict[str, Protocol] = {
    "voc2007": Protocol(
        MEAN_AP, "11-point", ("train",), ("val",), ("test",), competition=_CLASSIFICATION
    ),
    # The labels of the test sets of 2012 are not public, so val is tested on.
    "voc2012": Protocol(MEAN_AP, "area", ("train",), test=("val",), competition=_CLASSIFICATION),
    "voc2012-action": Protocol(
        MEAN_AP, "area", ("train",), test=("val",), unscored=("other",), competition=ACTION
    ),
    "caltech101": Protocol(MEAN_CLASS_RECALL, splits=3, train_per_class=30, test_per_class=50),
    "caltech256": Protocol(MEAN_CLASS_RECALL, splits=3, train_per_class=60),
}
"""The paper's protocols by data set: `TRANSFER_PROTOCOLS["caltech101"].train_per_class` is 30."""
CUSTOM = "custom"  # chosen from the splits of the features and from their number of labels


def custom_protocol(splits: set[str], one_label: bool) -> Protocol:
    """Chooses a protocol by the splits and the labels that features have.

    If the splits `train`, `val` and `test` exist, `val` selects C and `test` is for testing. If
    there are `train` and other splits, the others are for testing. Otherwise there are three random
    splits with 30 training images for each class; all other images are for testing.

    Args:
        splits: names of the splits that exist.
        one_label: whether every image has one label. The measure is then the mean class recall;
            otherwise it is the mean AP by area.
    """
    measure, rule = (MEAN_CLASS_RECALL, "") if one_label else (MEAN_AP, "area")
    if {"train", "val", "test"} <= splits:
        return Protocol(measure, rule, ("train",), ("val",), ("test",))
    tested = tuple(sorted(splits - {"train"}))
    if "train" in splits and tested:
        return Protocol(measure, rule, ("train",), test=tested)
    return Protocol(measure, rule, splits=3, train_per_class=30)
