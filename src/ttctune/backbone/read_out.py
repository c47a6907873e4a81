"""Which tokens a model's head reads: those behind them need not be computed where nothing else looks at them."""

from typing import Any

from timm.layers import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn


def tokens_read(model: nn.Module) -> int | None:
    """How many tokens of the last block, from the first on, the head of a ViT reads; None for any other model.

    After the last attention tokens do not see each other any more. A subclass may read what it likes, so it counts as
    another model.
    """
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        return None
    vit: Any = model
    by_token = vit.global_pool == "token" and vit.attn_pool is None and type(vit.blocks[-1]) is Block
    return int(vit.num_prefix_tokens) if by_token else None


def has_plain_attention(block: Any) -> bool:
    """Whether a block's attention is timm's own, so that it is known how to compute it for a few queries."""
    return type(block.attn) is Attention and "forward" not in vars(block.attn)
