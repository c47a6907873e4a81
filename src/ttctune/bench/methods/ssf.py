"""SSF (Lian et al. 2022): a scale and a shift for every channel behind every linear layer and norm, all else frozen.

ViT-B/16: 205,824, published as 0.20 M: in each of 12 blocks 2 (768 + 2304 + 768 + 768 + 3072 + 768) behind norm1, qkv,
proj, norm2, fc1 and fc2, and 2 * 768 each behind the patch embedding and the last norm. The authors draw scales around
1 and shifts around 0 with a standard deviation of 0.02; here they start at 1 and 0, so that the first step sees the
backbone itself. Every norm of the model is taken, and no layer between stages (such as Swin's merging of patches).
"""

from typing import Any

from torch import Tensor, nn

from ttctune.backbone.model import find, is_linear, replace
from ttctune.bench.methods.stages import body_group, places
from ttctune.run import Run
from ttctune.training.stage import Group

PATCHES = "patch_embed.proj"


class ScaledShifted(nn.Module):
    """A layer, then a scale (one at the start) and a shift (zero at the start) of each channel.

    Args:
        layer: Linear layer, convolution or norm.
        axis: Dimension of its output that holds the channels, -1 or 1.
    """

    def __init__(self, layer: nn.Module, axis: int) -> None:
        super().__init__()
        self.layer = layer
        weight: Tensor = layer.weight  # type: ignore[assignment]
        self.scale = nn.Parameter(weight.new_ones(len(weight)))
        self.shift = nn.Parameter(weight.new_zeros(len(weight)))
        self.axis = axis

    def forward(self, *inputs: Any) -> Tensor:
        """The inputs of the layer -> its output, scaled and shifted."""
        y: Tensor = self.layer(*inputs)
        shape = [1] * y.ndim
        shape[self.axis] = -1
        return y * self.scale.view(shape) + self.shift.view(shape)


def ssf(run: Run) -> list[Group]:
    """Scale and shift behind every layer.

    Raises:
        BackboneError: The family uses the weight of a layer without calling it, or has no such layer.
    """
    model, backbone = run.attachment.model, run.attachment.backbone
    axes = {site.path: site.axis for site in places(run, "SSF", backbone.family.sites)}
    axes |= {name: 1 if type(norm).__name__.endswith("2d") else -1 for name, norm in run.attachment.norms.items()}
    patches = find(model, PATCHES)
    if isinstance(patches, nn.Conv2d) or is_linear(patches):
        axes[PATCHES] = 1 if isinstance(patches, nn.Conv2d) else -1
    parameters: dict[str, nn.Parameter] = {}
    for path, axis in axes.items():
        tuned = ScaledShifted(model.get_submodule(path), axis)
        replace(model, path, tuned)
        parameters |= {f"{path}.scale": tuned.scale, f"{path}.shift": tuned.shift}
    return [body_group(run, "ssf", parameters)]
