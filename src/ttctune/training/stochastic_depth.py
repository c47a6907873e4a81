"""Stochastic depth while training: a block's branches are dropped for some images (Huang et al. 2016)."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

import ttctune.torchvision_operators  # noqa: F401  (before torchvision)

from torchvision.ops import StochasticDepth  # isort: skip

from ttctune.backbone.model import Backbone, find, replace


@contextmanager
def stochastic_depth(model: nn.Module, backbone: Backbone, largest: float) -> Iterator[None]:
    """Drop branches at a rate that grows from 0 at the first block to `largest` at the last; restored on leaving.

    Args:
        model: The adapted copy.
        backbone: Names its blocks and their drop-path modules.
        largest: In [0, 1); 0 leaves the model as it is.
    """
    originals: dict[str, nn.Module] = {}
    if largest:
        last = max(len(backbone.blocks) - 1, 1)
        for index, block in enumerate(backbone.blocks):
            for name in backbone.family.drop_paths:
                path = f"{block}.{name}"
                original = find(model, path)
                if original is not None:
                    originals[path] = original
                    replace(model, path, StochasticDepth(largest * index / last, "row"))
    try:
        yield
    finally:
        for path, original in originals.items():
            replace(model, path, original)
