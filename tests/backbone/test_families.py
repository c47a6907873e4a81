"""The behaviour matrix: every family at every kind of site, through all that is done to an adapted model."""

import dataclasses
import re
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn

from models import (
    BUILDERS,
    CLASSES,
    LAYER_SCALES,
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
from ttctune.backbone.model import Backbone, Site, tensor_digest
from ttctune.backbone.opening import open_backbone
from ttctune.backbone.saving import write_timm_folder
from ttctune.backbone.verification import verify_sites
from ttctune.errors import BackboneError, SiteError
from ttctune.method.attachment import Attachment, attach, load_adapter
from ttctune.method.importance import score
from ttctune.method.merge import merge
from ttctune.method.selection import select_per_site

KINDS = ("attn", "mlp", "qkv", "fc1", "stream")
LARGER = (48, 40)


@cache
def _backbone(family: str) -> Backbone:
    return backbone_of(tiny(family))


#: What a model cannot offer though its family can, and how it is refused.
REFUSED = {
    ("beit", "qkv"): r"Beit never calls blocks\.0\.attn\.qkv, it uses its weight directly",
    ("beit_swiglu", "qkv"): r"Beit never calls blocks\.0\.attn\.qkv",
    ("eva", "qkv"): r"Eva never calls blocks\.0\.attn\.qkv",
    ("eva_swiglu", "qkv"): r"Eva never calls blocks\.0\.attn\.qkv",
    ("eva_post_norm", "qkv"): r"Eva never calls blocks\.0\.attn\.qkv",
    ("eva_split_qkv", "qkv"): r"nothing \(q_proj and k_proj and v_proj and proj instead\) at blocks\.0\.attn\.qkv",
    ("beit_swiglu", "fc1"): r"nothing \(fc1_g and fc1_x and fc2 instead\) at blocks\.0\.mlp\.fc1",
    ("eva_swiglu", "fc1"): r"nothing \(fc1_g and fc1_x and fc2 instead\) at blocks\.0\.mlp\.fc1",
    ("swinv2", "qkv"): r"SwinTransformerV2 never calls layers\.0\.blocks\.0\.attn\.qkv",
}
#: What a family's row leaves out.
REFUSED |= {
    (name, kind): f"site '{kind}' in {re.escape(_backbone(name).family.title)}; expected one of "
    for name in BUILDERS
    for kind in KINDS
    if kind not in _backbone(name).family.kinds
}
OFFERED = [(family, kind) for family in BUILDERS for kind in KINDS if (family, kind) not in REFUSED]
#: Both forms act alike on every layer; rows are tried where a layer keeps the width, and where it does not.
FORMED = [(f, k, "map") for f, k in OFFERED] + [(f, k, "rows") for f, k in OFFERED if k in ("attn", "fc1")]
#: Models that take pictures of one size only.
FIXED_SIZE = ("hiera",)


def _mergeable(family: str) -> list[str]:
    return [kind for kind in KINDS if (family, kind) in OFFERED and kind != "stream"]


@torch.no_grad()
def _output(model: nn.Module) -> Tensor:
    return model(pictures())


def _counts(sites: tuple[Site, ...], k: int = 5) -> dict[str, int]:
    return {site.name: k for site in sites}


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
    selection = select_per_site(scores, _counts(sites))
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
    """Equal to 1e-10, with LayerScale, norms, maps and biases drawn at random; not so without the maps."""
    attachment = attached(tiny(family).double(), _mergeable(family))
    images = pictures(dtype=torch.float64)
    with torch.no_grad():
        adapted = attachment.model(images)
        assert 1e-10 > float((merge(attachment)(images) - adapted).abs().max())
        for tuning in attachment.tunings.values():
            tuning.map.zero_()
        assert 1e-3 < float((merge(attachment)(images) - adapted).abs().max())


def _gate_gradients(model: nn.Module, sites: tuple[Site, ...], image: Tensor, label: Tensor) -> dict[str, Tensor]:
    """dL/da_c at a_c = 1 for gates on the channels of every site, one image in a pass of its own."""
    gates = {s.name: torch.ones(s.width, dtype=image.dtype, requires_grad=True) for s in sites}
    shapes = {site.name: (-1,) if site.axis == -1 else (-1, 1, 1) for site in sites}
    handles = [
        model.get_submodule(s.path).register_forward_hook(
            lambda _, x, y, n=s.name: y * gates[n].reshape(shapes[n]),
        )
        for s in sites
    ]
    loss = per_image_loss(model(image[None]), label[None]).sum()
    gradients = torch.autograd.grad(loss, list(gates.values()))
    for handle in handles:
        handle.remove()
    return dict(zip(gates, gradients, strict=True))


@pytest.mark.parametrize("family", BUILDERS)
def test_the_score_is_the_gate_gradient_of_each_image_alone(family):
    """mean_n |dL_n/da_c|, whatever windows, patches or axes a layer sees, and in batches of different sizes."""
    model = attached(tiny(family).double(), (), draw=None).model
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.get_classifier()[0].parameters() if isinstance(model.get_classifier(), tuple) else ():
            p.add_(0.3 * torch.randn(p.shape, generator=draw, dtype=p.dtype))
    sites = backbone_of(model).sites(_mergeable(family))
    images, target = pictures(4, dtype=torch.float64), labels(4)
    alone = [_gate_gradients(model, sites, image, label) for image, label in zip(images, target, strict=True)]
    batches = [(images[:3], target[:3]), (images[3:], target[3:])]
    scores = score(model, sites, batches, per_image_loss, classes=CLASSES)
    for site in sites:
        expected = torch.stack([gradients[site.name].abs() for gradients in alone]).mean(0)
        assert float(expected.max()) > 1e-6, site.name
        torch.testing.assert_close(scores[site.name], expected, rtol=1e-6, atol=1e-12)


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
    assert len(backbone.blocks) >= 2
    for path in (*row.drop_paths, *([row.stream] if row.stream else [])):
        assert all(backbone.model.get_submodule(f"{block}.{path}") is not None for block in backbone.blocks)


@pytest.mark.parametrize("family", BUILDERS)
def test_nothing_hides_in_a_tiny_model(family):
    """LayerScale is of order 1, no tensor is constant, and the logits depend on the picture."""
    model = _backbone(family).model
    for name, p in model.named_parameters():
        assert float(p.detach().std()) > 0.01, name
        if name.rpartition(".")[2] in LAYER_SCALES:
            assert float(p.detach().abs().min()) >= 0.5
    assert float(_output(model).std(0).min()) > 0.003


def _resized(family: str) -> Attachment:
    """An adapter at all sites that can be merged, drawn, for pictures that are larger and not square."""
    backbone = _backbone(family)
    attachment = attach(backbone, CLASSES, image_size=None if family in FIXED_SIZE else LARGER)
    sites = backbone.sites(_mergeable(family))
    attachment.tune(sites, {site.name: torch.arange(0, site.width, 3) for site in sites}, "map")
    draw_adapter(attachment)
    return attachment


@pytest.mark.parametrize("family", [family for family in BUILDERS if family not in FIXED_SIZE])
def test_another_picture_size_runs_in_every_family(family):
    """The copy takes 48 x 40 pixels, only norms and head are freed, and the digest stays."""
    backbone = _backbone(family)
    attachment = attach(backbone, CLASSES, image_size=LARGER)
    with torch.no_grad():
        assert (1, CLASSES) == attachment.model(torch.randn(1, 3, *LARGER)).shape
    trained = {id(p) for p in attachment.model.parameters() if p.requires_grad}
    assert {id(p) for p in attachment.adapter.parameters()} == trained
    assert backbone.digest == tensor_digest(backbone.model)


@pytest.mark.parametrize("family", FIXED_SIZE)
def test_another_picture_size_is_refused_where_the_model_has_one_size(family):
    """The message names it."""
    with pytest.raises(BackboneError, match="image_size 48 x 40; expected 32 x 32, this model's only size"):
        attach(_backbone(family), CLASSES, image_size=LARGER)


@pytest.mark.parametrize("family", [f for f, b in BUILDERS.items() if getattr(b, "func", None) is timm.create_model])
def test_a_merged_model_opens_again_from_a_timm_folder(family, tmp_path):
    """With timm alone and with equal outputs, for pictures that are larger and not square."""
    attachment = _resized(family)
    merged = merge(attachment)
    size = PICTURE[1:] if family in FIXED_SIZE else LARGER
    description = dataclasses.replace(attachment.backbone.input, height=size[0], width=size[1])
    write_timm_folder(tmp_path, merged, description, ("a", "b", "c", "d"))
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert torch.equal(merged(images), again(images))
    reopened = open_backbone(f"local-dir:{tmp_path}")
    assert (size, tensor_digest(merged)) == ((reopened.input.height, reopened.input.width), reopened.digest)


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_adapted_and_merged_models_export(family):
    """torch.export gives programs of equal outputs."""
    attachment = attached(_backbone(family), _mergeable(family))
    for model in (attachment.model, merge(attachment)):
        program = torch.export.export(model, (pictures(2),))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(pictures(2)), model(pictures(2)), rtol=1e-4, atol=1e-4)
