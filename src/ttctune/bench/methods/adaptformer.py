"""AdaptFormer (Chen et al. 2022): a bottleneck parallel to the MLP of every block.

x <- x + MLP(norm2(x)) + s up(relu(down(x))), as in the authors' code: the bottleneck reads the residual stream before
the norm, s = 0.1, dropout of 0.1 inside, `up` zero at the start. ViT-B/16: 156,768 at width 8, the size that VTAB-1K's
tables print as 0.16 M; 1,189,632 at width 64, published as 1.19 M.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ttctune.backbone.model import replace
from ttctune.bench.methods.stages import body_group, drawn_from, places
from ttctune.run import Run
from ttctune.training.stage import Group

SCALE = DROPOUT = 0.1


class ParallelBottleneck(nn.Module):
    """The norm in front of a block's MLP, with a bottleneck beside both.

    The stream is changed in place, because the block's skip connection has to see the same tensor.

    Args:
        norm: The block's second norm.
        channels: Of the stream.
        width: Of the bottleneck.
    """

    def __init__(self, norm: nn.Module, channels: int, width: int) -> None:
        super().__init__()
        self.norm = norm
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """... x channels -> ... x channels."""
        before = x.clone()  # what norm and bottleneck keep for their backward pass
        inner = F.dropout(F.relu(self.down(before)), DROPOUT, self.training)
        x.add_(SCALE * self.up(inner))
        normed: Tensor = self.norm(before)
        return normed


def adaptformer(run: Run, width: int = 8) -> list[Group]:
    """A bottleneck in every block.

    Raises:
        BackboneError: The blocks of the family have no residual stream in front of the MLP.
    """
    model = run.attachment.model
    parameters: dict[str, nn.Parameter] = {}
    with drawn_from(run.recipe.seed):
        for site in places(run, "AdaptFormer", ("stream",)):
            norm = model.get_submodule(site.path)
            beside = ParallelBottleneck(norm, site.width, width).to(next(norm.parameters()).device)
            replace(model, site.path, beside.train(norm.training))
            own = (beside.down, beside.up)
            parameters |= {
                f"{site.name}.{i}.{n}": p for i, layer in enumerate(own) for n, p in layer.named_parameters()
            }
    return [body_group(run, "adaptformer", parameters)]
