"""Stage 1: which norms are freed, and how the new head is drawn."""

import pytest
import timm
import torch
from torch import nn

from models import (
    BUILDERS,
    CLASSES,
    NO_EFFECT,
    attached,
    backbone_of,
    draw_adapter,
    pictures,
    tiny,
    train_step,
)
from ttctune.backbone.model import Backbone
from ttctune.method.alignment import HEAD_STD, new_head, release_norms
from ttctune.method.attachment import attach
from ttctune.recipe import Recipe


def test_every_norm_of_the_model_is_freed():
    """Those of the blocks, the last one, and those of queries and keys."""
    expected = {f"blocks.{i}.{n}" for i in range(2) for n in ("norm1", "norm2", "attn.q_norm", "attn.k_norm")}
    assert expected | {"norm"} == set(attached("vit_qk_norm", ()).norms)


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("vit_clip", {"norm_pre", "norm"}),
        ("vit_fc_norm", {"fc_norm"}),
        ("vit_siglip", {"norm", "attn_pool.norm"}),
        ("beit", {"fc_norm"}),
    ],
)
def test_norms_outside_the_blocks_are_freed_too(family, extra):
    """Before the blocks, behind them, and in the pooling."""
    assert extra == {name for name in attached(family, ()).norms if not name.startswith("blocks.")}


def test_released_norms_start_at_the_present_values_with_storage_of_their_own():
    """Changing them leaves the values they were copied from alone."""
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.LayerNorm(3)).requires_grad_(False)
    old = model[1]
    nn.init.normal_(old.weight)
    norms = release_norms(model, ["1"])
    assert ["1"] == list(norms)
    assert model[1] is norms["1"]
    assert torch.equal(old.weight, norms["1"].weight)
    assert old.weight.data_ptr() != norms["1"].weight.data_ptr()
    assert {"1.weight", "1.bias"} == {n for n, p in model.named_parameters() if p.requires_grad}
    assert not old.weight.requires_grad


def test_the_head_is_drawn_from_its_seed_alone():
    """Equal for equal seeds whatever torch's global state, which the draw leaves as it was."""
    backbone = backbone_of(tiny("vit"))
    torch.manual_seed(5)
    heads = [attach(backbone, CLASSES, seed=seed).heads["head"] for seed in (1, 1, 2)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    model, state = tiny("vit"), torch.get_rng_state()
    new_head(model, ["head"], seed=0)
    assert torch.equal(state, torch.get_rng_state())


def test_the_head_is_not_zero_and_its_bias_is():
    """Truncated normal of standard deviation 0.02, within two of them: zeros would silence the score."""
    model = nn.Sequential(nn.Linear(64, 100))
    head = new_head(model, ["0"], seed=0)["0"]
    assert 2 * HEAD_STD >= float(head.weight.detach().abs().max())
    assert 0.8 * HEAD_STD < float(head.weight.detach().std()) < HEAD_STD
    assert not head.bias.any()


def test_distilled_models_get_two_heads_of_their_own_draw():
    """They differ, and both have the new number of classes."""
    heads = attached("deit_distilled", (), draw=None).heads
    assert ["head", "head_dist"] == sorted(heads)
    assert {CLASSES} == {head.out_features for head in heads.values()}
    assert not torch.equal(heads["head"].weight, heads["head_dist"].weight)


@pytest.mark.parametrize("family", BUILDERS)
def test_alignment_alone_starts_as_the_backbone_and_trains_norms_and_head(family):
    """Features are the backbone's at first; a step changes every norm and head, and nothing else."""
    model = tiny(family)
    attachment = attached(model, (), draw=None)
    with torch.no_grad():
        torch.testing.assert_close(attachment.model.forward_features(pictures()), model.forward_features(pictures()))
    draw_adapter(attachment)
    before = {name: p.detach().clone() for name, p in attachment.model.named_parameters()}
    train_step(attachment.model)
    changed = {name for name, p in attachment.model.named_parameters() if not torch.equal(before[name], p)}
    owners = attachment.norms | attachment.heads
    trained = {f"{name}.{p}" for name, owner in owners.items() for p, _ in owner.named_parameters()}
    assert changed <= trained
    assert all(name.endswith(NO_EFFECT) for name in trained - changed)


def test_numbers_of_vit_b_16():
    """By arithmetic: 25 norms of 2 x 768 = 38,400; K = 96 at `attn`: 12 x (96 x 96 + 96) = 111,744."""
    vit_b = timm.create_model("vit_base_patch16_224", num_classes=0, device="meta")
    backbone = Backbone(vit_b, "vit_base_patch16_224", "", backbone_of(tiny("vit")).input)
    recipe = Recipe.preset("paper")
    sites = backbone.sites(recipe.sites)
    k = recipe.channels_of(768)
    attachment = attach(backbone, 10)
    attachment.tune(sites, {site.name: torch.arange(k) for site in sites}, recipe.form)
    assert 96 == k
    assert {"channels": 111_744, "norms": 38_400, "head": 7_690} == attachment.parameter_counts()
