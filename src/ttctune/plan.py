"""What a run would do, before it is done: parameters, time and memory, from a few steps on the real images."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ttctune.adapted import Adapted
from ttctune.recipe import Recipe
from ttctune.run import Run, prepare, settings_of, settle
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.device import find_device
from ttctune.training.kept_memory import freed_memory_kept
from ttctune.training.memory import peak_memory
from ttctune.training.precision import Precision
from ttctune.training.processes import join
from ttctune.training.progress import Reporter
from ttctune.training.stage import TUNE, stages_of
from ttctune.two_stage import select
from ttctune.warm_start import WarmStart, first_state


@dataclass(frozen=True)
class Plan:
    """What a run would do, measured on one batch.

    Attributes:
        parameters: Trained parameters of channels, norms and head.
        classes: Number of classes.
        images: Part -> number of images.
        precision: How it would compute, and why.
        seconds: Estimated time of training and scoring.
        memory: Estimated peak memory of the process (CPU) or of the device, in bytes.
        recipe: The settings, those of a warm start among them.
    """

    parameters: dict[str, int]
    classes: int
    images: dict[str, int]
    precision: Precision
    seconds: float
    memory: int
    recipe: Recipe


def plan(
    model: str | nn.Module | None,
    data: Any,
    recipe: Recipe | None = None,
    weights: str | Path | None = None,
    *,
    warm_start: str | Path | Adapted | None = None,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    quiet: bool = False,
) -> Plan:
    """What `adapt` would train, how long it would take and how much memory, from a few steps on the real images.

    The arguments are those of `adapt`; nothing is written.
    """
    place = find_device(device, threads)
    processes = join(place)
    reporter = Reporter(quiet or not processes.main)
    start = None if warm_start is None else WarmStart(warm_start, model, weights)
    with processes.together(), freed_memory_kept(place):
        source, recipe = settings_of(start, model, recipe, None)
        run = prepare(source, data, recipe, weights, place, reporter, None, processes, workers)
        state = first_state(start, run.attachment, run.images, run.recipe) if start else Checkpoint()
        return _planned(run, settle(run, state))


def _planned(run: Run, state: Checkpoint) -> Plan:
    trainer, recipe = run.trainer, run.recipe
    random = {site.name: torch.rand(site.width) for site in run.sites}
    seconds = 0.0
    for stage in stages_of(recipe, state.stage):
        scored = stage.name == TUNE and state.stage != TUNE
        if scored:
            run.attachment.tune(run.sites, select(random, run.sites, recipe), recipe.form, recipe.gates)
            trainer.model.to(trainer.device)
        groups = stage.groups(run.attachment, recipe.weight_decay)
        trainer.probe(groups, trainer.precision)
        start = time.perf_counter()
        trainer.probe(groups, trainer.precision)
        epoch = (time.perf_counter() - start) * len(trainer.images) / min(recipe.batch_size, len(trainer.images))
        seconds += epoch * (stage.epochs + scored)  # scoring costs about an epoch
    return Plan(
        run.attachment.parameter_counts(),
        len(run.images.classes),
        {name: len(part) for name, part in run.images.parts.items()},
        trainer.precision,
        seconds,
        peak_memory(trainer.device),
        recipe,
    )
