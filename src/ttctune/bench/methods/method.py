"""A row of the table of methods, and the recipe it is trained by."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ttctune.errors import RecipeError
from ttctune.recipe import Recipe


@dataclass(frozen=True)
class Dial:
    """The one setting of a method's own that is searched beside learning rate and weight decay: its size.

    Attributes:
        name: A setting of the recipe, or an argument of the method's function.
        values: The values to try, ascending.
        default: The one of them that is taken where nothing is searched.
    """

    name: str
    values: tuple[float, ...]
    default: float


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
        title: What people call it.
        train: Trains a run in place, whose `state` gets the history of epochs and the scores of channels, and returns
            the number of trained parameters, head left out.
        learning_rate: Where nothing is searched.
        preset: The recipe it starts from.
        settings: What it sets apart from that preset, beside the learning rate.
        dial: What is searched of its own; None where it has nothing of the kind.
        longer: Epochs for each that the others get; 1 for all but a control that is labelled so.
        stages: 1, or 2 where an alignment comes first; each takes an epoch at least.
        selects: Whether it scores and selects channels; the settings of that are no settings of the others.
        keeps_features: Whether its backbone stays as it is, so that features can be kept from run to run.
    """

    title: str
    train: Callable[..., int]
    learning_rate: float = 1e-2
    preset: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    dial: Dial | None = None
    longer: int = 1
    stages: int = 1
    selects: bool = False
    keeps_features: bool = False

    def at(self, value: float) -> "Method":
        """The same method with its dial at another value.

        Raises:
            RecipeError: It has no dial, or the value is below what the dial can be.
        """
        if self.dial is None:
            raise RecipeError(f"a dial of {value} for {self.title}", "no value, as it has no dial", "leave it out")
        name = self.dial.name
        if name in Recipe.model_fields:
            return replace(self, settings={**self.settings, name: value})
        if not math.isfinite(value) or value < 1 or value != int(value):
            raise RecipeError(f"{name} = {value} for {self.title}", "a whole number of at least 1", "choose another")
        return replace(self, train=partial(self.train, **{name: int(value)}))

    def with_features(self, folder: Path) -> "Method":
        """The same method; where it can, it keeps the features of frozen layers in `folder`, and finds them there."""
        return replace(self, train=partial(self.train, folder=folder)) if self.keeps_features else self


def recipe_for(method: Method, epochs: int, **settings: object) -> Recipe:
    """The method's recipe for `epochs` epochs in all, split between the stages as in its preset, with `settings`.

    Methods of one stage train for the sum. Without an alignment, the epoch of the head alone that comes before the
    scores counts as one of them. With `align_epochs` among the settings, the others are those of tuning.

    Raises:
        RecipeError: A setting is out of bounds or unknown, or the epochs do not suffice for both stages.
    """
    usual = Recipe.preset(method.preset, **method.settings)
    epochs *= method.longer
    share = usual.align_epochs / (usual.align_epochs + usual.tune_epochs)
    aligned = settings.get("align_epochs", round(share * epochs) or int(share > 0))
    if not isinstance(aligned, int) or not 0 <= aligned <= epochs:
        raise RecipeError(f"align_epochs = {aligned}", f"0 to {epochs}, the epochs in all", "choose fewer")
    if method.stages > 1 and epochs <= max(1, aligned):
        what = f"{epochs} epochs for the two stages of {method.title}"
        raise RecipeError(what, f"at least {max(1, aligned) + 1}", "give more --epochs")
    given = {
        "learning_rate": method.learning_rate,
        **method.settings,
        "tune_epochs": epochs - (aligned if method.stages == 1 else max(1, aligned)),
    }
    return Recipe.preset(method.preset, **{**given, **settings, "align_epochs": aligned})
