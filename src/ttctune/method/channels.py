"""Stage 2: the selected channels S of a layer y = W x + b are tuned.

    map     y_S <- y_S + M y_S + m     that is   W_S <- W_S + M W_S,   b_S <- b_S + M b_S + m
    rows    W_S <- W_S + D,                      b_S <- b_S + d

M (K x K), m (K), D (K x inputs) and d (K) start at zero, so the model starts where stage 1 left it. The layer runs
as one plain linear layer with the folded weight; the backward pass keeps only the thin product y0_S = W_S x + b_S
(map) or the input x (rows), never a gradient of the whole weight.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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

    def difference(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the map adds to the selected rows: M W_S (K x inputs) and M b_S + m (K), or None without a bias."""
        if bias is None or self.bias is None:
            return self.map @ weight, None
        return self.map @ weight, self.map @ bias + self.bias

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, axis: int) -> Tensor:
        """The tuned layer's output, with the backward pass of `_MappedLinear`."""
        return cast(Tensor, _MappedLinear.apply(x, weight, bias, self.channels, self.map, self.bias, axis))


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

    def difference(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What is added to the selected rows and biases: D (K x inputs) and d (K)."""
        return self.rows, self.bias

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, axis: int) -> Tensor:
        """The tuned layer's output, with the backward pass of `_RowsLinear`."""
        return cast(Tensor, _RowsLinear.apply(x, weight, bias, self.channels, self.rows, self.bias, axis))


FORMS: dict[str, type[ChannelMap] | type[ChannelRows]] = {"map": ChannelMap, "rows": ChannelRows}


def folded(weight: Tensor, bias: Tensor | None, tuning: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the plain linear layer that equals the tuned one.

    Args:
        weight: outputs x inputs.
        bias: outputs, or None.
        tuning: A `ChannelMap` or `ChannelRows`.
    """
    tuning = cast(ChannelMap, tuning)
    s = tuning.channels
    with _full_precision(weight):
        d_weight, d_bias = tuning.difference(weight[s], None if bias is None else bias[s])
        weight = weight.index_add(0, s, d_weight)
        if bias is not None and d_bias is not None:
            bias = bias.index_add(0, s, d_bias)
    return weight, bias


class TunedLinear(nn.Module):
    """A frozen linear layer, some of whose output channels are tuned; its own weight never gets a gradient.

    Args:
        layer: The frozen layer: a Linear, or a 1 x 1 convolution.
        tuning: A `ChannelMap` or `ChannelRows`.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, tuning: ChannelMap | ChannelRows) -> None:
        super().__init__()
        self.layer = layer
        self.tuning = tuning
        self.axis = 1 if isinstance(layer, nn.Conv2d) else -1

    @property
    def plain(self) -> nn.Linear | nn.Conv2d:
        """The frozen layer."""
        return self.layer

    def forward(self, x: Tensor) -> Tensor:
        """... x inputs -> ... x outputs; N x inputs x H x W -> N x outputs x H x W for a convolution."""
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in self.tuning.parameters())
        if trained:
            return self.tuning.linear(x, self.layer.weight.flatten(1), self.layer.bias, self.axis)
        return _linear(x, *self.folded(), self.axis)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight (outputs x inputs) and bias of the plain layer that equals this one."""
        return folded(self.layer.weight.flatten(1), self.layer.bias, self.tuning)


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


def _computed_in(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _full_precision(like: Tensor) -> torch.autocast:
    """Weights are folded in their own format, also under mixed precision."""
    return torch.autocast(like.device.type, enabled=False)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, axis: int) -> Tensor:
    """W x + b at every position, the channels being in dimension -1 or 1."""
    return F.linear(x, weight, bias) if axis == -1 else F.conv2d(x, weight[..., None, None], bias)


def _products(g: Tensor, y: Tensor, axis: int) -> Tensor:
    """Sum over images and positions of g_c y_k: channels of g x channels of y."""
    if axis == -1:
        return g.flatten(0, -2).T @ y.flatten(0, -2)
    return (g.flatten(2) @ y.flatten(2).mT).sum(0)  # a product an image: nothing is copied to bring channels last


def _sum(g: Tensor, axis: int, dtype: torch.dtype) -> Tensor:
    """Sum over images and positions: channels."""
    return (g.flatten(0, -2) if axis == -1 else g.transpose(0, 1).flatten(1).T).sum(0, dtype=dtype)


class _MappedLinear(torch.autograd.Function):
    """x W'^T + b' with W' = W + P_S^T M W_S: dx = g W', dM = g_S^T y0_S, dm = sum g_S."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, s: Tensor, m: Tensor, m_bias: Tensor | None, axis: int
    ) -> Tensor:
        dtype = _computed_in(x)
        rows, row_bias = weight[s], None if bias is None else bias[s]
        with _full_precision(weight):
            tuned = weight.index_add(0, s, m @ rows).to(dtype)
            if bias is not None and row_bias is not None and m_bias is not None:
                bias = bias.index_add(0, s, m @ row_bias + m_bias)
        before = _linear(x, rows, row_bias, axis)
        ctx.save_for_backward(before, tuned, s)
        ctx.kinds = m.dtype, m_bias is not None, axis
        return _linear(x, tuned, bias, axis)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        before, tuned, s = ctx.saved_tensors
        dtype, has_bias, axis = ctx.kinds
        # all rows of g^T y0 in one product, then K of them: faster than gathering g's channels first
        d_map = _products(g, before, axis)[s].to(dtype)
        d_bias = _sum(g, axis, dtype)[s] if has_bias else None
        d_x = _linear(g, tuned.T, None, axis) if ctx.needs_input_grad[0] else None
        return d_x, None, None, None, d_map, d_bias, None


class _RowsLinear(torch.autograd.Function):
    """x W'^T + b' with W' = W + P_S^T D: dx = g W', dD = g_S^T x, dd = sum g_S."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, s: Tensor, d: Tensor, d_bias: Tensor | None, axis: int
    ) -> Tensor:
        dtype = _computed_in(x)
        tuned = weight.index_add(0, s, d).to(dtype)
        if bias is not None and d_bias is not None:
            bias = bias.index_add(0, s, d_bias)
        x = x.to(dtype)
        ctx.save_for_backward(x, tuned, s)
        ctx.kinds = d.dtype, d_bias is not None, axis
        return _linear(x, tuned, bias, axis)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        x, tuned, s = ctx.saved_tensors
        dtype, has_bias, axis = ctx.kinds
        g_s = g.index_select(axis, s)
        d_rows = _products(g_s, x, axis).to(dtype)
        d_bias = _sum(g_s, axis, dtype) if has_bias else None
        d_x = _linear(g, tuned.T, None, axis) if ctx.needs_input_grad[0] else None
        return d_x, None, None, None, d_rows, d_bias, None
