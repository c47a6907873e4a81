"""Stochastic depth while training: a block's branches are left out for some images (Huang et al. 2016).

For which ones is drawn for a whole batch: a batch in parts, or divided among processes, is trained as a whole one is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ttctune.backbone.model import Backbone, find, replace


@dataclass
class Draws:
    """Numbers drawn from [0, 1) for the images that are computed now.

    Attributes:
        branches: How many numbers an image needs.
        numbers: float32, images x branches, on the model's device.
    """

    branches: int = 0
    numbers: Tensor = field(default_factory=lambda: torch.empty(0, 0))


class StochasticDepth(nn.Module):
    """Behind a branch: zero for images whose number is below the rate; the others are scaled up to keep the mean."""

    def __init__(self, rate: float, draws: Draws) -> None:
        super().__init__()
        self.rate, self.draws, self.index = rate, draws, draws.branches
        draws.branches += 1

    def forward(self, branch: Tensor) -> Tensor:
        """Leave the branch out for some images; rows of the batch that are parts of one image share its fate."""
        if not self.training or not self.rate:
            return branch
        kept = (self.draws.numbers[:, self.index] >= self.rate).to(branch.dtype) / (1 - self.rate)
        rows = kept.repeat_interleave(len(branch) // len(kept))
        return branch * rows.view(-1, *[1] * (branch.ndim - 1))


@contextmanager
def stochastic_depth(model: nn.Module, backbone: Backbone, largest: float) -> Iterator[Draws]:
    """Leave branches out at a rate that grows from 0 at the first block to `largest` at the last; restored on leaving.

    Args:
        model: The adapted copy.
        backbone: Names its blocks and their drop-path modules.
        largest: In [0, 1); at 0 no branch is left out, also where the model came with a rate of its own.

    Yields:
        What decides; its numbers are to be set before each forward pass in training.
    """
    draws = Draws()
    originals: dict[str, nn.Module] = {}
    last = max(len(backbone.blocks) - 1, 1)
    for index, block in enumerate(backbone.blocks):
        for name in backbone.family.drop_paths:
            path = f"{block}.{name}"
            original = find(model, path)
            if original is not None:
                originals[path] = original
                replace(model, path, StochasticDepth(largest * index / last, draws) if largest else nn.Identity())
    try:
        yield draws
    finally:
        for path, original in originals.items():
            replace(model, path, original)
