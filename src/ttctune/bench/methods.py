"""The methods that are compared, one row each: what it trains, at which rate, from which preset.

Each trains a prepared run in place for the epochs of its recipe (alignment and tuning together) and says how many
parameters it trained, head left out. To add one: a function and a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from ttctune.recipe import Recipe
from ttctune.run import Run
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.stage import Group
from ttctune.two_stage import two_stage as align_and_tune


def linear(run: Run) -> int:
    """The head alone, on the frozen backbone."""
    _, _, head = _parts(run)
    _train(run, [Group("head", head, run.recipe.learning_rate, run.recipe.weight_decay)])
    return 0


def norm(run: Run) -> int:
    """Scale and shift of the norms, and the head: stage 1 for all epochs."""
    _, norms, head = _parts(run)
    groups = [
        Group("norms", norms, run.recipe.norm_rate),
        Group("head", head, run.recipe.head_rate, run.recipe.weight_decay),
    ]
    _train(run, groups)
    return sum(p.numel() for p in norms.values())


def full(run: Run) -> int:
    """Every parameter of the backbone; the head at the rate that it has in the default recipe."""
    for module in run.attachment.model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().clone()))
    everything = dict(run.attachment.model.named_parameters())
    heads = tuple(f"{name}." for name in run.attachment.heads)
    head = {n: p for n, p in everything.items() if n.startswith(heads)}
    body = {n: p for n, p in everything.items() if n not in head}
    decay = run.recipe.weight_decay
    _train(run, [Group("body", body, run.recipe.learning_rate, decay), Group("head", head, Recipe().head_rate, decay)])
    return sum(p.numel() for p in body.values())


def two_stage(run: Run) -> int:
    """The product's own way."""
    align_and_tune(run.attachment, run.sites, run.trainer, run.recipe, Checkpoint(), lambda state: None)
    channels, norms, _ = _parts(run)
    return sum(p.numel() for p in [*channels.values(), *norms.values()])


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
        title: What people call it.
        train: Trains a run, and returns the number of parameters, head left out.
        learning_rate: Where nothing is searched.
        preset: The recipe it starts from.
    """

    title: str
    train: Callable[[Run], int]
    learning_rate: float = 1e-2
    preset: str = "default"


METHODS: Mapping[str, Method] = {
    "linear": Method("linear probe", linear),
    "norm": Method("LayerNorm only", norm),
    "full": Method("full fine-tuning", full, learning_rate=1e-4),
    "paper": Method("two-stage, `paper`", two_stage, preset="paper"),
    "ttc": Method("two-stage", two_stage),
}


def recipe_for(method: Method, epochs: int, **settings: object) -> Recipe:
    """The method's recipe for `epochs` epochs in all, split between the stages as in its preset, with `settings`.

    Raises:
        RecipeError: A setting is out of bounds or unknown.
    """
    usual = Recipe.preset(method.preset)
    share = usual.align_epochs / (usual.align_epochs + usual.tune_epochs)
    align = min(max(1, round(share * epochs)), epochs)
    given = {"learning_rate": method.learning_rate, "align_epochs": align, "tune_epochs": epochs - align}
    return Recipe.preset(method.preset, **{**given, **settings})


def _parts(run: Run) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The adapter's parameters: channels, norms, head."""
    named = dict(run.attachment.adapter.named_parameters())
    channels = {n: p for n, p in named.items() if n.startswith("sites.")}
    norms = {n: p for n, p in named.items() if n.startswith("norms.")}
    return channels, norms, {n: p for n, p in named.items() if n not in channels and n not in norms}


def _train(run: Run, groups: list[Group]) -> None:
    run.trainer.train(groups[0].name, groups, run.recipe.align_epochs + run.recipe.tune_epochs)
