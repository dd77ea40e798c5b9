"""What differs between the recipe of a run and one that is given for it, in few words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vgg_keras.recipes import (
    EXTENSIBLE,
    LOCALISATION_RECIPES,
    RECIPES,
    LocalisationRecipe,
    Recipe,
)

_ENOUGH = 3  # values that a named recipe must explain: the paper's stages differ in three


def nearest(recipe: Recipe) -> tuple[str, Recipe]:
    """The named recipe that a recipe was most likely made from: the one with most of its values.

    Returns:
        The Python expression for the named recipe, and the recipe itself.

    Example:
        >>> nearest(dataclasses.replace(RECIPES["small"], net="D", data="shapes"))[0]
        'RECIPES["small"]'
    """
    named: Mapping[str, Recipe] = RECIPES
    variable = "RECIPES"
    if isinstance(recipe, LocalisationRecipe):
        named, variable = LOCALISATION_RECIPES, "LOCALISATION_RECIPES"
    name = min(named, key=lambda name: len(named[name].differences(recipe)))
    return f'{variable}["{name}"]', named[name]


def explain_refusal(former: Recipe, recipe: Recipe) -> str:
    """Says what differs from the recipe of a run, and what to give to continue the run.

    If another named recipe explains several of the values, it is named in their place.

    Args:
        former: recipe of the run.
        recipe: the one that is given.
    """
    values = former.differences(recipe, without=EXTENSIBLE)
    (was, base), (now, other) = nearest(former), nearest(recipe)
    own = dataclasses.asdict(former)
    given, default = dataclasses.asdict(recipe), dataclasses.asdict(other)
    changes = {name: value for name, value in given.items() if value != default.get(name)}
    moved = dataclasses.asdict(base) | changes
    rest = [
        f"{name}: {value} -> {moved[name]}"
        for name, value in own.items()
        if name not in EXTENSIBLE and value != moved[name]
    ]
    explained = len(values) - len(rest)
    if type(former) is not type(recipe) or was == now or explained < _ENOUGH:
        return f"({'; '.join(values)}). Give the former values"
    others = " and the other former values" if rest else ""
    return f"({'; '.join([f'{was} -> {now}', *rest])}). Give {was}{others}"


def explain_epochs(former: Recipe, recipe: Recipe) -> str:
    """Says where a larger number of epochs comes from if nobody may have chosen it; else ""."""
    name, named = nearest(recipe)
    if recipe.epochs <= former.epochs or recipe.epochs != named.epochs:
        return ""
    return (
        f" ({recipe.epochs} is the default of {name}; epochs={former.epochs} keeps the number that "
        f"the run was begun with)"
    )
