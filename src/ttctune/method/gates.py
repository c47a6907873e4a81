"""Stage 2 also trains a gate for every channel of a layer y = W x + b: the gate that the Taylor score derives by.

    gates   y <- exp(s) y + t     that is   W <- exp(s) W,   b <- exp(s) b + t

s and t (a number a channel) start at zero. SSF (Lian et al. 2022) trains such scales and shifts; here the scale is
exp(s), so that the backward pass needs the output alone, which most layers that follow keep anyway.
"""

import torch
from torch import Tensor, nn


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

    def scaled(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight (outputs x inputs) and bias of a layer with the gates in it."""
        scale = self.log_scale.exp()
        if bias is not None and self.shift is not None:
            bias = torch.addcmul(self.shift, scale, bias)
        return scale[:, None] * weight, bias
