"""VPT-Deep (Jia et al. 2022): every block sees a few trained tokens beside those of the image.

The prompts stand behind the class token, and the next block gets prompts of its own in their place. ViT-B/16: 12 p 768
for p prompts, 460,800 for 50. The published 0.53 to 0.64 M are means over 19 tasks, for each of which p was searched
in 1 to 200. The prompts are drawn as the authors draw them, uniform with the limit of Xavier over a patch, so a model
with prompts differs from its backbone from the first step on.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ttctune.backbone.model import Backbone
from ttctune.bench.methods.stages import body_group, refused
from ttctune.run import Run
from ttctune.training.stage import Group


def vpt(run: Run, prompts: int = 10) -> list[Group]:
    """Prompts in every block, each prompts x width.

    Raises:
        BackboneError: The blocks of the family see windows, feature maps or relative positions, where a token more
            has no place.
    """
    model, backbone = run.attachment.model, run.attachment.backbone
    if backbone.family.model != "VisionTransformer":
        raise refused("VPT", run, "blocks that take no tokens beside the image's", "a plain vision transformer")
    prefix = int(model.num_prefix_tokens)  # type: ignore[arg-type]
    width = int(model.embed_dim)  # type: ignore[arg-type]
    limit = math.sqrt(6 / (_patch_values(backbone) + width))
    generator = torch.Generator().manual_seed(run.recipe.seed)
    parameters = {}
    for path in backbone.blocks:
        block = model.get_submodule(path)
        drawn = torch.empty(prompts, width).uniform_(-limit, limit, generator=generator)
        block.prompts = nn.Parameter(drawn.to(next(block.parameters()).device))
        block.register_forward_pre_hook(_Insert(prefix))
        block.register_forward_hook(_Remove(prefix, prompts))
        parameters[f"{path}.prompts"] = block.prompts
    return [body_group(run, "prompts", parameters)]


class _Insert:
    """Puts a block's prompts behind the first `prefix` tokens; reads them from the block, so that it can be copied."""

    def __init__(self, prefix: int) -> None:
        self.prefix = prefix

    def __call__(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        x, *others = inputs
        prompts: Tensor = block.prompts.to(x.dtype).expand(len(x), -1, -1)  # type: ignore[assignment,operator]
        return (torch.cat([x[:, : self.prefix], prompts, x[:, self.prefix :]], 1), *others)


class _Remove:
    """Takes `prompts` tokens behind the first `prefix` away again."""

    def __init__(self, prefix: int, prompts: int) -> None:
        self.prefix, self.end = prefix, prefix + prompts

    def __call__(self, block: nn.Module, inputs: tuple[Tensor, ...], x: Tensor) -> Tensor:
        return torch.cat([x[:, : self.prefix], x[:, self.end :]], 1)


def _patch_values(backbone: Backbone) -> int:
    """Numbers in a patch, all colours of its pixels."""
    size: tuple[int, int] = backbone.model.patch_embed.patch_size  # type: ignore[assignment,union-attr]
    return backbone.input.channels * size[0] * size[1]
