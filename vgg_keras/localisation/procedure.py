"""How localisation nets are tested (§A.1): protocols, scales, and which nets can work together.

Imports no TensorFlow, so that the command line can read the names quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vgg_keras.errors import ArgumentError
from vgg_keras.metadata import join
from vgg_keras.pipelines.checks import are_same_names, check_test_scale
from vgg_keras.recipes import LocalisationRecipe

if TYPE_CHECKING:
    from vgg_keras.facts import NetFacts

LOCALISATION_PROTOCOLS = ("centre-gt", "dense")
LOCALISATION_PROTOCOL_ALIASES = {"center-gt": "centre-gt"}
ANSWERS = 5  # classes of an image that get a box, by the ILSVRC rule


def check_localises(net: NetFacts) -> None:
    """Raises ArgumentError if the net gives no boxes."""
    if net.regression is None:
        raise ArgumentError(
            f"A localisation net is needed; {net.name} gives class scores and no boxes.", "nets"
        )


def check_together(nets: Sequence[NetFacts], classifiers: Sequence[NetFacts]) -> None:
    """Raises ArgumentError if nets cannot localise together.

    Args:
        nets: localisation nets; at least one.
        classifiers: classification nets that rate the boxes; at least one. All nets must have
            the same classes, crop size and pool_rounding.
    """
    for argument, given in (("nets", nets), ("classifiers", classifiers)):
        if not given:
            raise ArgumentError(f"{argument} must hold at least one net. Received: none", argument)
    for net in nets:
        check_localises(net)
    for classifier in classifiers:
        if classifier.regression is not None:
            raise ArgumentError(
                f"classifiers must be classification nets, because their posteriors rate the "
                f"boxes. Received: {classifier.name}, which is a localisation net",
                "classifiers",
            )
    first = nets[0]
    for other in (*nets, *classifiers):
        if not are_same_names(other.class_names, first.class_names):
            raise ArgumentError(f"{other.name} has other classes than {first.name}.", "nets")
        for fact in ("crop_size", "pool_rounding"):
            values = [getattr(net.architecture, fact) for net in (first, other)]
            if values[0] != values[1]:
                raise ArgumentError(
                    f"All nets must have the same {fact}, so that their maps have the same "
                    f"positions. Received: {values[0]} ({first.name}) and {values[1]} "
                    f"({other.name})",
                    "nets",
                )


def scales_by_net(
    nets: Sequence[NetFacts], test_scales: int | Sequence[int] | Sequence[Sequence[int]] | None
) -> list[tuple[int, ...]]:
    """The test scales Q of each net.

    Args:
        nets: localisation nets.
        test_scales: scales of all nets, or one sequence of scales for each net; by default each
            net's training scale, or the middle of its range.

    Raises:
        ArgumentError: a scale is below the crop size, the number of sequences is not the number
            of nets, or a training scale is needed and unknown.

    Example:
        scales_by_net([first, second], [(256,), (224, 288)])
    """
    given: list[Any] = [test_scales] if isinstance(test_scales, int) else list(test_scales or ())
    if not given:
        given = [(net.validation_scale,) for net in nets]
    elif all(isinstance(scale, int) for scale in given):
        given = [given] * len(nets)
    if len(given) != len(nets):
        raise ArgumentError(
            f"test_scales must be scales for all nets, or one sequence of scales for each net. "
            f"Received: {len(given)} for {len(nets)} nets",
            "test_scales",
        )
    scales = [tuple(of_net) for of_net in given]
    for net, of_net in zip(nets, scales, strict=True):
        for scale in of_net:
            check_test_scale(scale, net.architecture.crop_size)
    return scales


def metadata_of_nets(nets: Sequence[NetFacts], scales: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The metadata of localisation nets and their test scales; can be written as JSON."""
    return join([_metadata(net, of_net) for net, of_net in zip(nets, scales, strict=True)])


def _metadata(net: NetFacts, scales: Sequence[int]) -> dict[str, Any]:
    found = net.metadata() | {"regression": net.regression, "test_scales": list(scales)}
    if isinstance(net.recipe, LocalisationRecipe):
        found["tuned"] = net.recipe.trainable
    return found
