"""A merged model equals the adapted one, and would not if a map were dropped."""

import copy

import pytest
import torch
from torch import nn

from models import attached, labels, per_image_loss, pictures, print_of, tiny
from ttctune.errors import MergeError
from ttctune.method.attachment import Attachment
from ttctune.method.merge import merge

MERGEABLE = ("attn", "mlp", "qkv", "fc1")
#: What "equal outputs" means in each format, for logits of order 1.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


def _difference(one: nn.Module, other: nn.Module) -> float:
    images = pictures(dtype=next(one.parameters()).dtype)
    with torch.no_grad():
        return float((one(images) - other(images)).abs().max())


def _without_maps(attachment: Attachment) -> nn.Module:
    model = copy.deepcopy(attachment.model)
    with torch.no_grad():
        for site in attachment.tunings:
            for p in model.get_submodule(site.path).tuning.parameters():
                p.zero_()
    return model


@pytest.mark.parametrize("kinds", [*((kind,) for kind in MERGEABLE), MERGEABLE], ids=lambda k: "+".join(k))
@pytest.mark.parametrize("form", ["map", "rows"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("family", ["vit_layer_scale", "vit_no_qkv_bias"])
def test_merged_equals_unmerged_and_needs_the_maps(family, dtype, form, kinds):
    """At every site and at all of them, with LayerScale, norms, maps and biases of order 1 and 0.2."""
    attachment = attached(family, kinds, form=form)
    attachment.model.to(dtype)
    merged = merge(attachment)
    assert dtype == next(merged.parameters()).dtype
    assert TOLERANCE[dtype] > _difference(merged, attachment.model)
    assert _difference(merged, _without_maps(attachment)) > 1e-3


@pytest.mark.parametrize("form", ["map", "rows"])
def test_each_single_map_matters_to_the_merged_model(form):
    """Leaving out any one site of all that are tuned shows in the outputs."""
    attachment = attached("vit_layer_scale", MERGEABLE, form=form)
    merged = merge(attachment)
    for site in attachment.tunings:
        model = copy.deepcopy(attachment.model)
        nn.init.zeros_(next(model.get_submodule(site.path).tuning.parameters()))
        assert _difference(merged, model) > 1e-3, site.name


def test_the_three_lines_of_the_merge():
    """W[S] + M W[S] and b[S] + M b[S] + m, the other rows bit for bit the backbone's."""
    attachment = attached("vit", ("mlp",), k=3)
    layer = attachment.backbone.model.blocks[1].mlp.fc2
    tuning = next(t for site, t in attachment.tunings.items() if site.block == 1)
    s = tuning.channels
    merged = merge(attachment).blocks[1].mlp.fc2
    with torch.no_grad():
        torch.testing.assert_close(merged.weight[s], layer.weight[s] + tuning.map @ layer.weight[s])
        torch.testing.assert_close(merged.bias[s], layer.bias[s] + tuning.map @ layer.bias[s] + tuning.bias)
    others = [c for c in range(32) if c not in s.tolist()]
    assert torch.equal(layer.weight[others], merged.weight[others])
    assert torch.equal(layer.bias[others], merged.bias[others])


@pytest.mark.parametrize("kinds", [("stream",), ("attn", "stream")])
def test_stream_cannot_be_merged_and_the_error_says_why(kinds):
    """The skip connection takes the change along, and no weight reaches it."""
    with pytest.raises(MergeError, match=r"stream.*skip connection.*no layer's weight"):
        merge(attached("vit", kinds))


def test_the_merged_model_is_of_the_backbones_own_classes_and_keys():
    """Module by module, in order; shapes differ at the head alone."""
    attachment = attached("vit_layer_scale", MERGEABLE)
    merged, backbone = merge(attachment), attachment.backbone.model
    assert [(n, type(m)) for n, m in backbone.named_modules()] == [(n, type(m)) for n, m in merged.named_modules()]
    ours, theirs = merged.state_dict(), backbone.state_dict()
    assert list(theirs) == list(ours)
    assert {"head.weight", "head.bias"} == {k for k in ours if ours[k].shape != theirs[k].shape}


def test_the_merged_model_shares_no_storage():
    """Neither with the backbone nor with the adapted model: writing into it disturbs neither."""
    attachment = attached("beit", ("attn", "mlp", "fc1"))
    merged, backbone = merge(attachment), attachment.backbone.model
    tensors = [*merged.parameters(), *merged.buffers()]
    taken = {t.untyped_storage().data_ptr() for m in (backbone, attachment.model) for t in m.state_dict().values()}
    assert not taken & {t.untyped_storage().data_ptr() for t in tensors}
    with torch.no_grad():
        before = attachment.model(pictures()), backbone(pictures())
        for tensor in merged.parameters():
            tensor.zero_()
        after = attachment.model(pictures()), backbone(pictures())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("form", ["map", "rows"])
def test_merging_leaves_backbone_and_adapted_model_alone(form):
    """Bits, flags, hooks and attributes; merging twice gives the same model."""
    attachment = attached("vit_layer_scale", MERGEABLE, form=form)
    attachment.model.eval()
    before = print_of(attachment.backbone.model), print_of(attachment.model)
    first, second = merge(attachment), merge(attachment)
    assert before == (print_of(attachment.backbone.model), print_of(attachment.model))
    assert all(torch.equal(first.state_dict()[k], v) for k, v in second.state_dict().items())


def test_the_merged_model_can_be_trained_in_full():
    """Every parameter asks for a gradient and gets one; the model comes in eval mode."""
    merged = merge(attached("vit", MERGEABLE))
    assert not any(m.training for m in merged.modules())
    per_image_loss(merged(pictures()), labels()).mean().backward()
    assert all(p.requires_grad and p.grad is not None for p in merged.parameters())


def test_a_merged_model_can_be_adapted_again():
    """It is a backbone like any other."""
    merged = merge(attached("vit", MERGEABLE))
    again = attached(merged, MERGEABLE, seed=1)
    assert 1e-4 > _difference(merge(again), again.model)


def test_a_model_without_maps_merges_into_itself():
    """After the alignment alone."""
    attachment = attached("vit", ())
    assert 0.0 == _difference(merge(attachment), attachment.model)


def test_a_merge_after_half_precision_weights():
    """A float16 backbone is adapted and merged in float32."""
    attachment = attached(tiny("vit_layer_scale").half(), MERGEABLE)
    merged = merge(attachment)
    assert {torch.float32} == {p.dtype for p in merged.parameters()}
    assert 1e-4 > _difference(merged, attachment.model)
    assert {torch.float16} == {p.dtype for p in attachment.backbone.model.parameters()}
