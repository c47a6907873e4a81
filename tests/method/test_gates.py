"""Gates: their gradients, how they fold, and that they go through a whole run."""

import pytest
import torch
from tests.images.pictures import write_image_tree
from torch import nn

from models import attached, pictures
from run_helpers import save_model, short
from ttctune import adapt, load
from ttctune.method.channels import ChannelMap, TunedLinear
from ttctune.method.gates import ChannelGates, GatedLinear, _Gate
from ttctune.method.merge import merge
from ttctune.training.checkpoint import Checkpoint


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("axis", [-1, 1])
def test_gradients_equal_central_differences(axis):
    y = drawn(3, 5, 4, 5)
    assert torch.autograd.gradcheck(lambda y, s, t: _Gate.apply(y, s, t, axis), (y, drawn(5), drawn(5)))
    assert torch.autograd.gradcheck(lambda y, s: _Gate.apply(y, s, None, axis), (y, drawn(5)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tuned", [True, False])
def test_a_gated_layer_equals_its_folded_weight(tuned, bias):
    layer: nn.Linear | TunedLinear = nn.Linear(6, 8, bias=bias).double().requires_grad_(False)
    gates = ChannelGates(layer.weight, has_bias=bias)
    if tuned:
        layer = TunedLinear(layer, ChannelMap(torch.tensor([1, 4, 5]), layer.weight, has_bias=bias))
    gated = GatedLinear(layer, gates)
    for parameter in (p for p in gated.parameters() if p.requires_grad):
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    weight, shift = gated.folded()
    torch.testing.assert_close(gated(x), nn.functional.linear(x, weight, shift), rtol=0, atol=1e-12)
    scale = gates.log_scale.exp()
    expected = layer(x) * scale + (gates.shift if bias else 0)
    torch.testing.assert_close(gated(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["vit_layer_scale", "vit_no_qkv_bias"])
def test_a_merged_model_has_the_gates_and_would_differ_without_them(family):
    attachment = attached(family, ("attn", "mlp"))
    attachment.gate(attachment.backbone.sites(("qkv", "attn", "fc1", "mlp")))
    for gates in attachment.gates.values():
        for parameter in gates.parameters():
            nn.init.normal_(parameter, std=0.2)
    attachment.model.double()
    merged, images = merge(attachment), pictures(dtype=torch.float64)
    with torch.no_grad():
        outputs = attachment.model(images)
        assert (merged(images) - outputs).abs().max() < 1e-10
        for gates in attachment.gates.values():
            before = gates.log_scale.clone()
            gates.log_scale.zero_()
            assert (attachment.model(images) - outputs).abs().max() > 1e-3
            gates.log_scale.copy_(before)


def test_a_whole_run_trains_saves_and_loads_gates(tmp_path):
    model = save_model(tmp_path / "model")
    data = write_image_tree(tmp_path / "data", 3, 4)
    recipe = short(gates=("qkv", "attn", "fc1", "mlp"), tune_epochs=2)
    adapted = adapt(model, data, recipe, out=tmp_path / "run", quiet=True)
    gates = [p for n, p in adapted.attachment.adapter.named_parameters() if n.startswith("gates.")]
    assert len(gates) == 2 * 4 * 2 and all(p.abs().max() > 0 for p in gates)
    width = 32
    maps = 2 * 2 * (8 * 8 + 8)
    assert adapted.attachment.parameter_counts()["channels"] == maps + 2 * 2 * (3 + 1 + 2 + 1) * width
    again = load(tmp_path / "run", model=model)
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        first, second = (a.attachment.model.eval()(images) for a in (adapted, again))
    assert torch.equal(first, second)


def test_a_resumed_run_has_the_same_gates(tmp_path, monkeypatch):
    model = save_model(tmp_path / "model")
    data = write_image_tree(tmp_path / "data", 3, 4)
    recipe = short(gates=("fc1", "mlp"), tune_epochs=2)
    whole = adapt(model, data, recipe, out=tmp_path / "whole", quiet=True)
    write, written = Checkpoint.write, []

    def stop_after_three(state, path):
        write(state, path)
        written.append(path)
        if len(written) == 3:  # alignment, scores, and one epoch of two
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "write", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        adapt(model, data, recipe, out=tmp_path / "halted", quiet=True)
    monkeypatch.undo()
    resumed = adapt(model, data, recipe, out=tmp_path / "halted", quiet=True, resume=True)
    one, other = (a.attachment.adapter.state_dict() for a in (whole, resumed))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
