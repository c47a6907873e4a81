"""A frozen linear layer with tuned channels, with gates, or with both: one plain linear layer of the folded weight.

No activation is touched twice, and no gradient of the whole weight is made: the backward pass keeps the thin product
y0_S = W_S x + b_S (map) or the input x (rows), and the output z (gates).
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ttctune.method.channels import ChannelMap, ChannelRows
from ttctune.method.gates import ChannelGates

#: Where over this many times fewer channels are chosen than there are, they are gathered before a product; else its
#: rows are taken after it, and no activation is copied.
_GATHERED = 4


class TunedLinear(nn.Module):
    """A frozen linear layer whose output channels are tuned; its own weight never gets a gradient.

    Args:
        layer: The frozen layer: a Linear, or a 1 x 1 convolution.
        tuning: What is trained on the selected channels.
        gates: What is trained on every channel, behind `tuning`.
    """

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        tuning: ChannelMap | ChannelRows | None = None,
        gates: ChannelGates | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.tuning = tuning
        self.gates = gates
        self.axis = 1 if isinstance(layer, nn.Conv2d) else -1

    def forward(self, x: Tensor) -> Tensor:
        """... x inputs -> ... x outputs; N x inputs x H x W -> N x outputs x H x W for a convolution."""
        tuning, gates = self.tuning, self.gates
        s, matrix, vector = (None, None, None) if tuning is None else (tuning.channels, tuning.matrix, tuning.bias)
        log_scale, shift = (None, None) if gates is None else (gates.log_scale, gates.shift)
        trained = (matrix, vector, log_scale, shift)
        if not torch.is_grad_enabled() or not any(p is not None and p.requires_grad for p in trained):
            return _linear(x, *self.folded(), self.axis)
        with torch.no_grad():
            weight, bias = self.folded()
            weight = weight.to(_computed_in(x))
            kept = None if tuning is None else self._kept(x)
        return cast(Tensor, _Tuned.apply(x, weight, bias, kept, s, *trained, self.axis))

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight (outputs x inputs) and bias of the plain layer that equals this one, in the layer's own format."""
        weight, bias = self.layer.weight.flatten(1), self.layer.bias
        if self.tuning is not None:
            s = self.tuning.channels
            with torch.autocast(weight.device.type, enabled=False):
                d_weight, d_bias = self.tuning.difference(weight[s], None if bias is None else bias[s])
            weight = weight.index_add(0, s, d_weight)
            if bias is not None and d_bias is not None:
                bias = bias.index_add(0, s, d_bias)
        return (weight, bias) if self.gates is None else self.gates.scaled(weight, bias)

    def _kept(self, x: Tensor) -> Tensor:
        """What the selected channels' matrix is multiplied by: y0_S for a map, x for rows."""
        if isinstance(self.tuning, ChannelRows):
            return x.to(_computed_in(x))
        s = cast(ChannelMap, self.tuning).channels
        bias = self.layer.bias
        return _linear(x, self.layer.weight.flatten(1)[s], None if bias is None else bias[s], self.axis)


class _Tuned(torch.autograd.Function):
    """z = W' x + b', where W' and b' are folded.

    With g the gradient of z, h = exp(s) g that of y, and k what is kept: dx = W'^T g; of the matrix M or D, h_S k^T;
    of the vector m or d, the sum of h_S; ds = sum of g (z - t), dt = sum of g.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kept: Tensor | None,
        s: Tensor | None,
        matrix: Tensor | None,
        vector: Tensor | None,
        log_scale: Tensor | None,
        shift: Tensor | None,
        axis: int,
    ) -> Tensor:
        z = _linear(x, weight, bias, axis)
        ctx.save_for_backward(weight, kept, s, log_scale, shift, None if log_scale is None else z)
        ctx.has_vector = vector is not None
        ctx.dtype = cast(Tensor, log_scale if matrix is None else matrix).dtype
        ctx.axis = axis
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        weight, kept, s, log_scale, shift, z = ctx.saved_tensors
        axis, dtype = ctx.axis, ctx.dtype
        d_x = d_matrix = d_vector = d_log_scale = d_shift = total = None
        if ctx.needs_input_grad[0]:
            d_x = _linear(g, weight.T, None, axis)
        rows = _channels_first(g, axis)
        if log_scale is not None:
            d_log_scale, total = _gate_sums(rows, _channels_first(z, axis), shift, dtype)
            if shift is not None:
                d_shift = total
        if s is not None:
            few = _GATHERED * len(s) < g.shape[axis]
            h, chosen = (rows.index_select(-2, s), slice(None)) if few else (rows, s)
            d_matrix = _products(h, _channels_first(kept, axis))[chosen].to(dtype)
            if ctx.has_vector:
                d_vector = _sum(h, dtype)[chosen] if total is None else total[s]
            if log_scale is not None:
                scale = log_scale[s].exp()
                d_matrix = scale[:, None] * d_matrix
                d_vector = None if d_vector is None else scale * d_vector
        return d_x, None, None, None, None, d_matrix, d_vector, d_log_scale, d_shift, None


def _computed_in(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, axis: int) -> Tensor:
    """W x + b at every position, the channels being in dimension -1 or 1."""
    return F.linear(x, weight, bias) if axis == -1 else F.conv2d(x, weight[..., None, None], bias)


def _channels_first(a: Tensor, axis: int) -> Tensor:
    """Without a copy: channels x positions, or images x channels x positions."""
    return a.flatten(0, -2).T if axis == -1 else a.flatten(2)


def _products(g: Tensor, y: Tensor) -> Tensor:
    """Sum over images and positions of g_c y_k: channels of g x channels of y."""
    products = g @ y.mT
    return products if g.ndim == 2 else products.sum(0)


def _sum(a: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over images and positions: channels. In bfloat16 it is rounded once, at the end.

    Across rows that do not lie together it is faster there as a product.
    """
    if a.dtype == torch.bfloat16 and not a.is_contiguous():
        return _products(a, a.new_ones(1, a.shape[-1]))[:, 0].to(dtype)
    return a.sum(1 if a.ndim == 2 else (0, 2), dtype=dtype)


def _gate_sums(g: Tensor, z: Tensor, shift: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Sums over images and positions of g (z - shift) and of g: channels."""
    sums = _sums_of_one_reading if g.device.type == "cpu" else _sums_of_two
    return sums(g, z, shift, dtype)


def _sums_of_two(g: Tensor, z: Tensor, shift: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    products, total = _sum(g * z, dtype), _sum(g, dtype)
    return products if shift is None else products - shift * total, total


def _sums_of_one_reading(g: Tensor, z: Tensor, shift: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """They are what the backward pass of a BatchNorm in eval mode sums for its scale and shift.

    Its mean is `shift`, its variance 1. On a CPU that is one kernel, which reads both tensors once and sums half
    precision in float32.
    """
    one = g.new_ones(g.shape[-2], dtype=torch.promote_types(g.dtype, torch.float32))
    mean = torch.zeros_like(one) if shift is None else shift.to(one.dtype)
    if g.ndim == 2:  # the kernel wants positions x channels, or images x channels x positions
        g, z = g.T, z.T
    _, products, total = torch.ops.aten.native_batch_norm_backward(
        g, z, one, mean, one, None, None, False, 0.0, [False, True, True]
    )
    return products.to(dtype), total.to(dtype)
