"""In training, the last block computes its MLP for the tokens alone that the head reads: equal outputs, less work."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from ttctune.backbone.model import Backbone
from ttctune.backbone.read_out import tokens_read


@contextmanager
def read_tokens_only(model: nn.Module, backbone: Backbone) -> Iterator[None]:
    """Where the head reads the first tokens alone, leave the others out behind the last attention; undone on leaving.

    Args:
        model: The adapted copy, or what a baseline made of it.
        backbone: Names its blocks.
    """
    count = tokens_read(model)
    if count is None:
        yield
        return
    block = model.get_submodule(backbone.blocks[-1])
    block.forward = partial(_forward, block, count)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del block.forward


def _forward(block: Any, count: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """As the block's own (timm's pre-norm Block), but for the first `count` tokens behind the attention."""
    x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x), *args, **kwargs)))
    x = x[:, :count].contiguous()  # not a view, which would keep all tokens for the backward pass
    y: Tensor = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return y
