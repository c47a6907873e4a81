"""Channels tuned on the residual stream itself: x_S <- x_S + M x_S + m, where a block's second norm reads it."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ttctune.method.channels import ChannelMap


class TunedStream(nn.Module):
    """The norm that first reads the residual stream after the attention, with the map put before it.

    The stream is changed in place, because the block's skip connection has to see the same tensor.

    Args:
        norm: The block's second norm.
        tuning: The map on the stream's channels.
    """

    def __init__(self, norm: nn.Module, tuning: ChannelMap) -> None:
        super().__init__()
        self.norm = norm
        self.tuning = tuning

    def forward(self, x: Tensor) -> Tensor:
        """N x T x C -> N x T x C."""
        s = self.tuning.channels
        change = F.linear(x.index_select(-1, s), self.tuning.map, self.tuning.bias)
        return cast(Tensor, self.norm(x.index_add_(-1, s, change.to(x.dtype))))
