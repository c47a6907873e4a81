"""How a method is trained: in one stage, after an alignment, or as the product does it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ttctune.backbone.model import Site
from ttctune.backbone.verification import verify_sites
from ttctune.errors import BackboneError, SiteError
from ttctune.run import Run
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.stage import TUNE, Group, stages_of
from ttctune.training.trainer import Trainer
from ttctune.two_stage import SALTS, two_stage

#: Puts a method's parameters in place, and returns what it trains, head left out: (run, own dial) -> groups.
Put = Callable[..., list[Group]]


def one_stage(put: Put, run: Run, **dial: int) -> int:
    """Train what `put` puts in place, and the head, for all epochs; returns the parameters, head left out."""
    groups = put(run, **dial)
    fit(run, "train", [*groups, head_group(run)], run.recipe.align_epochs + run.recipe.tune_epochs)
    return count(groups)


def align_first(put: Put, run: Run, **dial: int) -> int:
    """Stage 1 as the product has it, then what `put` puts in place; returns the parameters, head left out."""
    recipe = run.recipe
    stage = stages_of(recipe)[0]
    groups = stage.groups(run.attachment, recipe.weight_decay)
    fit(run, stage.name, groups, stage.epochs, salt=SALTS[stage.name])
    groups = put(run, **dial)
    fit(run, TUNE, [*groups, head_group(run)], recipe.tune_epochs, salt=SALTS[TUNE])
    return count(groups)


def two_stages(run: Run) -> int:
    """The product's own way; returns the parameters of norms and channels."""

    def keep(state: Checkpoint) -> None:
        run.state = state

    two_stage(run.attachment, run.sites, run.trainer, run.recipe, run.state, keep)
    counts = run.attachment.parameter_counts()
    return counts["channels"] + counts["norms"]


def fit(
    run: Run, title: str, groups: list[Group], epochs: int, *, salt: int = 0, trainer: Trainer | None = None
) -> None:
    """Train the groups and nothing else, and add the epochs to the run's history."""
    for group in groups:
        for parameter in group.parameters.values():
            parameter.requires_grad_(True)
    (trainer or run.trainer).train(
        title, groups, epochs, salt=salt, after_epoch=lambda done, row, optimizer: run.state.history.append(row)
    )


def head_group(run: Run) -> Group:
    """The head, at its rate."""
    head = {n: p for n, p in run.attachment.adapter.named_parameters() if n.startswith("head")}
    return Group("head", head, run.recipe.head_rate, run.recipe.weight_decay)


def body_group(run: Run, name: str, parameters: dict[str, nn.Parameter]) -> Group:
    """A method's own parameters, at the learning rate of the recipe."""
    return Group(name, parameters, run.recipe.learning_rate, run.recipe.weight_decay)


def count(groups: Iterable[Group]) -> int:
    """Parameters of all groups."""
    return sum(p.numel() for group in groups for p in group.parameters.values())


def places(run: Run, method: str, kinds: Iterable[str]) -> tuple[Site, ...]:
    """The sites that a method needs, each seen acting.

    Raises:
        BackboneError: The family lacks one, or never calls its layer.
    """
    backbone, description = run.attachment.backbone, run.trainer.description
    kinds = tuple(kinds)
    missing = [kind for kind in kinds if kind not in backbone.family.kinds]
    if missing:
        raise refused(method, run, f"no site {' or '.join(missing)} in its blocks", "a family that has it")
    try:
        sites = backbone.sites(kinds)
        verify_sites(run.attachment.model, sites, (description.channels, description.height, description.width))
    except SiteError as error:
        raise refused(method, run, error.given, error.expected) from error
    return sites


def refused(method: str, run: Run, given: str, expected: str) -> BackboneError:
    """The error for a family where a method cannot act."""
    family = run.attachment.backbone.family.title
    return BackboneError(f"{method} on {family}: {given}", expected, "leave this method out, or choose another model")


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Random numbers from `seed`; the global random state is left alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        yield
