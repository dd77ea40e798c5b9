"""Training recipes as data: the paper's chain (§3.1), and one for small images.

A recipe is everything that decides the weights of a run. The flags of `vgg-keras train` are
made from its fields.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from vgg_keras.nets import check_geometry, get_net

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SERVING_PRECISIONS = ("float32", "bfloat16")
INIT_LAYERS = ("warm-start", "all", "matching")
BAD_IMAGE_POLICIES = ("stop", "skip")
REGRESSIONS = ("per-class", "single-class")
TUNED = ("all", "fc")


def num_outputs(num_classes: int, regression: str | None = None) -> int:
    """Units of the last layer: one for each class; or 4 for a box, of each class or of all."""
    if regression is None:
        return num_classes
    return 4 * num_classes if regression == "per-class" else 4


def _say(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """How a net is trained. Defaults are the paper's for single-scale training at S = 256."""

    net: str = _say("A", "Net of Table 1.")
    data: str = _say(
        "shapes", "Training data: shapes, folder:DIR, tfds:NAME[/CONFIG] or cls-loc:DIR."
    )
    crop_size: int = _say(224, "Side of the training crops in pixels, a multiple of 32.")
    width: float = _say(1.0, "Scales the channels of all hidden layers.")
    train_scale: tuple[int, int] = _say((256, 256), "S, or S_MIN,S_MAX to draw it per image.")
    epochs: int = _say(74, "Epochs at most.")
    batch_size: int = _say(256, "Images a step, over all devices.")
    learning_rate: float = _say(1e-2, "Initial learning rate.")
    momentum: float = _say(0.9, "Momentum.")
    weight_decay: float = _say(5e-4, "Lambda of Caffe: lambda * w is added to the gradient.")
    dropout: float = _say(0.5, "Dropout rate on both hidden FC layers.")
    initialisation: str = _say("gaussian", "gaussian (sd 0.01), gaussian-0.1 or glorot.")
    lrn: str = _say("krizhevsky", "LRN constants of A-LRN: krizhevsky or caffe.")
    init_from: str = _say(
        "", "Run folder or file of weights, of any kind that `convert` reads, to start from."
    )
    init_layers: str = _say(
        "warm-start",
        "Layers to take: warm-start (four conv. and the FC layers, §3.1), all, or matching: those "
        "that both have in one shape.",
    )
    plateau_patience: int = _say(5, "Epochs without better validation accuracy before a drop.")
    plateau_factor: float = _say(10.0, "What the rate is divided by.")
    plateau_drops: int = _say(3, "Drops before training ends.")
    flip: bool = _say(True, "Mirror half of the crops.")
    colour_shift: float = _say(0.1, "Standard deviation of the PCA colour shift; 0 for none.")
    statistics: str = _say("ilsvrc", "Mean and colours: ilsvrc, training-set or a JSON file.")
    precision: str = _say("float32", f"Keras dtype policy: {', '.join(PRECISIONS)}.")
    on_bad_image: str = _say("stop", "What to do with an unreadable image: stop or skip.")
    seed: int = _say(0, "Seed of everything random.")

    def __post_init__(self):
        get_net(self.net)
        check_geometry(self.crop_size, self.width, 1)
        scale = self.train_scale
        pair = (scale, scale) if isinstance(scale, int) else tuple(scale)
        object.__setattr__(self, "train_scale", pair)
        if len(pair) != 2 or not self.crop_size <= pair[0] <= pair[1]:
            raise ValueError(
                f"train_scale must be S, or S_MIN,S_MAX with S_MIN <= S_MAX, at least the crop "
                f"size, {self.crop_size}. Received: {','.join(map(str, pair))}"
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name, choices[0]) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}. Received: {getattr(self, name)!r}"
                )
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"{name} must be from {low} to {high}. Received: {getattr(self, name)}"
                )

    @property
    def regression_kind(self) -> str | None:
        """Kind of box regression, or None for a net that classifies."""
        return getattr(self, "regression", None)

    def outputs(self, num_classes: int) -> int:
        """Units of the last layer."""
        return num_outputs(num_classes, self.regression_kind)

    @property
    def validation_scale(self) -> int:
        """Q of validation: S, or the middle of its range (§4.1)."""
        return sum(self.train_scale) // 2

    def to_json(self) -> str:
        """As an object of its fields."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Reads what `to_json` gave.

        Raises:
            ValueError: fields are unknown or their values not allowed.
        """
        try:
            fields = json.loads(text)
            return (LocalisationRecipe if "regression" in fields else cls)(**fields)
        except TypeError as error:
            raise ValueError(f"not a recipe: {error}") from error

    def differences(self, other: Recipe) -> list[str]:
        """A line for each field in which `other` differs."""
        return [
            f"{f.name}: {getattr(self, f.name)} -> {getattr(other, f.name)}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != getattr(other, f.name)
        ]


_CHOICES = {
    "initialisation": ("gaussian", "gaussian-0.1", "glorot"),
    "lrn": ("krizhevsky", "caffe"),
    "init_layers": INIT_LAYERS,
    "precision": PRECISIONS,
    "on_bad_image": BAD_IMAGE_POLICIES,
    "regression": REGRESSIONS,
    "tuned": TUNED,
}
_INFINITY = float("inf")
_RANGES = {
    "epochs": (1, _INFINITY),
    "batch_size": (1, _INFINITY),
    "learning_rate": (0, _INFINITY),
    "momentum": (0, 1),
    "weight_decay": (0, _INFINITY),
    "dropout": (0, 1),
    "plateau_patience": (1, _INFINITY),
    "plateau_factor": (1.001, _INFINITY),
    "plateau_drops": (0, _INFINITY),
    "colour_shift": (0, _INFINITY),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True)
class LocalisationRecipe(Recipe):
    """How a net learns to say where the object is (§A.1). Defaults are the paper's best."""

    net: str = _say("D", "Net of Table 1.")
    learning_rate: float = _say(1e-3, "Initial learning rate.")
    regression: str = _say("per-class", "per-class: a box a class; single-class: one for all.")
    tuned: str = _say("all", "Layers that are trained: all, or fc, the FC layers only.")
    boxes: str = _say("", "CSV file with boxes, for folder: data [boxes.csv in its folder].")


_PAPER = Recipe()
RECIPES: dict[str, Recipe] = {
    # §3.1, in this order: each stage starts from the run before it.
    "paper": _PAPER,
    "paper-384": dataclasses.replace(
        _PAPER, train_scale=(384, 384), learning_rate=1e-3, init_layers="all"
    ),
    "paper-jitter": dataclasses.replace(
        _PAPER, train_scale=(256, 512), learning_rate=1e-3, init_layers="all"
    ),
    # The same in proportion for 64-pixel crops: S in 64/224 of [256;512].
    "small": Recipe(
        crop_size=64,
        width=0.25,
        train_scale=(73, 146),
        epochs=40,
        batch_size=64,
        initialisation="glorot",
        plateau_patience=3,
        statistics="training-set",
    ),
}

_SMALL = {
    f.name: getattr(RECIPES["small"], f.name)
    for f in dataclasses.fields(Recipe)
    if f.name not in ("net", "learning_rate")
}
LOCALISATION_RECIPES: dict[str, LocalisationRecipe] = {
    # §A.1: each starts from a classification run of the same scale.
    "paper": LocalisationRecipe(),
    "paper-384": LocalisationRecipe(train_scale=(384, 384)),
    "small": LocalisationRecipe(**_SMALL),
}
