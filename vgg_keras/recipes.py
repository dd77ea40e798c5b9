"""Training recipes as data: those of the paper (§3.1), for small images and for fine-tuning.

A recipe holds all settings that determine the weights of a run. The options of `vgg-keras train`
are made from its fields; the help text of each option is the field's metadata.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from vgg_keras.errors import ArgumentError
from vgg_keras.metadata import MAX_SCALE
from vgg_keras.nets import INITIALISATIONS, LRN_PRESETS, check_geometry, get_net, num_outputs
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.pipelines.contents import parse_json
from vgg_keras.trainable import Stage, as_trainable, fc_layers, is_trained

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SERVING_PRECISIONS = ("float32", "bfloat16")
EXPORT_FORMATS = ("saved_model", "onnx", "litert")
PREPROCESSING_NAMES = ("rgb", "caffe", "torch", "vggface")  # of `weights.PREPROCESSINGS`
INIT_LAYERS = ("warm-start", "all", "matching")
BAD_IMAGE_POLICIES = ("stop", "skip")
REGRESSIONS = ("per-class", "single-class")


def _field(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Recipe:
    """How a net is trained. The defaults are the paper's for single-scale training at S = 256.

    Each field is described by the help text beside it. `data` has no default: `train` refuses a
    recipe without it.

    Raises:
        ArgumentError: the value of a field is not allowed.

    Example:
        >>> Recipe(net="vgg16", train_scale=(256, 512)).validation_scale
        384
    """

    net: str = _field("A", "Net of Table 1.")
    data: str = _field(  # none by default: a run is never trained on data that nobody chose
        "",
        "Training data: folder:DIR, tfrecord:PATTERN, parquet:DIR, webdataset:PATTERN, "
        "tfds:NAME[/CONFIG], cls-loc:DIR or shapes (drawn shapes).",
    )
    crop_size: int = _field(224, "Side of the training crops in pixels, a multiple of 32.")
    width: float = _field(1.0, "Factor on the number of channels of all hidden layers.")
    train_scale: tuple[int, int] = _field(
        (256, 256),
        "Smaller side of the rescaled images: S, or S_MIN:S_MAX to draw S at random for each "
        "image.",
    )
    trainable: str = _field(
        "all", "Layers that are trained: all, fc (the three FC layers), or names of layers."
    )
    fc_epochs: int = _field(
        0,
        "Number of first epochs that train only the FC layers among the trainable layers. The "
        "others are frozen until then.",
    )
    epochs: int = _field(74, "Largest number of epochs, those of fc_epochs included.")
    batch_size: int = _field(256, "Number of images per step, over all devices.")
    learning_rate: float = _field(1e-2, "Initial learning rate.")
    unfreeze_factor: float = _field(
        10.0, "After fc_epochs, the learning rate is divided by this factor."
    )
    momentum: float = _field(0.9, "Momentum of SGD.")
    weight_decay: float = _field(
        5e-4,
        "Weight decay as in Caffe: this factor times w is added to the gradient of a kernel w.",
    )
    dropout: float = _field(0.5, "Dropout rate of both hidden FC layers.")
    initialisation: str = _field(
        "gaussian", "Initial weights: gaussian (standard deviation 0.01), gaussian-0.1 or glorot."
    )
    lrn: str = _field("krizhevsky", "LRN constants of net A-LRN: krizhevsky or caffe.")
    init_from: str = _field(
        "",
        "Weights to start from: folder of a run or of a saved net, a weights file that `convert` "
        "reads, or a released net such as imagenet:D.",
    )
    init_layers: str = _field(
        "warm-start",
        "Layers that take the weights to start from: warm-start (the first four conv. layers of A "
        "and the FC layers, §3.1), all, or matching (the layers that have the same shape in both "
        "nets).",
    )
    preprocessing: str = _field(
        "", "Preprocessing of the file: rgb, caffe, torch or vggface [inferred from the file]."
    )
    plateau_patience: int = _field(
        5, "Number of epochs without a better validation accuracy before the learning rate drops."
    )
    plateau_factor: float = _field(10.0, "Each drop divides the learning rate by this factor.")
    plateau_drops: int = _field(3, "Number of drops before training ends.")
    flip: bool = _field(True, "Flip half of the crops horizontally.")
    colour_shift: float = _field(
        0.1, "Standard deviation of the PCA colour shift. 0 turns the shift off."
    )
    statistics: str = _field(
        "ilsvrc",
        "Where the RGB mean and the colour components come from: ilsvrc, training-set or the path "
        "of a JSON file.",
    )
    precision: str = _field("float32", f"Keras dtype policy: {', '.join(PRECISIONS)}.")
    on_bad_image: str = _field("stop", "What to do with an unreadable image: stop or skip.")
    seed: int = _field(0, "Seed of all random numbers.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "net", get_net(self.net).name)
        check_geometry(self.crop_size, self.width, 1)
        scale = self.train_scale
        pair = (scale, scale) if isinstance(scale, int) else tuple(scale)
        object.__setattr__(self, "train_scale", pair)
        if len(pair) != 2 or not self.crop_size <= pair[0] <= pair[1] <= MAX_SCALE:
            given = ":".join(map(str, pair))
            raise ArgumentError(
                f"train_scale must be S, or S_MIN:S_MAX with S_MIN <= S_MAX, at least the crop "
                f"size, {self.crop_size}, and at most {MAX_SCALE}. Received: {given}",
                "train_scale",
            )
        for name, choices in CHOICES.items():
            if hasattr(self, name):
                check_choice(name, getattr(self, name), choices)
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ArgumentError(
                    f"{name} must be from {low} to {high}. Received: {getattr(self, name)}", name
                )
        object.__setattr__(self, "trainable", as_trainable(self.trainable, self.net))
        if self.fc_epochs and not fc_layers(self.trainable):
            given = f"fc_epochs={self.fc_epochs}, trainable={self.trainable}"
            message = f"fc_epochs must be 0 if trainable names no FC layer. Received: {given}"
            raise ArgumentError(message, "fc_epochs")

    def trains(self, layer: str) -> bool:
        """Whether a layer is trained, at the latest after `fc_epochs`."""
        return is_trained(layer, self.trainable)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of training: one, or with `fc_epochs` and layers to unfreeze, two."""
        last = dataclasses.replace(self, fc_epochs=0)
        first = dataclasses.replace(last, trainable=fc_layers(self.trainable) or self.trainable)
        if not self.fc_epochs or first == last:
            return (Stage(last, 0, self.epochs),)
        if self.fc_epochs >= self.epochs:
            return (Stage(first, 0, self.epochs),)
        lowered = dataclasses.replace(last, learning_rate=self.learning_rate / self.unfreeze_factor)
        return Stage(first, 0, self.fc_epochs), Stage(lowered, self.fc_epochs, self.epochs)

    @property
    def regression_kind(self) -> str | None:
        """Kind of box regression, or None for a net that classifies."""
        return getattr(self, "regression", None)

    def outputs(self, num_classes: int) -> int:
        """Number of units of the last layer, see `num_outputs`."""
        return num_outputs(num_classes, self.regression_kind)

    @property
    def validation_scale(self) -> int:
        """Test scale Q of the validation: S, or the middle of the range of S (§4.1)."""
        return sum(self.train_scale) // 2

    def to_json(self) -> str:
        """Returns the fields as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """Returns the recipe that `to_json` wrote.

        Raises:
            ArgumentError: the text is not a JSON object, a field is unknown or missing, or the
                value of a field is not allowed.
        """
        try:
            fields = parse_json(text, dict[str, Any])
            kind = LocalisationRecipe if "regression" in fields else cls
            return kind.of_fields(_SINCE | fields)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(
                f"text must be a recipe that to_json wrote ({error})", "text"
            ) from error

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Returns the recipe with these fields, which may be those of a JSON object.

        Raises:
            ValueError: a field is unknown or missing, or its value is not allowed.
        """
        given = {"trainable" if k == "tuned" else k: v for k, v in fields.items()}
        if different := given.keys() ^ {field.name for field in dataclasses.fields(cls)}:
            raise ValueError(f"unknown or missing: {', '.join(sorted(different))}")
        return msgspec.convert(given, cls)

    def differences(self, other: Recipe, without: Collection[str] = ()) -> list[str]:
        """Returns one line, `name: own -> other's`, for each field with different values.

        A field that only one of the recipes has is None in the other; `without` are not compared.
        """
        own, others = dataclasses.asdict(self), dataclasses.asdict(other)
        return [
            f"{name}: {own.get(name)} -> {others.get(name)}"
            for name in own | others
            if name not in without and own.get(name) != others.get(name)
        ]


EXTENSIBLE = ("epochs", "plateau_patience", "plateau_factor", "plateau_drops")  # in a run
CHOICES: dict[str, Collection[str]] = {
    "initialisation": INITIALISATIONS,
    "lrn": LRN_PRESETS,
    "init_layers": INIT_LAYERS,
    "precision": PRECISIONS,
    "on_bad_image": BAD_IMAGE_POLICIES,
    "regression": REGRESSIONS,
    "preprocessing": ("", *PREPROCESSING_NAMES),
}
# Fields that earlier versions did not write, with their values; `trainable` was named `tuned`.
_SINCE = {"trainable": "all", "fc_epochs": 0, "unfreeze_factor": 10.0, "preprocessing": ""}
_INFINITY = float("inf")
_FROM_0 = ("fc_epochs", "learning_rate", "weight_decay", "plateau_drops", "colour_shift")
_FROM_1 = ("epochs", "batch_size", "unfreeze_factor", "plateau_patience")
_RANGES = {
    **dict.fromkeys(_FROM_0, (0, _INFINITY)),
    **dict.fromkeys(_FROM_1, (1, _INFINITY)),
    **dict.fromkeys(("momentum", "dropout"), (0, 1)),
    "plateau_factor": (1.001, _INFINITY),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True)
class LocalisationRecipe(Recipe):
    """How a net is trained to predict the bounding box of the object (§A.1).

    The defaults are the settings that gave the paper's best results.

    Example:
        >>> LocalisationRecipe(regression="single-class").outputs(num_classes=1000)
        4
    """

    net: str = _field("D", "Net of Table 1.")
    learning_rate: float = _field(1e-3, "Initial learning rate.")
    regression: str = _field(
        "per-class", "per-class: one box for each class. single-class: one box for all classes."
    )
    boxes: str = _field(
        "", "CSV file with the boxes of data of the kind folder:DIR [DIR/boxes.csv]."
    )


_PAPER = Recipe()
RECIPES: dict[str, Recipe] = {
    # §3.1, in this order. Each stage starts from the run of the stage before it.
    "paper": _PAPER,
    "paper-384": dataclasses.replace(
        _PAPER, train_scale=(384, 384), learning_rate=1e-3, init_layers="all"
    ),
    "paper-jitter": dataclasses.replace(
        _PAPER, train_scale=(256, 512), learning_rate=1e-3, init_layers="all"
    ),
    # For crops of 64 pixels. S is drawn from [256;512] times 64/224.
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
    # For a net that was trained on ILSVRC and other classes, see docs/fine_tuning.md.
    "fine-tune": Recipe(
        net="D",
        fc_epochs=1,
        epochs=10,
        batch_size=64,
        learning_rate=1e-3,
        init_layers="matching",
        plateau_patience=2,
        plateau_drops=1,
    ),
}
"""The recipes by name: `dataclasses.replace(RECIPES["small"], net="A", data="folder:DIR")`."""

_SMALL = {
    f.name: getattr(RECIPES["small"], f.name)
    for f in dataclasses.fields(Recipe)
    if f.name not in ("net", "learning_rate")
}
LOCALISATION_RECIPES: dict[str, LocalisationRecipe] = {
    # §A.1. Each starts from a classification run of the same scale.
    "paper": LocalisationRecipe(),
    "paper-384": LocalisationRecipe(train_scale=(384, 384)),
    "small": LocalisationRecipe(**_SMALL),
}
"""Recipes by name: `dataclasses.replace(LOCALISATION_RECIPES["small"], data="cls-loc:DIR")`."""
