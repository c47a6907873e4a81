"""An adapter on a copy that shares every frozen tensor; the backbone never notices."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from models import (
    CLASSES,
    PICTURE,
    attached,
    backbone_of,
    draw_adapter,
    labels,
    per_image_loss,
    pictures,
    print_of,
    selected,
    tiny,
    train_step,
)
from ttctune.backbone.model import Site
from ttctune.backbone.verification import acting_kinds, verify_sites
from ttctune.errors import BackboneError, SiteError
from ttctune.method.attachment import attach, load_adapter
from ttctune.method.importance import score
from ttctune.method.merge import merge

MERGEABLE = ("attn", "mlp", "qkv", "fc1")
forms = pytest.mark.parametrize("form", ["map", "rows"])


@torch.no_grad()
def _output(model: nn.Module) -> Tensor:
    return model(pictures(dtype=next(model.parameters()).dtype))


@forms
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_backbone_is_never_changed(form, training):
    """Tensors bit for bit, flags, hooks, modes and attributes, whatever is done to the adapted model."""
    model = tiny("vit_layer_scale").train(training)
    model.pos_embed.requires_grad_(False)
    model.blocks[0].mlp.eval()
    model.register_forward_hook(lambda *_: None)
    backbone = backbone_of(model)
    before = print_of(model)

    def unchanged() -> bool:
        return before == print_of(model)

    attachment = attach(backbone, CLASSES)
    assert unchanged()
    sites = backbone.sites(MERGEABLE)
    verify_sites(attachment.model, sites, PICTURE)
    assert unchanged()
    score(attachment.model, sites, [(pictures(), labels())], per_image_loss, classes=CLASSES)
    assert unchanged()
    attachment.tune(sites, selected(sites, 4), form)
    draw_adapter(attachment)
    train_step(attachment.model)
    assert unchanged()
    merge(attachment)
    assert unchanged()
    train_step(attachment.model.double())
    attachment.model.requires_grad_(True)
    assert unchanged()


def test_the_backbone_is_never_changed_by_stream():
    """The map that works in place works on the copy's own activations."""
    backbone = backbone_of(tiny("vit"))
    before = print_of(backbone.model)
    train_step(attached(backbone, ("stream",)).model)
    assert before == print_of(backbone.model)


def test_frozen_tensors_are_shared_and_trained_ones_are_not():
    """The copy costs norms, head and maps only."""
    attachment = attached("vit_layer_scale", MERGEABLE)
    theirs = {p.data_ptr() for p in attachment.backbone.model.parameters()}
    for name, p in attachment.model.named_parameters():
        assert p.requires_grad != (p.data_ptr() in theirs), name


@forms
def test_what_is_trained_spelled_out(form):
    """For a model of two blocks: maps at the sites, every norm, the head, and nothing else."""
    attachment = attached("vit", ("attn", "mlp"), form=form)
    expected = {
        f"blocks.0.attn.proj.tuning.{form}",
        "blocks.0.attn.proj.tuning.bias",
        f"blocks.0.mlp.fc2.tuning.{form}",
        "blocks.0.mlp.fc2.tuning.bias",
        f"blocks.1.attn.proj.tuning.{form}",
        "blocks.1.attn.proj.tuning.bias",
        f"blocks.1.mlp.fc2.tuning.{form}",
        "blocks.1.mlp.fc2.tuning.bias",
        "blocks.0.norm1.weight",
        "blocks.0.norm1.bias",
        "blocks.0.norm2.weight",
        "blocks.0.norm2.bias",
        "blocks.1.norm1.weight",
        "blocks.1.norm1.bias",
        "blocks.1.norm2.weight",
        "blocks.1.norm2.bias",
        "norm.weight",
        "norm.bias",
        "head.weight",
        "head.bias",
    }
    assert expected == {n for n, p in attachment.model.named_parameters() if p.requires_grad}
    assert {
        f"sites.0.attn.{form}",
        "sites.0.attn.bias",
        f"sites.0.mlp.{form}",
        "sites.0.mlp.bias",
        f"sites.1.attn.{form}",
        "sites.1.attn.bias",
        f"sites.1.mlp.{form}",
        "sites.1.mlp.bias",
        "norms.blocks.0.norm1.weight",
        "norms.blocks.0.norm1.bias",
        "norms.blocks.0.norm2.weight",
        "norms.blocks.0.norm2.bias",
        "norms.blocks.1.norm1.weight",
        "norms.blocks.1.norm1.bias",
        "norms.blocks.1.norm2.weight",
        "norms.blocks.1.norm2.bias",
        "norms.norm.weight",
        "norms.norm.bias",
        "head.weight",
        "head.bias",
    } == {n for n, _ in attachment.adapter.named_parameters()}


def test_the_adapter_is_a_view_of_the_trained_tensors():
    """Its parameters are the model's own objects."""
    attachment = attached("deit_distilled", ("attn",))
    theirs = {id(p) for p in attachment.model.parameters() if p.requires_grad}
    assert theirs == {id(p) for p in attachment.adapter.parameters()}
    assert {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"} == {
        n for n, _ in attachment.adapter.named_parameters() if n.startswith("head")
    }


def test_parameters_are_counted_in_three_parts():
    """4 maps of 6 x 6 + 6, 5 norms of 64, a head of 33 x 4."""
    expected = {"channels": 4 * 42, "norms": 5 * 64, "head": 132}
    assert expected == attached("vit", ("attn", "mlp"), k=6).parameter_counts()


@forms
def test_attaching_maps_changes_nothing_at_first(form):
    """The model starts stage 2 where stage 1 left it, bit for bit."""
    attachment = attached("vit_layer_scale", (), draw=0.2)
    before = _output(attachment.model)
    sites = attachment.backbone.sites(MERGEABLE)
    attachment.tune(sites, selected(sites, 5), form)
    assert torch.equal(before, _output(attachment.model))


def test_sites_that_got_no_channels_keep_their_plain_layer():
    """As a budget may leave them."""
    attachment = attached("vit", (), draw=None)
    sites = attachment.backbone.sites(("attn",))
    attachment.tune(sites, {"1.attn": torch.tensor([2])}, "map")
    assert ["1.attn"] == [site.name for site in attachment.tunings]
    assert nn.Linear is type(attachment.model.blocks[0].attn.proj)


def test_two_adapters_beside_each_other_do_not_disturb_each_other():
    """On one backbone, each keeps its own outputs while the other is trained, converted and deleted."""
    backbone = backbone_of(tiny("vit_layer_scale"))
    one, two = (attached(backbone, ("attn", "mlp"), seed=seed) for seed in (1, 2))
    first, second, plain = _output(one.model), _output(two.model), _output(backbone.model)
    assert float((first - second).abs().max()) > 0.1
    train_step(one.model)
    one.model.double()
    assert not torch.equal(first, _output(one.model).float())
    assert torch.equal(second, _output(two.model))
    assert torch.equal(plain, _output(backbone.model))
    del one
    assert torch.equal(second, _output(two.model))


@forms
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_of_the_adapted_model_is_independent_and_equal(form, copier):
    """`deepcopy` and pickle give a model with equal outputs; training it leaves the first alone."""
    attachment = attached("vit_layer_scale", MERGEABLE, form=form)
    before = _output(attachment.model)
    other = copier(attachment.model)
    assert torch.equal(before, _output(other))
    train_step(other)
    assert not torch.equal(before, _output(other))
    assert torch.equal(before, _output(attachment.model))


@forms
def test_double_changes_the_format_and_not_the_outputs(form):
    """The adapted model in float64 gives the float32 outputs to 1e-4."""
    attachment = attached("vit_layer_scale", (*MERGEABLE, "stream") if form == "map" else MERGEABLE, form=form)
    before = _output(attachment.model)
    after = _output(attachment.model.double())
    assert torch.float64 == after.dtype
    torch.testing.assert_close(after.float(), before, rtol=1e-4, atol=1e-4)


@forms
def test_the_adapters_state_survives_a_round_trip(form):
    """Loaded into a fresh attachment with the same selection, it gives equal outputs, bit for bit."""
    backbone = backbone_of(tiny("vit_layer_scale"))
    one = attached(backbone, MERGEABLE, form=form)
    state = {k: v.clone() for k, v in one.adapter.state_dict().items()}
    two = attached(backbone, MERGEABLE, form=form, draw=None)
    assert not torch.equal(_output(one.model), _output(two.model))
    load_adapter(two, state)
    assert torch.equal(_output(one.model), _output(two.model))
    three = attached(backbone, MERGEABLE, form=form, draw=None, seed=9)
    three.model.load_state_dict(one.model.state_dict())
    assert torch.equal(_output(one.model), _output(three.model))


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_a_state_that_does_not_fit_is_refused(change):
    """Strictly: nothing is left out, ignored or broadcast."""
    attachment = attached("vit", ("attn",))
    state = dict(attachment.adapter.state_dict())
    if change == "missing":
        del state["sites.1.attn.map"]
    elif change == "surplus":
        state["sites.7.attn.map"] = torch.zeros(6, 6)
    else:
        state["head.bias"] = torch.zeros(CLASSES + 1)
    with pytest.raises(RuntimeError, match=r"sites\.1\.attn\.map|sites\.7\.attn\.map|head\.bias"):
        load_adapter(attachment, state)


@pytest.mark.parametrize(("form", "kinds"), [("map", (*MERGEABLE, "stream")), ("rows", MERGEABLE)])
def test_the_adapted_model_can_be_exported(form, kinds):
    """torch.export gives a program with equal outputs, also when the trained tensors ask for gradients."""
    model = attached(tiny("vit_layer_scale", depth=1), kinds, form=form).model.eval()
    program = torch.export.export(model, (pictures(),))
    with torch.no_grad():
        found = program.module()(pictures())
    torch.testing.assert_close(found, _output(model), rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_trained_tensor():
    """With maps at all sites at once, in training mode, under gradient checkpointing too."""
    attachment = attached("vit_layer_scale", (*MERGEABLE, "stream"))
    gradients = []
    for checkpointed in (False, True):
        attachment.model.set_grad_checkpointing(checkpointed)
        attachment.model.zero_grad()
        per_image_loss(attachment.model.train()(pictures()), labels()).mean().backward()
        gradients.append([p.grad.clone() for p in attachment.adapter.parameters()])
        assert all(g.any() for g in gradients[-1])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_a_float64_backbone_is_adapted_in_float64():
    """Head, norms and maps take the backbone's format."""
    attachment = attached(tiny("vit").double(), MERGEABLE)
    assert {torch.float64} == {p.dtype for p in attachment.model.parameters()}
    assert torch.float64 == _output(attachment.model).dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_precision_backbone_is_adapted_in_float32(dtype):
    """The copy is float32, and the backbone stays as it was handed over."""
    backbone = backbone_of(tiny("vit").to(dtype))
    before = print_of(backbone.model)
    attachment = attached(backbone)
    assert {torch.float32} == {p.dtype for p in attachment.model.parameters()}
    train_step(attachment.model)
    assert before == print_of(backbone.model)


def test_a_backbone_without_a_head_gets_one():
    """Made with num_classes = 0, its classifier is an Identity."""
    attachment = attached(tiny("vit", num_classes=0))
    assert (6, CLASSES) == _output(attachment.model).shape
    assert nn.Identity is type(attachment.backbone.model.head)
    assert _output(merge(attachment)).shape == (6, CLASSES)


def test_another_picture_size_resizes_the_copy_alone():
    """Positions are resampled in the copy, only norms and head are freed, the backbone keeps its own."""
    backbone = backbone_of(tiny("vit"))
    before = print_of(backbone.model)
    attachment = attach(backbone, CLASSES, image_size=(48, 40))
    with torch.no_grad():
        assert (2, CLASSES) == attachment.model(torch.randn(2, 3, 48, 40)).shape
    assert (1, 31, 32) == attachment.model.pos_embed.shape
    trained = {n for n, p in attachment.model.named_parameters() if p.requires_grad}
    assert {n for n, _ in attach(backbone, CLASSES).model.named_parameters() if "norm" in n or "head" in n} == trained
    assert before == print_of(backbone.model)


def test_a_picture_size_that_patches_do_not_divide_is_refused():
    """The message names the size and the patch."""
    with pytest.raises(BackboneError, match=r"image_size 36 x 32; expected multiples of the patch size, 8 x 8"):
        attach(backbone_of(tiny("vit")), CLASSES, image_size=(36, 32))


def test_a_layer_that_never_acts_is_refused_by_name():
    """BEiT uses the weight of `qkv` directly: a map there would silently do nothing."""
    backbone = backbone_of(tiny("beit"))
    model = attach(backbone, CLASSES).model
    with pytest.raises(SiteError, match=r"site 'qkv': Beit never calls blocks\.0\.attn\.qkv"):
        verify_sites(model, backbone.sites(("attn", "qkv")), PICTURE)


def test_a_layer_whose_output_is_changed_in_place_is_refused_by_name():
    """The backward pass of a gate needs that output."""
    backbone = backbone_of(tiny("vit"))
    backbone.model.blocks[1].mlp.act = nn.ReLU(inplace=True)
    model = attach(backbone, CLASSES).model
    verify_sites(model, backbone.sites(("attn", "mlp", "qkv")), PICTURE)
    with pytest.raises(SiteError, match=r"site 1\.fc1: VisionTransformer changes its output in place"):
        verify_sites(model, backbone.sites(("fc1",)), PICTURE)


class WithLora(nn.Linear):
    """A layer with an adapter of its own."""

    def forward(self, x):
        return super().forward(x) + x


def test_a_layer_that_computes_more_than_its_weight_is_refused_by_name():
    """Tuning would leave the rest of it out, and so would merging."""
    backbone = backbone_of(tiny("vit"))
    own = backbone.model.blocks[0].attn.proj
    backbone.model.blocks[0].attn.proj = WithLora(own.in_features, own.out_features)
    model = attach(backbone, CLASSES).model
    with pytest.raises(SiteError, match=r"site 0\.attn: a WithLora that is no plain W x \+ b"):
        verify_sites(model, backbone.sites(("attn",)), PICTURE)
    backbone.model.blocks[0].attn.proj = own
    own.register_forward_hook(lambda layer, x, y: 2 * y)
    with pytest.raises(SiteError, match=r"site 0\.attn: a Linear that is no plain W x \+ b"):
        verify_sites(attach(backbone, CLASSES).model, backbone.sites(("attn",)), PICTURE)


@pytest.mark.parametrize("by", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm])
def test_a_weight_that_is_made_of_others_is_no_site(by):
    """Nothing can be folded into it."""
    backbone = backbone_of(tiny("vit"))
    by(backbone.model.blocks[1].mlp.fc1)
    backbone.sites(("attn", "mlp"))
    with pytest.raises(SiteError, match=r"Linear whose weight is made of others at blocks\.1\.mlp\.fc1"):
        backbone.sites(("fc1",))


@pytest.mark.parametrize("shared", ["layer", "weight", "parent"])
def test_a_layer_or_weight_that_stands_in_two_places_is_refused_by_name(shared):
    """The second map would be folded into what the first one has changed."""
    backbone = backbone_of(tiny("vit"))
    first, second = backbone.model.blocks[0], backbone.model.blocks[1]
    if shared == "layer":
        second.mlp.fc1 = first.mlp.fc1
    elif shared == "weight":
        second.mlp.fc1.weight = first.mlp.fc1.weight
    else:
        second.mlp = first.mlp
    model = attach(backbone, CLASSES).model
    verify_sites(model, backbone.sites(("attn",)), PICTURE)
    with pytest.raises(
        SiteError, match=r"site 0\.fc1: blocks\.0\.mlp\.fc1, or a parameter of it, stands in another place"
    ):
        verify_sites(model, backbone.sites(("fc1",)), PICTURE)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_that_is_called_by_keyword_acts():
    """As code of one's own may do."""
    backbone = backbone_of(tiny("vit"))
    mlp = backbone.model.blocks[0].mlp
    mlp.forward = lambda x: mlp.fc2(input=mlp.act(mlp.fc1(input=x)))
    assert acting_kinds(backbone, backbone.model, ("fc1", "mlp"), PICTURE) == ("fc1", "mlp")


def test_weights_that_are_not_finite_are_left_to_the_loss():
    """Whose message says more."""
    backbone = backbone_of(tiny("vit"))
    with torch.no_grad():
        backbone.model.blocks[0].mlp.fc1.weight[0, 0] = float("nan")
    assert acting_kinds(backbone, backbone.model, ("fc1", "mlp", "attn"), PICTURE) == ("fc1", "mlp", "attn")


def test_channels_in_another_axis_than_the_table_says_are_refused():
    """The output's shape is looked at."""
    model = attached("vit", (), draw=None).model
    wrong = Site(0, "attn", "blocks.0.attn.proj", 32, 32, 1, has_bias=True)
    with pytest.raises(SiteError, match="32 channels in dimension 1"):
        verify_sites(model, (wrong,), PICTURE)


@pytest.mark.parametrize("kind", [*MERGEABLE, "stream"])
def test_verifying_leaves_no_trace(kind):
    """No hooks, the same mode; also when a site is refused."""
    backbone = backbone_of(tiny("vit"))
    model = attach(backbone, CLASSES).model.train()
    before = print_of(model)
    verify_sites(model, backbone.sites((kind,)), PICTURE)
    assert before == print_of(model)
    unused = Site(0, kind, "head_drop", 999, 1, -1, has_bias=True)
    with pytest.raises(SiteError):
        verify_sites(model, (unused,), PICTURE)
    assert before == print_of(model)
