"""A model as the method sees it: sites, norms, family, digest, and a copy that shares its tensors."""

import pytest
import timm
import torch
from torch import nn

from models import backbone_of, print_of, tiny
from ttctune.backbone.families import FAMILIES
from ttctune.backbone.model import (
    Site,
    family_of,
    find,
    head_names,
    norm_names,
    replace,
    structural_copy,
    tensor_digest,
)
from ttctune.errors import BackboneError, SiteError


def test_sites_of_a_block_spelled_out():
    """Path, width, inputs, axis and bias of each kind."""
    sites = backbone_of(tiny("vit", depth=1)).sites(("attn", "mlp", "qkv", "fc1", "stream"))
    assert sites == (
        Site(0, "attn", "blocks.0.attn.proj", 32, 32, -1, has_bias=True),
        Site(0, "mlp", "blocks.0.mlp.fc2", 32, 64, -1, has_bias=True),
        Site(0, "qkv", "blocks.0.attn.qkv", 96, 32, -1, has_bias=True),
        Site(0, "fc1", "blocks.0.mlp.fc1", 64, 32, -1, has_bias=True),
        Site(0, "stream", "blocks.0.norm2", 32, 0, -1, has_bias=False),
    )


def test_a_layer_without_bias_is_seen_as_such():
    """`qkv_bias` and `proj_bias` (that of every other layer in a block) are off in this model."""
    sites = backbone_of(tiny("vit_no_qkv_bias")).sites(("attn", "mlp", "qkv", "fc1"))
    assert not any(site.has_bias for site in sites)
    assert all(site.has_bias for site in backbone_of(tiny("vit")).sites(("attn", "mlp", "qkv", "fc1")))


def test_sites_come_in_order_of_depth_also_beyond_nine():
    """Block 10 follows block 9, and each is named by its own number."""
    backbone = backbone_of(tiny("vit", depth=12))
    sites = backbone.sites(("mlp", "attn"))
    assert [f"{i}.{kind}" for i in range(12) for kind in ("mlp", "attn")] == [site.name for site in sites]
    assert [f"blocks.{i}.mlp.fc2" for i in range(12)] == [site.path for site in sites if site.kind == "mlp"]


def test_a_kind_of_layer_that_is_not_there_is_refused():
    """EVA with separate projections has no `qkv`; the message names what was looked for and where."""
    reason = r"site 'qkv': module:Eva has nothing \(q_proj .* instead\) at blocks\.0\.attn\.qkv; expected one"
    with pytest.raises(SiteError, match=reason):
        backbone_of(tiny("eva_split_qkv")).sites(("qkv",))


def test_a_layer_of_another_kind_is_refused_by_its_class():
    """Here the place holds an Identity."""
    model = tiny("vit")
    model.blocks[1].attn.proj = nn.Identity()
    with pytest.raises(SiteError, match=r"has Identity at blocks\.1\.attn\.proj"):
        backbone_of(model).sites(("attn",))


@pytest.mark.parametrize("family", ["vit_post_norm", "eva_post_norm"])
def test_stream_is_refused_where_no_norm_reads_it(family):
    """In post-norm blocks the second norm reads the branch."""
    with pytest.raises(SiteError, match=r"site 'stream' in .* with post-norm blocks"):
        backbone_of(tiny(family)).sites(("stream",))


def test_sites_of_stages_have_the_width_of_their_stage():
    """Layers and stream of a Swin: 16 channels in two blocks of the first stage, 32 in the second."""
    sites = backbone_of(tiny("swin")).sites(("attn", "fc1", "stream"))
    assert [16, 16, 32] == [site.width for site in sites if site.kind == "attn"]
    assert [32, 32, 64] == [site.width for site in sites if site.kind == "fc1"]
    assert [16, 16, 32] == [site.width for site in sites if site.kind == "stream"]


@pytest.mark.parametrize(("family", "axis"), [("convnext", -1), ("convnext_conv", 1)])
def test_the_layer_says_where_its_channels_are(family, axis):
    """Last for a Linear, second for a 1 x 1 convolution; the sizes are the same."""
    sites = backbone_of(tiny(family)).sites(("mlp", "fc1"))
    assert Site(1, "mlp", "stages.1.blocks.0.mlp.fc2", 16, 64, axis, has_bias=True) == sites[2]
    assert {axis} == {site.axis for site in sites}


class _Standardised(nn.Conv2d):
    """Stands for a layer that changes its weight before it is used."""


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.Conv2d(32, 8, 3), "Conv2d 3 x 3"),
        (nn.Conv2d(32, 8, 1, groups=4), "Conv2d 1 x 1 of 4 groups"),
        (nn.Conv2d(32, 8, 1, stride=2), "Conv2d 1 x 1 of stride 2 x 2"),
        (nn.Conv2d(32, 8, 1, padding=1), "Conv2d 1 x 1 of padding 1 x 1"),
        (_Standardised(32, 8, 1), "_Standardised 1 x 1"),
    ],
)
def test_a_convolution_that_is_no_linear_layer_is_refused_by_name(layer, named):
    """Only a plain 1 x 1 convolution computes W x + b at every position."""
    model = tiny("convnext_conv")
    model.stages[1].blocks[0].mlp.fc2 = layer
    with pytest.raises(SiteError, match=rf"has {named} at stages\.1\.blocks\.0\.mlp\.fc2; expected one linear layer"):
        backbone_of(model).sites(("mlp",))


def test_norms_that_scale_without_a_shift_are_norms():
    """torch's RMSNorm and timm's, in any layout."""
    layers = (nn.RMSNorm(4), timm.layers.RmsNorm(4), timm.layers.RmsNorm2d(4), timm.layers.SimpleNorm2d(4))
    assert ("0", "1", "2", "3") == norm_names(nn.Sequential(*layers, nn.GroupNorm(1, 4)))


def test_norms_without_a_scale_are_left_out():
    """They have nothing to train."""
    model = nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4, elementwise_affine=False), nn.BatchNorm1d(4))
    assert ("0",) == norm_names(model)


@pytest.mark.parametrize(
    ("family", "title"),
    [
        ("vit", "ViT, DeiT, DINOv2, CLIP, SigLIP"),
        ("deit_distilled", "ViT, DeiT, DINOv2, CLIP, SigLIP"),
        ("vit_post_norm", "ViT with post-norm blocks"),
        ("beit", "BEiT"),
        ("eva", "EVA, EVA-02, DINOv3"),
        ("swin", "Swin"),
        ("maxvit", "MaxViT"),
        ("coatnet", "CoAtNet"),
        ("eva_post_norm", "EVA with post-norm blocks"),
    ],
)
def test_the_family_follows_from_model_and_blocks(family, title):
    """By class names along the lineage, so a subclass of a ViT is a ViT."""
    assert title == family_of(tiny(family)).title


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet10t", r"a ResNet without LayerNorm \(BatchNorm2d instead\)"),
        ("mobilevitv2_050", r"a ByobNet without LayerNorm \(BatchNormAct2d, GroupNorm1 instead\)"),
    ],
)
def test_a_model_without_layer_norm_is_refused_by_name_and_reason(name, reason):
    """Stage 1 would have nothing to tune; the message names the class and the norms it has."""
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(BackboneError, match=f"^{reason}; expected LayerNorms or RMSNorms, which stage 1 tunes"):
        family_of(model)


@pytest.mark.parametrize("name", ["cait_xxs24_224", "vit_small_patch16_18x2_224"])
def test_a_model_of_another_family_is_refused(name):
    """The message names its class, and the families that are supported."""
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(BackboneError, match=f"^a {type(model).__name__}") as caught:
        family_of(model)
    assert all(row.title in str(caught.value) for row in FAMILIES)


def test_a_model_with_mixed_blocks_is_refused():
    """All blocks have to be of the row's class; the message names both classes."""
    model = tiny("vit")
    model.blocks[1] = tiny("vit_post_norm").blocks[1]
    with pytest.raises(BackboneError, match="VisionTransformer with blocks of Block, ResPostBlock"):
        family_of(model)


def test_a_transformer_without_layer_norm_is_refused():
    """Stage 1 would have nothing to align."""
    model = tiny("vit", norm_layer=lambda width, **_: nn.Identity())
    with pytest.raises(BackboneError, match="VisionTransformer without LayerNorm"):
        family_of(model)


def test_find_and_replace_work_by_full_name():
    """At any depth, and None where nothing is."""
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.ReLU())
    assert model[0][0] is find(model, "0.0")
    assert find(model, "0.7.x") is None
    for path in ("0.0", "1"):
        other = nn.Tanh()
        replace(model, path, other)
        assert other is find(model, path)


@pytest.mark.parametrize(("family", "names"), [("vit", ("head",)), ("deit_distilled", ("head", "head_dist"))])
def test_head_names(family, names):
    """One classifier, or two."""
    assert names == head_names(tiny(family))
    assert names == head_names(tiny(family, num_classes=0))


@pytest.mark.parametrize("family", ["vit", "deit_distilled", "beit", "vit_siglip", "eva", "swin", "convnext"])
def test_the_digest_does_not_see_the_head(family):
    """Another head, another number of classes and none at all give the same digest."""
    digest = tensor_digest(tiny(family))
    more = tiny(family, num_classes=7)
    heads = tuple(f"{name}." for name in head_names(tiny(family)))
    state = {k: v for k, v in tiny(family).state_dict().items() if not k.startswith(heads)}
    more.load_state_dict(state, strict=False)
    none = tiny(family, num_classes=0)
    none.load_state_dict(state, strict=False)
    redrawn = tiny(family)
    nn.init.normal_(redrawn.get_submodule(head_names(redrawn)[0]).weight)
    assert {digest} == {tensor_digest(m) for m in (more, none, redrawn)}


def test_the_digest_sees_every_other_tensor():
    """One bit of one value of any tensor outside the head changes it."""
    model = tiny("beit", depth=1)
    digests = {tensor_digest(model)}
    outside = {k: v for k, v in model.state_dict().items() if not k.startswith("head")}
    for tensor in outside.values():
        with torch.no_grad():
            tensor.view(-1)[-1] += 1
        digests.add(tensor_digest(model))
    assert len(outside) + 1 == len(digests)


def test_the_digest_sees_names_and_shapes():
    """The same numbers under another name or in another shape are another model."""

    class Plain(nn.Module):
        def __init__(self, **tensors: torch.Tensor) -> None:
            super().__init__()
            for name, tensor in tensors.items():
                self.register_buffer(name, tensor)

        def get_classifier(self) -> tuple[()]:
            return ()

    numbers = torch.arange(6.0)
    models = (
        Plain(a=numbers),
        Plain(b=numbers),
        Plain(a=numbers.reshape(2, 3)),
        Plain(a=numbers.reshape(3, 2)),
    )
    assert 4 == len({tensor_digest(m) for m in models})


def test_the_digest_depends_neither_on_format_nor_on_memory_layout():
    """Values that float16 can hold give one digest in float16, float32, float64 and transposed storage."""
    model = tiny("vit").half()
    digest = tensor_digest(model)
    assert digest == tensor_digest(model.float())
    assert digest == tensor_digest(model.double())
    weight = model.blocks[0].attn.qkv.weight
    weight.data = weight.data.T.contiguous().T
    assert digest == tensor_digest(model)


def test_a_structural_copy_shares_storage_and_nothing_else():
    """Own modules, own parameter objects, all frozen; the same memory."""
    model = tiny("beit")
    before = print_of(model)
    copied = structural_copy(model)
    for (name, ours), (_, theirs) in zip(copied.named_modules(), model.named_modules(), strict=True):
        assert ours is not theirs, name
    for name, theirs in model.state_dict(keep_vars=True).items():
        ours = copied.state_dict(keep_vars=True)[name]
        assert ours is not theirs
        assert ours.data_ptr() == theirs.data_ptr()
        assert not ours.requires_grad
    assert before == print_of(model)


def test_a_structural_copy_keeps_tied_parameters_tied():
    """One tensor in two places is one parameter in the copy."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    copied = structural_copy(model)
    assert copied[0].weight is copied[1].weight
    assert 3 == len(list(copied.parameters()))
