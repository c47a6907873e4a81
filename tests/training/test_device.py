"""A device that computes wrong gradients is refused."""

import pytest
import torch
import torch.nn.functional as F

from ttctune.errors import TrainingError
from ttctune.training.device import check_norm_gradients


def test_right_gradients_of_a_norm_pass():
    check_norm_gradients(torch.device("cpu"))


@pytest.mark.parametrize("wrong", [0.0, float("nan")])
def test_gradients_of_unwritten_memory_are_refused(monkeypatch, wrong):
    """As on Apple GPUs of an older torch, which hand back whatever was there."""
    true = F.layer_norm

    def broken(x, shape, scale, shift):
        for parameter in (scale, shift):
            parameter.register_hook(lambda gradient: torch.full_like(gradient, wrong))
        return true(x, shape, scale, shift)

    monkeypatch.setattr(F, "layer_norm", broken)
    with pytest.raises(TrainingError, match=r"wrong gradients of LayerNorm on cpu; .* use --device cpu"):
        check_norm_gradients(torch.device("cpu"))
