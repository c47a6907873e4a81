"""Stage 2 may also train a gate for every channel of a layer y = W x + b: the gate that the Taylor score derives by.

    gates   y <- exp(s) y + t     that is   W <- exp(s) W,   b <- exp(s) b + t

s and t (a number a channel) start at zero. SSF (Lian et al. 2022) trains such scales and shifts; here the scale is
exp(s), so that the backward pass needs the output alone, which most layers that follow keep anyway.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ttctune.method.channels import TunedLinear


class ChannelGates(nn.Module):
    """A scale, as its logarithm, and a shift for each channel of a layer.

    Args:
        weight: The layer's, outputs x ...; gives width, dtype and device.
        has_bias: Whether the layer has a bias; without one, a shift could not be merged and is left out.
    """

    def __init__(self, weight: Tensor, has_bias: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(weight.new_zeros(len(weight)))
        self.shift = nn.Parameter(weight.new_zeros(len(weight))) if has_bias else None


class GatedLinear(nn.Module):
    """A layer, tuned or plain, behind which every channel has a gate.

    Args:
        layer: Linear layer, 1 x 1 convolution, or `TunedLinear`.
        gates: Its gates.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d | TunedLinear, gates: ChannelGates) -> None:
        super().__init__()
        self.layer = layer
        self.gates = gates
        self.axis = 1 if isinstance(self.plain, nn.Conv2d) else -1

    @property
    def plain(self) -> nn.Linear | nn.Conv2d:
        """The frozen layer."""
        return self.layer.plain if isinstance(self.layer, TunedLinear) else self.layer

    def forward(self, x: Tensor) -> Tensor:
        """As the layer: channels in dimension -1, or 1 for a convolution."""
        y = self.layer(x)
        return cast(Tensor, _Gate.apply(y, self.gates.log_scale, self.gates.shift, self.axis))

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight (outputs x inputs) and bias of the plain layer that equals this one."""
        layer = self.layer
        weight, bias = layer.folded() if isinstance(layer, TunedLinear) else (layer.weight.flatten(1), layer.bias)
        scale = self.gates.log_scale.exp()
        if bias is not None and self.gates.shift is not None:
            bias = scale * bias + self.gates.shift
        return scale[:, None] * weight, bias


class _Gate(torch.autograd.Function):
    """z = exp(s) y + t: dy = exp(s) g, ds = sum g (z - t), dt = sum g, over images and positions."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, log_scale: Tensor, shift: Tensor | None, axis: int) -> Tensor:
        shape = [1] * y.ndim
        shape[axis] = -1
        scale = log_scale.exp().to(y.dtype).view(shape)
        z = y * scale if shift is None else torch.addcmul(shift.to(y.dtype).view(shape), y, scale)
        ctx.save_for_backward(z, scale, shift)
        ctx.over = [d for d in range(y.ndim) if d != axis % y.ndim]
        ctx.dtype = log_scale.dtype
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        z, scale, shift = ctx.saved_tensors
        product = (g * z).sum(ctx.over, dtype=ctx.dtype)
        if shift is None:
            return g * scale, product, None, None
        d_shift = g.sum(ctx.over, dtype=ctx.dtype)
        return g * scale, product - shift * d_shift, d_shift, None
