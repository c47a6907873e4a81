"""What each stage of a run trains, for how long, and at which rate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from ttctune.method.attachment import Attachment
from ttctune.recipe import SLOWER, Recipe

#: Name of the stage that trains channels.
TUNE = "tune"


@dataclass(frozen=True)
class Group:
    """Parameters that share a peak learning rate and a weight decay.

    Attributes:
        name: "channels", "norms" or "head".
        parameters: Name in the adapter -> parameter.
        rate: Peak learning rate of AdamW.
        decay: Weight decay, on matrices only; vectors have none.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    rate: float
    decay: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: "head", "align" or "tune".
        epochs: Passes over the training images.
        rates: Group -> peak learning rate; groups left out stay frozen.
    """

    name: str
    epochs: int
    rates: Mapping[str, float]

    def groups(self, attachment: Attachment, weight_decay: float) -> list[Group]:
        """The trained parameters of the adapter, by group."""
        parts: dict[str, Iterable[str]] = {
            "channels": ("sites.", "gates."),
            "norms": ("norms.",),
            "head": ("head",),
        }
        named = dict(attachment.adapter.named_parameters())
        groups = []
        for part, rate in self.rates.items():
            chosen = {n: p for n, p in named.items() if n.startswith(tuple(parts[part]))}
            if chosen:
                groups.append(Group(part, chosen, rate, 0.0 if part == "norms" else weight_decay))
        return groups


def stages_of(recipe: Recipe, begun: str = "") -> tuple[Stage, ...]:
    """The stages of a recipe: alignment (or, without one, an epoch of the head alone), then channel tuning.

    Args:
        recipe: Lengths and rates.
        begun: The stage that a run is in, and those after it are left; "" takes all.
    """
    head, norms, channels = recipe.head_rate, recipe.norm_rate, recipe.learning_rate
    share = {"trained": 1.0, "slower": SLOWER, "frozen": 0.0}
    first = (
        Stage("align", recipe.align_epochs, {"norms": norms, "head": head})
        if recipe.align_epochs
        else Stage("head", 1, {"head": head})
    )
    tuned = {
        "channels": channels,
        "norms": norms * share[recipe.tune_norms],
        "head": head * share[recipe.tune_head],
    }
    second = Stage(TUNE, recipe.tune_epochs, {part: rate for part, rate in tuned.items() if rate})
    if begun == TUNE:
        return (second,)
    return (first, second) if recipe.tune_epochs else (first,)
