"""The protocols of §B as data; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

C_GRID = (0.1, 1.0, 10.0, 100.0)
SELECTION_SHARE = 0.2  # §B: of the training images, for hyper-parameter selection

MEAN_AP, MEAN_CLASS_RECALL = "mean_ap", "mean_class_recall"


@dataclass(frozen=True)
class Protocol:
    """How features are judged.

    Attributes:
        measure: MEAN_AP, of one classifier a class, each picture in any number of classes; or
            MEAN_CLASS_RECALL, each picture in one.
        rule: of AP, see `average_precision`.
        train, validation, test: names of splits. The validation part chooses C and is then
            trained on too; where there is none, a share of the training part does.
            Without `train`, splits are drawn at random from all pictures.
        splits: how many random splits.
        train_per_class: pictures a class to train on.
        test_per_class: pictures a class to test on, at most; None for the rest.
        unscored: classes that are distractors and have no AP.
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


PROTOCOLS: dict[str, Protocol] = {
    "voc2007": Protocol(MEAN_AP, "11-point", ("train",), ("val",), ("test",)),
    # The labels of the test sets of 2012 are not public: val takes their place.
    "voc2012": Protocol(MEAN_AP, "area", ("train",), test=("val",)),
    "voc2012-action": Protocol(MEAN_AP, "area", ("train",), test=("val",), unscored=("other",)),
    "caltech101": Protocol(MEAN_CLASS_RECALL, splits=3, train_per_class=30, test_per_class=50),
    "caltech256": Protocol(MEAN_CLASS_RECALL, splits=3, train_per_class=60),
}
CUSTOM = "custom"  # follows from the features: what splits they have, and one label or several


def custom_protocol(splits: set[str], one_label: bool) -> Protocol:
    """The protocol that fits features.

    Training on `train`, C by `val`, testing on `test`, where these are; without `test` testing on
    `val`; without `train` three random splits of 30 pictures a class and the rest. Pictures of
    one label each have mean class recall, others mean AP by area.
    """
    measure, rule = (MEAN_CLASS_RECALL, "") if one_label else (MEAN_AP, "area")
    if {"train", "val", "test"} <= splits:
        return Protocol(measure, rule, ("train",), ("val",), ("test",))
    tested = tuple(sorted(splits - {"train"}))
    if "train" in splits and tested:
        return Protocol(measure, rule, ("train",), test=tested)
    return Protocol(measure, rule, splits=3, train_per_class=30)
