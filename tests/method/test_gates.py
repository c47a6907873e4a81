"""Gates: in a merged model, and through a whole run (their arithmetic: test_tuned_linear.py)."""

import pytest
import torch
from tests.images.pictures import write_image_tree
from torch import nn

from models import attached, pictures
from run_helpers import save_model, short
from ttctune import adapt, load
from ttctune.method.merge import merge
from ttctune.training.checkpoint import Checkpoint


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
    maps = 2 * 2 * (4 * 4 + 4)
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
