"""Fold an adapter into a plain model: W[S] <- W[S] + M W[S], b[S] <- b[S] + M b[S] + m; nothing is left to pay."""

import copy
from typing import cast

import torch
from torch import nn

from ttctune.backbone.model import replace
from ttctune.errors import MergeError
from ttctune.method.attachment import Attachment
from ttctune.method.tuned_linear import TunedLinear


def merge(attachment: Attachment) -> nn.Module:
    """An independent model of the backbone's own classes whose outputs equal the adapted model's.

    Returns:
        The plain model in eval mode, every parameter trainable, sharing nothing with the backbone.

    Raises:
        MergeError: The adapter acts on the residual stream, whose skip connection no layer's weight reaches.
    """
    for site in attachment.tunings:
        if site.kind == "stream":
            raise MergeError(
                f"site {site.name}: the map acts on the residual stream, which goes on along the skip connection, so "
                "no layer's weight can take it up",
                "sites that end in a linear layer",
                "tune attn, mlp, qkv or fc1, or keep the adapter unmerged",
            )
    model = copy.deepcopy(attachment.model)
    for site in attachment.tunings | attachment.gates:
        tuned = cast(TunedLinear, model.get_submodule(site.path))
        plain = tuned.layer
        with torch.no_grad():
            weight, bias = tuned.folded()
            plain.weight.copy_(weight.reshape(plain.weight.shape))
            if bias is not None and plain.bias is not None:
                plain.bias.copy_(bias)
        replace(model, site.path, plain)
    return model.requires_grad_(True).eval()
