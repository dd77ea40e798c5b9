"""What is reproduced: data, size, seeds, tables and nets.

This module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vgg_keras.errors import ArgumentError
from vgg_keras.features.protocols import CUSTOM, TRANSFER_PROTOCOLS
from vgg_keras.nets import NETS, get_net
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.recipes import RECIPES, Recipe
from vgg_keras.report.appendices import PAPER_TABLES
from vgg_keras.report.paper import SMALL_FILTERS, Row

SIZES: dict[str, Recipe] = {
    "tiny": dataclasses.replace(RECIPES["small"], crop_size=32, width=1 / 8, epochs=20),
    "small": RECIPES["small"],
    "paper": RECIPES["paper"],
}

CLASSIFICATION_TABLES, LOCALISATION_TABLES, TRANSFER_TABLES = (3, 4, 5, 6, 7), (8, 9, 10), (11,)
# Tables 7 and 10 repeat rows of Tables 6 and 9.
TABLES = (3, 4, 5, 6, 8, 9, 11)
ROWS: dict[int, tuple[Row, ...]] = {
    number: PAPER_TABLES[number].rows + (SMALL_FILTERS if number == 3 else ())
    for number in (*CLASSIFICATION_TABLES, *LOCALISATION_TABLES, *TRANSFER_TABLES)
}

# Fields of a recipe that the plan sets, or that only fine-tuning needs.
PLANNED_FIELDS = (
    "net",
    "data",
    "train_scale",
    "trainable",
    "fc_epochs",
    "unfreeze_factor",
    "init_from",
    "init_layers",
    "preprocessing",
    "seed",
)


@dataclass(frozen=True)
class Options:
    """What is reproduced.

    Attributes:
        data: training and validation data, see `open_source`.
        size: a name of `SIZES`.
        seeds: each seed repeats all experiments.
        tables: numbers of tables of the paper.
        nets: names of nets. What needs another net is left out.
        localisation_data: data with boxes, for Tables 8 and 9; by default `data` if they have
            boxes.
        transfer_data: data for Table 11 by the name of the protocol, see `TRANSFER_PROTOCOLS`.
        overrides: fields of all recipes to replace. A learning rate is that of S = 256; the others
            stay in proportion.

    Raises:
        ArgumentError: a value is not allowed.

    Example:
        >>> Options("shapes", size="tiny", nets=("vgg11",)).nets
        ('A',)
    """

    data: str
    size: str = "small"
    seeds: tuple[int, ...] = (0, 1, 2)
    tables: tuple[int, ...] = TABLES
    nets: tuple[str, ...] = tuple(NETS)
    localisation_data: str | None = None
    transfer_data: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("size", self.size, SIZES)
        for table in self.tables:
            check_choice("tables", table, tuple(ROWS))
        for protocol in self.transfer_data:
            check_choice("transfer_data", protocol, (*TRANSFER_PROTOCOLS, CUSTOM))
        fields = {one.name for one in dataclasses.fields(Recipe)} - set(PLANNED_FIELDS)
        for name in self.overrides:
            check_choice("overrides", name, sorted(fields))
        object.__setattr__(self, "nets", tuple(get_net(net).name for net in self.nets))
        for name in ("seeds", "tables", "nets"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ArgumentError(
                    f"{name} must be one or more different values. Received: {values}", name
                )
        if self.localisation_data is None and has_boxes(self.data):
            object.__setattr__(self, "localisation_data", self.data)


def has_boxes(data: str) -> bool:
    """Whether data are known to have boxes; no image is read."""
    kind, _, location = data.partition("?")[0].partition(":")
    if kind == "folder":
        return Path(location, "boxes.csv").is_file()
    return kind in ("shapes", "cls-loc")
