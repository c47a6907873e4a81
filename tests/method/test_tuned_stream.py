"""The residual stream's own map: what it computes in a block, and its gradients."""

import copy

import torch
from torch import Tensor, nn

from models import pictures, tiny
from ttctune.method.channels import ChannelMap
from ttctune.method.tuned_stream import TunedStream

CHANNELS = torch.tensor([1, 3, 4])


def _stream(model: nn.Module) -> TunedStream:
    norm = model.blocks[0].norm2
    tuning = ChannelMap(CHANNELS, norm.weight, has_bias=True)
    with torch.no_grad():
        tuning.map.copy_(torch.randn(3, 3))
        tuning.bias.copy_(torch.randn(3))
    return TunedStream(norm, tuning)


def test_stream_changes_the_residual_stream_and_its_skip_connection():
    """As in a block written out by hand, with x_S + M x_S + m after the attention's addition."""
    model = tiny("vit_layer_scale").double()
    block, tuned = model.blocks[0], _stream(model)
    x = torch.randn(2, 17, 32, dtype=torch.float64)
    with torch.no_grad():
        h = x + block.ls1(block.attn(block.norm1(x)))
        tuned_h = h.clone()
        for i, c in enumerate(CHANNELS.tolist()):
            for j, d in enumerate(CHANNELS.tolist()):
                tuned_h[..., c] += tuned.tuning.map[i, j] * h[..., d]
            tuned_h[..., c] += tuned.tuning.bias[i]
        expected = tuned_h + block.ls2(block.mlp(block.norm2(tuned_h)))
        branch_only = h + block.ls2(block.mlp(block.norm2(tuned_h)))
        block.norm2 = tuned
        kept = x.clone()
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(kept, x)
    assert float((expected - branch_only).abs().max()) > 0.1


def test_stream_gradients_agree_with_finite_differences():
    """gradcheck through a whole block, for the stream and the map."""
    model = tiny("vit_layer_scale").double().requires_grad_(False)
    tuned = _stream(model)
    model.blocks[0].norm2 = tuned
    x = torch.randn(1, 2, 32, dtype=torch.float64, requires_grad=True)

    def output(x: Tensor, *_: Tensor) -> Tensor:
        return model.blocks[0](x * 1.0)

    assert torch.autograd.gradcheck(output, (x, tuned.tuning.map, tuned.tuning.bias))


def test_stream_keeps_the_streams_own_format_under_autocast():
    """The change is added in the stream's dtype, and stays close to float32."""
    model = tiny("vit")
    expected = copy.deepcopy(model)
    torch.manual_seed(1)
    model.blocks[0].norm2 = _stream(model)
    torch.manual_seed(1)
    expected.blocks[0].norm2 = _stream(expected)
    with torch.no_grad():
        exact = expected(pictures())
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(pictures())
    torch.testing.assert_close(mixed.float(), exact, rtol=0.1, atol=0.1)
