"""The learning rate of a step, as a share of its peak: linear warm-up, then a cosine to zero."""

import math
from dataclasses import dataclass


def warmup_steps(warmup_epochs: float, steps_per_epoch: int, total_steps: int) -> int:
    """Steps of warm-up: as many epochs as asked for, but at most half of the stage."""
    return round(min(warmup_epochs * steps_per_epoch, total_steps // 2))


@dataclass(frozen=True)
class Schedule:
    """The learning rates of a stage.

    Attributes:
        steps: Steps of the stage.
        warmup: Steps of linear warm-up, which starts at 1 / (warmup + 1), above zero.
    """

    steps: int
    warmup: int

    def share(self, step: int) -> float:
        """Share of the peak learning rate at a step (0 to steps - 1), in (0, 1]."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))
