"""The behaviour matrix: every family at every kind of site, through all that is done to an adapted model."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from models import (
    BUILDERS,
    CLASSES,
    NO_EFFECT,
    PICTURE,
    attached,
    backbone_of,
    draw_adapter,
    labels,
    per_image_loss,
    pictures,
    print_of,
    tiny,
    train_step,
)
from ttctune.backbone.families import FAMILIES
from ttctune.backbone.model import Backbone, tensor_digest
from ttctune.errors import SiteError
from ttctune.method.attachment import attach, load_adapter, verify_sites
from ttctune.method.importance import score
from ttctune.method.merge import merge
from ttctune.method.selection import select_per_site

KINDS = ("attn", "mlp", "qkv", "fc1", "stream")

#: What a family cannot offer, and how it is refused.
REFUSED = {
    ("vit_post_norm", "stream"): "site 'stream' in ViT with post-norm blocks",
    ("eva_post_norm", "stream"): "site 'stream' in EVA with post-norm blocks",
    ("beit", "qkv"): r"Beit never calls blocks\.0\.attn\.qkv, it uses its weight directly",
    ("beit_swiglu", "qkv"): r"Beit never calls blocks\.0\.attn\.qkv",
    ("eva", "qkv"): r"Eva never calls blocks\.0\.attn\.qkv",
    ("eva_swiglu", "qkv"): r"Eva never calls blocks\.0\.attn\.qkv",
    ("eva_post_norm", "qkv"): r"Eva never calls blocks\.0\.attn\.qkv",
    ("eva_split_qkv", "qkv"): r"nothing at blocks\.0\.attn\.qkv",
    ("beit_swiglu", "fc1"): r"nothing at blocks\.0\.mlp\.fc1",
    ("eva_swiglu", "fc1"): r"nothing at blocks\.0\.mlp\.fc1",
}
OFFERED = [(family, kind) for family in BUILDERS for kind in KINDS if (family, kind) not in REFUSED]
#: Both forms act alike on every layer; rows are tried where a layer keeps the width, and where it does not.
FORMED = [(f, k, "map") for f, k in OFFERED] + [(f, k, "rows") for f, k in OFFERED if k in ("attn", "fc1")]


@cache
def _backbone(family: str) -> Backbone:
    return backbone_of(tiny(family))


@torch.no_grad()
def _output(model: nn.Module) -> Tensor:
    return model(pictures())


@pytest.mark.parametrize(("family", "kind", "form"), FORMED)
def test_a_site_goes_through_the_whole_method(family, kind, form):
    """Attach, verify, score, select, tune, train, save, reload, merge: each step does what it says."""
    backbone = _backbone(family)
    before = print_of(backbone.model)
    attachment = attach(backbone, CLASSES)
    sites = backbone.sites((kind,))
    verify_sites(attachment.model, sites, PICTURE)
    batches = [(pictures(), labels())]
    scores = score(attachment.model, sites, batches, per_image_loss, classes=CLASSES)
    selection = select_per_site(scores, 5)
    assert {site.name for site in sites} == set(selection)

    aligned = _output(attachment.model)
    attachment.tune(sites, selection, form)
    torch.testing.assert_close(_output(attachment.model), aligned, rtol=1e-5, atol=1e-5)

    draw_adapter(attachment)
    drawn = {name: p.detach().clone() for name, p in attachment.adapter.named_parameters()}
    train_step(attachment.model)
    for name, p in attachment.adapter.named_parameters():
        assert name.endswith(NO_EFFECT) or not torch.equal(drawn[name], p), name
    assert before == print_of(backbone.model)

    trained = _output(attachment.model)
    reloaded = attach(backbone, CLASSES, seed=7)
    reloaded.tune(sites, selection, form)
    load_adapter(reloaded, attachment.adapter.state_dict())
    assert torch.equal(trained, _output(reloaded.model))

    with torch.no_grad():
        for p in (p for tuning in reloaded.tunings.values() for p in tuning.parameters()):
            p.zero_()
    assert float((trained - _output(reloaded.model)).abs().max()) > 1e-3
    if kind != "stream":
        merged = merge(attachment)
        torch.testing.assert_close(_output(merged), trained, rtol=1e-4, atol=1e-4)
        assert [type(m) for m in backbone.model.modules()] == [type(m) for m in merged.modules()]
        assert list(backbone.model.state_dict()) == list(merged.state_dict())
    assert before == print_of(backbone.model)


@pytest.mark.parametrize("family", BUILDERS)
def test_all_sites_of_a_family_at_once_merge_in_float64(family):
    """Equal to 1e-10, with LayerScale, norms, maps and biases drawn at random."""
    kinds = [kind for kind in KINDS if (family, kind) in OFFERED and kind != "stream"]
    attachment = attached(tiny(family).double(), kinds)
    images = pictures(dtype=torch.float64)
    with torch.no_grad():
        difference = (merge(attachment)(images) - attachment.model(images)).abs().max()
    assert 1e-10 > float(difference)


@pytest.mark.parametrize(("family", "kind"), REFUSED)
def test_a_site_that_a_family_cannot_offer_is_refused_by_name(family, kind):
    """SiteError when the site is looked up, or when it is not seen acting."""
    backbone = _backbone(family)
    model = attach(backbone, CLASSES).model
    with pytest.raises(SiteError, match=REFUSED[family, kind]):
        verify_sites(model, backbone.sites((kind,)), PICTURE)


def test_the_matrix_covers_every_row_of_the_table():
    """A new family cannot be added without a tiny model of it here."""
    assert {row.title for row in FAMILIES} == {_backbone(family).family.title for family in BUILDERS}


@pytest.mark.parametrize("family", BUILDERS)
def test_the_paths_of_a_family_lead_somewhere(family):
    """Stochastic-depth modules and the norm that reads the stream are where the row says."""
    backbone = _backbone(family)
    row = backbone.family
    assert ("blocks.0", "blocks.1") == backbone.blocks
    for path in (*row.drop_paths, *([row.stream] if row.stream else [])):
        assert all(backbone.model.get_submodule(f"{block}.{path}") is not None for block in backbone.blocks)


@pytest.mark.parametrize("family", BUILDERS)
def test_nothing_hides_in_a_tiny_model(family):
    """LayerScale is of order 1, no tensor is constant, and the logits depend on the picture."""
    model = _backbone(family).model
    for name, p in model.named_parameters():
        assert float(p.detach().std()) > 0.01, name
        if "gamma" in name:
            assert float(p.detach().abs().min()) >= 0.5
    assert float(_output(model).std(0).min()) > 0.01


@pytest.mark.parametrize("family", BUILDERS)
def test_another_picture_size_runs_in_every_family(family):
    """The copy takes 48 x 40 pixels, only norms and head are freed, and the digest stays."""
    backbone = _backbone(family)
    attachment = attach(backbone, CLASSES, image_size=(48, 40))
    with torch.no_grad():
        assert (1, CLASSES) == attachment.model(torch.randn(1, 3, 48, 40)).shape
    trained = {id(p) for p in attachment.model.parameters() if p.requires_grad}
    assert {id(p) for p in attachment.adapter.parameters()} == trained
    assert backbone.digest == tensor_digest(backbone.model)
