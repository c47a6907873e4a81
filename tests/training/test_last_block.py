"""In training the last block leaves out what the head does not read: equal outputs and gradients, and it is undone."""

import sys

import pytest
import torch
from tests.bench.runs import outputs, prepared
from tests.models import (
    BUILDERS,
    attached,
    backbone_of,
    draw_adapter,
    labels,
    per_image_loss,
    pictures,
    print_of,
    randomise,
    tiny,
)
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ttctune.backbone.read_out import tokens_read
from ttctune.bench.methods import METHODS
from ttctune.training import last_block
from ttctune.training.last_block import read_tokens_only

#: Family -> tokens that its head reads: class, distillation and register tokens.
READS = {
    "vit": 1,
    "vit_layer_scale": 1,
    "vit_clip": 1,
    "vit_registers": 3,
    "vit_qk_norm": 1,
    "vit_no_qkv_bias": 1,
    "vit_swiglu": 1,
    "vit_rms_norm": 1,
    "vit_hybrid": 1,
    "deit_distilled": 2,
}


def test_every_other_family_is_computed_whole():
    assert {family: tokens_read(tiny(family)) for family in BUILDERS} == dict.fromkeys(BUILDERS) | READS


def test_a_subclass_may_read_what_it_likes():
    class Own(VisionTransformer):
        def forward_head(self, x, pre_logits=False):
            return self.head(x.mean(1))

    assert tokens_read(Own(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)) is None


@pytest.mark.parametrize("family", READS)
def test_outputs_and_gradients_are_those_of_the_whole_block(family):
    backbone = tiny(family).double()
    attachment = attached(backbone)
    attachment.gate(attachment.backbone.sites(["qkv"]))
    draw_adapter(attachment)
    model = attachment.model
    seen = []
    for part in (model.blocks[-1].attn, model.blocks[-1].mlp):
        part.register_forward_hook(lambda part, inputs, output: seen.append(output.shape[1]))

    def computed():
        model.zero_grad()
        logits = model(pictures(dtype=torch.float64))
        per_image_loss(logits, labels()).mean().backward()
        return logits, {name: p.grad.clone() for name, p in attachment.adapter.named_parameters()}

    logits, gradients = computed()
    with read_tokens_only(model, attachment.backbone):
        fewer_logits, fewer_gradients = computed()
    assert seen[2:] == [READS[family]] * 2 and READS[family] < seen[0] == seen[1]
    assert torch.allclose(fewer_logits, logits, atol=1e-10)
    for name, gradient in gradients.items():
        assert torch.allclose(fewer_gradients[name], gradient, atol=1e-10), name
    computed()
    assert seen[4:] == seen[:2]


@pytest.mark.parametrize("option", [{}, {"qk_norm": True}, {"scale_norm": True}, {"gated": True}, {"attn_head_dim": 6}])
def test_every_option_of_timms_attention_is_computed(option):
    attention = randomise(Attention(16, 4, qkv_bias=True, norm_layer=nn.LayerNorm, **option)).double()
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    assert torch.allclose(last_block._attention(attention, 3, x), attention(x)[:, :3], atol=1e-12)


@pytest.mark.parametrize("own", ["differential", "replaced"])
def test_an_attention_of_another_kind_is_computed_whole(own):
    model = tiny("vit", attn_layer="diff") if own == "differential" else tiny("vit")
    attention = model.blocks[-1].attn
    if own == "replaced":
        forward = attention.forward
        attention.forward = lambda x, **mask: forward(x)
    seen = []
    attention.register_forward_hook(lambda part, inputs, output: seen.append(output.shape[1]))
    logits = model(pictures())
    with read_tokens_only(model, backbone_of(model)):
        assert torch.allclose(model(pictures()), logits, atol=1e-5)
    assert seen[0] == seen[1] > 1


@pytest.mark.parametrize("family", ["vit", "vit_siglip"])
def test_the_model_is_itself_again_afterwards_an_error_or_not(family):
    attachment = attached(family)
    before = print_of(attachment.model)
    with pytest.raises(KeyError), read_tokens_only(attachment.model, attachment.backbone):
        raise KeyError
    assert print_of(attachment.model) == before


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_model_that_it_gives_with_whole_blocks(method, monkeypatch):
    # draws differ with the number of tokens; the package's name of that file is the function in it
    monkeypatch.setattr(sys.modules["ttctune.bench.methods.adaptformer"], "DROPOUT", 0.0)
    backbone = tiny("vit")
    fewer = prepared(method, backbone)
    METHODS[method].train(fewer)
    monkeypatch.setattr(last_block, "tokens_read", lambda model: None)
    whole = prepared(method, backbone)
    METHODS[method].train(whole)
    assert torch.allclose(outputs(fewer), outputs(whole), atol=1e-4)
