"""The method (arXiv 2303.07910) on one page: align, score, select, tune.

First the scale and shift of the LayerNorms and a new head are trained, so that the pre-trained model meets the new
distribution. Then every channel is scored by a Taylor expansion of the loss, the few that matter are selected, and
only those are tuned.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ttctune.adapter_folder import selection_of
from ttctune.backbone.model import Site
from ttctune.method.attachment import Attachment, load_adapter
from ttctune.method.importance import score
from ttctune.method.selection import Selection, select_by_budget, select_per_site
from ttctune.recipe import Recipe
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.precision import attention
from ttctune.training.stage import TUNE, Stage, stages_of
from ttctune.training.trainer import Trainer

#: Keeps the random numbers of the stages apart.
SALTS = {"head": 1, "align": 2, TUNE: 3}


def two_stage(
    attachment: Attachment,
    sites: tuple[Site, ...],
    trainer: Trainer,
    recipe: Recipe,
    state: Checkpoint,
    keep: Callable[[Checkpoint], None],
) -> Checkpoint:
    """Adapt the attached model, from the start, from an earlier adapter or from a checkpoint.

    Args:
        attachment: The copy of the backbone with free norms and a new head; gets its maps here, or has had them by
            `put_back` where the state is past the selection.
        sites: Where channels may be tuned.
        trainer: Trains that copy.
        recipe: The settings.
        state: Where the run stands.
        keep: Called with the state after each epoch and after scoring.

    Returns:
        The last state.
    """
    for stage in stages_of(recipe, state.stage):
        if stage.name == TUNE and state.stage != TUNE:
            state = _selected(attachment, sites, trainer, recipe, state)
            keep(state)
        state = _train(attachment, trainer, stage, recipe, state, keep)
    return state


def put_back(attachment: Attachment, sites: tuple[Site, ...], recipe: Recipe, state: Checkpoint) -> None:
    """Attach maps and gates, still without effect, at the channels that a state past the selection has."""
    if state.stage == TUNE:
        attachment.tune(sites, selection_of(state.adapter), recipe.form, recipe.gates)


def _selected(
    attachment: Attachment, sites: tuple[Site, ...], trainer: Trainer, recipe: Recipe, state: Checkpoint
) -> Checkpoint:
    """Score, select, and stand before the first epoch of channel tuning."""
    trainer.reporter.say(f"scoring {sum(site.width for site in sites)} channels at {len(sites)} sites")
    importance = importance_of(trainer, sites, recipe)
    attachment.tune(sites, select(importance, sites, recipe), recipe.form, recipe.gates)
    return replace(
        state,
        stage=TUNE,
        epoch=0,
        adapter=attachment.adapter.state_dict(),
        optimizer={},
        importance=importance,
        settled={**state.settled, "accumulation": trainer.accumulation},
    )


def importance_of(trainer: Trainer, sites: tuple[Site, ...], recipe: Recipe) -> dict[str, Tensor]:
    """Score every channel on the training images, computed as training is; the same bits on every process."""
    precision = trainer.scoring_precision
    with attention(trainer.model, precision.fused_attention):
        importance = trainer.within_memory(
            lambda: score(
                trainer.model,
                sites,
                trainer.scoring_batches(),
                trainer.loss,
                classes=trainer.classes,
                importance=recipe.importance,
                tokens=recipe.tokens,
                seed=recipe.seed,
                forward_context=partial(precision.forward_context, trainer.device),
                sum_=trainer.processes.sum_,
            ),
            trainer.largest_share,
        )
    trainer.accumulation = max(trainer.processes.gather(trainer.accumulation))
    return trainer.processes.decide(lambda: importance)


def select(importance: dict[str, Tensor], sites: tuple[Site, ...], recipe: Recipe) -> Selection:
    """K channels a site, or the recipe's one budget over all sites."""
    if recipe.budget is not None:
        return select_by_budget(importance, sites, recipe.budget, recipe.form)
    return select_per_site(importance, {site.name: recipe.channels_of(site.width) for site in sites})


def _train(
    attachment: Attachment,
    trainer: Trainer,
    stage: Stage,
    recipe: Recipe,
    state: Checkpoint,
    keep: Callable[[Checkpoint], None],
) -> Checkpoint:
    if state.stage == stage.name:
        load_adapter(attachment, state.adapter)

    def after_epoch(done: int, row: dict[str, Any], optimizer: dict[str, Tensor]) -> None:
        nonlocal state
        state = replace(
            state,
            stage=stage.name,
            epoch=done,
            adapter=attachment.adapter.state_dict(),
            optimizer=optimizer,
            history=[*state.history, row],
            settled={**state.settled, "accumulation": trainer.accumulation},
        )
        keep(state)

    trainer.train(
        stage.name,
        stage.groups(attachment, recipe.weight_decay),
        stage.epochs,
        salt=SALTS[stage.name],
        done=state.epoch if state.stage == stage.name else 0,
        optimizer_state=state.optimizer if state.stage == stage.name else None,
        after_epoch=after_epoch,
    )
    return state
