"""Stage 2: the selected channels S of a layer y = W x + b are tuned.

    map     y_S <- y_S + M y_S + m     that is   W_S <- W_S + M W_S,   b_S <- b_S + M b_S + m
    rows    W_S <- W_S + D,                      b_S <- b_S + d

M (K x K), m (K), D (K x inputs) and d (K) start at zero, so the model starts where stage 1 left it.
"""

import torch
from torch import Tensor, nn


class ChannelMap(nn.Module):
    """A K x K map with bias on the selected channels, zero at the start.

    Args:
        channels: int64, K; the selected channels, ascending.
        like: Tensor that gives dtype and device.
        has_bias: Whether the layer has a bias; without one, m could not be merged and is left out.
    """

    channels: Tensor

    def __init__(self, channels: Tensor, like: Tensor, has_bias: bool) -> None:
        super().__init__()
        k = len(channels)
        self.register_buffer("channels", channels.to(like.device))
        self.map = nn.Parameter(like.new_zeros(k, k))
        self.bias = nn.Parameter(like.new_zeros(k)) if has_bias else None

    @property
    def matrix(self) -> nn.Parameter:
        """M."""
        return self.map

    def difference(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the map adds to the selected rows: M W_S (K x inputs) and M b_S + m (K), or None without a bias."""
        if bias is None or self.bias is None:
            return self.map @ weight, None
        return self.map @ weight, torch.addmv(self.bias, self.map, bias)


class ChannelRows(nn.Module):
    """A trained difference of the selected channels' own weight rows and biases, zero at the start.

    Args:
        channels: int64, K; the selected channels, ascending.
        like: The layer's weight, outputs x inputs (x 1 x 1).
        has_bias: Whether the layer has a bias.
    """

    channels: Tensor

    def __init__(self, channels: Tensor, like: Tensor, has_bias: bool) -> None:
        super().__init__()
        k = len(channels)
        self.register_buffer("channels", channels.to(like.device))
        self.rows = nn.Parameter(like.new_zeros(k, like.shape[1]))
        self.bias = nn.Parameter(like.new_zeros(k)) if has_bias else None

    @property
    def matrix(self) -> nn.Parameter:
        """D."""
        return self.rows

    def difference(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What is added to the selected rows and biases: D (K x inputs) and d (K)."""
        return self.rows, self.bias


FORMS: dict[str, type[ChannelMap] | type[ChannelRows]] = {"map": ChannelMap, "rows": ChannelRows}
