"""The linear probe: the head alone, on features that the frozen backbone computes once."""

from pathlib import Path

from ttctune.bench.features import trainer_on_features
from ttctune.bench.methods.stages import fit, head_group
from ttctune.run import Run
from ttctune.training.stage import Group


def linear(run: Run, folder: Path | None = None) -> int:
    """Train the head for all epochs, at the learning rate that others have for their body; returns 0.

    Args:
        run: Prepared.
        folder: Where features are kept for later runs; None keeps them in memory, for this run.
    """
    recipe = run.recipe
    head = Group("head", head_group(run).parameters, recipe.learning_rate, recipe.weight_decay)
    trainer = trainer_on_features(run, folder)
    fit(run, "head", [head], recipe.align_epochs + recipe.tune_epochs, trainer=trainer)
    return 0
