"""Stage 1: what is tuned so that the backbone meets the new distribution: every LayerNorm, and a new head."""

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from ttctune.backbone.model import replace

#: Standard deviation of a new head's weights: not zero, or no gradient would reach a channel.
HEAD_STD = 0.02


def release_norms(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Give the named norms of `model` trainable parameters of their own, starting at the present values.

    Returns:
        Name -> norm.
    """
    norms = {}
    for name in names:
        norm = copy.deepcopy(model.get_submodule(name)).requires_grad_(True)
        replace(model, name, norm)
        norms[name] = norm
    return norms


def new_head(model: nn.Module, names: Iterable[str], seed: int) -> dict[str, nn.Linear]:
    """Draw the weights of the classifier's layers anew: truncated normal, bias zero.

    Args:
        model: The copy that is adapted; its classifier has the right number of classes.
        names: Full names of the classifier's layers.
        seed: Of the draw; the global random state is left alone.

    Returns:
        Name -> layer.
    """
    heads = {}
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        head = cast(nn.Linear, model.get_submodule(name)).requires_grad_(True)
        drawn = torch.empty(head.weight.shape)
        nn.init.trunc_normal_(drawn, std=HEAD_STD, a=-2 * HEAD_STD, b=2 * HEAD_STD, generator=generator)
        with torch.no_grad():
            head.weight.copy_(drawn)
            if head.bias is not None:
                head.bias.zero_()
        heads[name] = head
    return heads
