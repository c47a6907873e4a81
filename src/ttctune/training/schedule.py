"""The learning rate of a step, as a share of its peak: linear warm-up, then a cosine to zero."""

import math


def warmup_steps(warmup_epochs: float, steps_per_epoch: int, total_steps: int) -> int:
    """Steps of warm-up: as many epochs as asked for, but at most half of the stage."""
    return min(round(warmup_epochs * steps_per_epoch), total_steps // 2)


def rate_share(step: int, total_steps: int, warmup: int) -> float:
    """Share of the peak learning rate, in (0, 1].

    Args:
        step: From 0 to total_steps - 1.
        total_steps: Steps of the stage.
        warmup: Steps of linear warm-up, which starts at 1 / (warmup + 1), above zero.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))
