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

from ttctune.backbone.model import Site
from ttctune.method.attachment import Attachment, load_adapter
from ttctune.method.importance import score
from ttctune.method.selection import Selection, select_by_budget, select_per_site
from ttctune.recipe import Recipe
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.precision import attention
from ttctune.training.stage import Stage, stages_of
from ttctune.training.trainer import Trainer

#: Keeps the random numbers of the stages apart.
SALTS = {"head": 1, "align": 2, "tune": 3}


def two_stage(
    attachment: Attachment,
    sites: tuple[Site, ...],
    trainer: Trainer,
    recipe: Recipe,
    state: Checkpoint,
    keep: Callable[[Checkpoint], None],
) -> Checkpoint:
    """Adapt the attached model, from the start or from a checkpoint.

    Args:
        attachment: The copy of the backbone with free norms and a new head; gets its maps here.
        sites: Where channels may be tuned.
        trainer: Trains that copy.
        recipe: The settings.
        state: Where the run stands.
        keep: Called with the state after each epoch and after scoring.

    Returns:
        The last state.
    """
    align, *rest = stages_of(recipe)
    if state.stage in ("", align.name):
        state = _train(attachment, trainer, align, recipe, state, keep)
    if not rest:
        return state
    (tune,) = rest
    if not state.importance:
        trainer.reporter.say(f"scoring {sum(site.width for site in sites)} channels at {len(sites)} sites")
        importance = importance_of(trainer, sites, recipe)
        settled = {**state.settled, "accumulation": trainer.accumulation}
        state = replace(state, importance=importance, settled=settled)
    attachment.tune(sites, select(state.importance, sites, recipe), recipe.form)
    if state.stage != tune.name:
        state = replace(state, stage=tune.name, epoch=0, adapter=attachment.adapter.state_dict(), optimizer={})
        keep(state)
    return _train(attachment, trainer, tune, recipe, state, keep)


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
