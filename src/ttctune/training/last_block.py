"""In training, the last block is computed for the tokens alone that the head reads: equal outputs, less work.

The others are needed as keys and values of its attention, but not as queries, nor in anything behind.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ttctune.backbone.model import Backbone
from ttctune.backbone.read_out import has_plain_attention, tokens_read


@contextmanager
def read_tokens_only(model: nn.Module, backbone: Backbone) -> Iterator[None]:
    """Where the head reads the first tokens alone, leave the others out of the last block; undone on leaving.

    Args:
        model: The adapted copy, or what a baseline made of it.
        backbone: Names its blocks.
    """
    count = tokens_read(model)
    if count is None:
        yield
        return
    block: Any = model.get_submodule(backbone.blocks[-1])
    shorter: dict[Any, Callable[..., Tensor]] = {block: _block}
    if has_plain_attention(block):
        shorter[block.attn] = _attention
    for module, forward in shorter.items():
        module.forward = partial(forward, module, count)
    try:
        yield
    finally:
        for module in shorter:
            del module.forward


def _block(block: Any, count: int, x: Tensor) -> Tensor:
    """As timm's pre-norm Block, for the first `count` tokens behind the attention, which may give those alone."""
    x = x[:, :count] + block.drop_path1(block.ls1(block.attn(block.norm1(x))[:, :count]))
    z: Tensor = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return z


def _attention(attention: Any, count: int, x: Tensor) -> Tensor:
    """As timm's Attention, for the first `count` tokens as queries: N x tokens x width -> N x count x width."""
    qkv = attention.qkv(x).unflatten(-1, (3, attention.num_heads, attention.head_dim))
    q, k, v = qkv.transpose(1, 3).unbind(2)  # each images x heads x tokens x width of a head
    q, k = attention.q_norm(q[:, :, :count]), attention.k_norm(k)
    dropout = attention.attn_drop.p if attention.training else 0.0
    y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    y = attention.norm(y.transpose(1, 2).flatten(2))
    if attention.gate is not None:
        y = y * attention.gate(x[:, :count]).sigmoid()
    z: Tensor = attention.proj_drop(attention.proj(y))
    return z
