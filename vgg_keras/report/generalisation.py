"""Tables 11 and 12 of the paper as data (Appendix B), and our results beside them.

The paper marks nets that were trained on more than ILSVRC's 1,000 classes with *. They have rows of
their own here.
"""

from __future__ import annotations

from typing import Any

from vgg_keras.evaluation.procedure import CROP_OF_PAPER
from vgg_keras.features.protocols import MEAN_AP, MEAN_CLASS_RECALL
from vgg_keras.metadata import members
from vgg_keras.report.paper import MEASURED_ON, PaperTable, Row

_MORE_CLASSES = "trained on extended ILSVRC, {} classes"
TRANSFER_COLUMNS = ("our protocol", "ours", "± ours", MEASURED_ON)
# Columns: mean AP on VOC-2007 and on VOC-2012; mean class recall and its standard deviation on
# Caltech-101 and on Caltech-256.
_TABLE_11 = (
    ("Zeiler & Fergus (Zeiler & Fergus, 2013)", (), (None, 79.0, 86.5, 0.5, 74.2, 0.3)),
    ("Chatfield et al. (Chatfield et al., 2014)", (), (82.4, 83.2, 88.4, 0.6, 77.6, 0.1)),
    ("He et al. (He et al., 2014)", (), (82.4, None, 93.4, 0.5, None, None)),
    ("Wei et al. (Wei et al., 2014)", (), (81.5, 81.7, None, None, None, None)),
    (
        f"Wei et al. (Wei et al., 2014), {_MORE_CLASSES.format(2000)}",
        (),
        (85.2, 90.3, None, None, None, None),
    ),
    ("VGG Net-D (16 layers)", ("D",), (89.3, 89.0, 91.8, 1.0, 85.0, 0.2)),
    ("VGG Net-E (19 layers)", ("E",), (89.3, 89.0, 92.3, 0.5, 85.1, 0.3)),
    ("VGG Net-D & Net-E", ("D", "E"), (89.7, 89.3, 92.7, 0.5, 86.2, 0.3)),
)

# The third entry says which image regions the descriptors are of.
_TABLE_12 = (
    (f"(Oquab et al., 2014), {_MORE_CLASSES.format(1512)}", (), "", 70.2),
    ("(Gkioxari et al., 2014)", (), "", 73.6),
    ("(Hoai, 2014)", (), "", 76.3),
    ("VGG Net-D & Net-E, image-only", ("D", "E"), "image", 79.2),
    ("VGG Net-D & Net-E, image and bounding box", ("D", "E"), "image+box", 84.0),
)


def _ours(nets: tuple[str, ...], regions: str = "image") -> tuple[tuple[str, str], ...]:
    """The conditions for our results beside a row; none for the rows of other authors."""
    return (("nets", "+".join(nets)), ("regions", regions)) if nets else ()


TRANSFER_TABLES = (
    PaperTable(
        11,
        "Comparison with the state of the art in image classification on VOC-2007, VOC-2012, "
        "Caltech-101, and Caltech-256",
        "B",
        ("Method",),
        (
            "VOC-2007 (mean AP)",
            "VOC-2012 (mean AP)",
            "Caltech-101 (mean class recall)",
            "± 101",
            "Caltech-256 (mean class recall)",
            "± 256",
        ),
        tuple(Row((method,), values, conditions=_ours(nets)) for method, nets, values in _TABLE_11),
        measures=(),
    ),
    PaperTable(
        12,
        "Comparison with the state of the art in single-image action classification on VOC-2012",
        "B",
        ("Method",),
        ("VOC-2012 (mean AP)",),
        tuple(
            Row((method,), (ap,), conditions=_ours(nets, regions))
            for method, nets, regions, ap in _TABLE_12
        ),
        measures=(),
    ),
)
PROTOCOLS_OF_TABLE = {
    11: ("voc2007", "voc2012", "caltech101", "caltech256"),
    12: ("voc2012-action",),
}
TRANSFER_MEASURES = {MEAN_AP, MEAN_CLASS_RECALL}


def transfer_cells(result: dict[str, Any]) -> tuple[Any, ...]:
    """A result's protocol, percentage, standard deviation and what it was measured on."""
    return (
        result["protocol"],
        next(result[key] for key in sorted(TRANSFER_MEASURES) if key in result),
        result.get("spread"),
        circumstances_of_transfer(result),
    )


def transfer_conditions(result: dict[str, Any]) -> dict[str, str]:
    """The nets and the image regions of a result, each once, and how its scales are aggregated."""
    nets = sorted({member["net"] for member in members(result["features"])})
    regions = {member["region"] for member in members(result["features"])}
    in_order = [name for name in ("image", "box") if name in regions]
    found = {"nets": "+".join(nets), "regions": "+".join(in_order)}
    aggregates = {
        member["aggregate"] if len(member["test_scales"]) > 1 else ""  # of one scale: none
        for member in members(result["features"])
    }
    return found | ({"aggregate": aggregates.pop()} if len(aggregates) == 1 else {})


def circumstances_of_transfer(result: dict[str, Any], with_aggregate: bool = True) -> str:
    """Data and features in words: caltech20, 20 a class, block3_pool, Q = 96,128,192 stack."""
    kind, _, name = result.get("data", "?").partition(":")
    parts = [name if kind == "tfds" else name.rstrip("/").rpartition("/")[2]]
    if result.get("train_per_class"):
        parts.append(f"{result['train_per_class']} a class")
    else:
        parts.append(f"split {result.get('split', '?')}")
    for member in members(result["features"]):
        scales = ",".join(map(str, member["test_scales"]))
        how = member["aggregate"] if with_aggregate and len(member["test_scales"]) > 1 else ""
        crop = "" if member["crop_size"] == CROP_OF_PAPER else f" crop {member['crop_size']}"
        width = "" if member["width"] == 1 else f" width {member['width']:g}"
        parts.append(f"{member['layer']}{crop}{width} Q = {scales} {how}".rstrip())
    return ", ".join(dict.fromkeys(filter(None, parts)))
