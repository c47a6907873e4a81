"""Where each method acts, how it begins, and which families it refuses."""

import copy
import sys

import pytest
import timm.layers
import torch
from tests.bench.runs import outputs, prepared
from torch import nn

from models import tiny
from ttctune.bench.methods import METHODS
from ttctune.bench.methods.adaptformer import SCALE, adaptformer
from ttctune.bench.methods.lora import lora
from ttctune.bench.methods.own_parameters import bitfit, full
from ttctune.bench.methods.sct import sct
from ttctune.bench.methods.ssf import ssf
from ttctune.bench.methods.stages import Put
from ttctune.bench.methods.vpt import vpt
from ttctune.errors import BackboneError, PackageError, SiteError
from ttctune.images.batches import LabelledImages
from ttctune.method.importance import score
from ttctune.run import settle
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.stochastic_depth import stochastic_depth

FAMILIES = ("vit_registers", "deit_distilled", "swin")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("put", [bitfit, full, lora, ssf, adaptformer, sct])
def test_the_adapted_model_begins_as_the_backbone(put: Put, family: str) -> None:
    run = prepared("sct" if put is sct else "norm", family)
    before = outputs(run)
    put(run)
    torch.testing.assert_close(outputs(run), before, rtol=1e-5, atol=1e-5)


def test_prompts_act_from_the_first_step_on() -> None:
    run = prepared("vpt")
    before = outputs(run)
    vpt(run)
    assert not torch.allclose(outputs(run), before, atol=1e-3)


def test_lora_runs_on_the_fused_layer_so_that_the_rows_of_q_k_and_v_all_change() -> None:
    """The form on q and v has as many parameters, and would leave the middle third as it is."""
    run = prepared("lora", epochs=4)
    METHODS["lora"].train(run)
    qkv = run.attachment.model.get_submodule("blocks.0.attn.qkv")
    change = qkv.get_delta_weight("default").detach()
    assert all(rows.abs().max() > 1e-5 for rows in change.chunk(3))
    assert torch.linalg.matrix_rank(change) <= 8
    folded = qkv.base_layer.weight + change
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(qkv(x).detach(), nn.functional.linear(x, folded, qkv.base_layer.bias))


@torch.no_grad()
def test_ssf_scales_and_shifts_every_output_of_a_layer() -> None:
    run = prepared("ssf", "vit")
    ssf(run)
    x = torch.randn(2, 5, 32)
    for path in ("blocks.1.attn.qkv", "blocks.0.norm1", "norm"):
        tuned = run.attachment.model.get_submodule(path)
        tuned.scale.normal_()
        tuned.shift.normal_()
        torch.testing.assert_close(tuned(x), tuned.layer(x) * tuned.scale + tuned.shift)
    patches = run.attachment.model.patch_embed.proj
    patches.scale.normal_()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(patches(images), patches.layer(images) * patches.scale[:, None, None])


@torch.no_grad()
def test_adaptformer_adds_a_bottleneck_of_the_stream_beside_the_mlp() -> None:
    run = prepared("adaptformer")
    block = run.attachment.model.get_submodule("blocks.0")
    plain = copy.deepcopy(block)
    adaptformer(run, width=3)
    beside = block.norm2
    beside.up.weight.normal_()
    x = torch.randn(2, 5, 32)
    middle = x + plain.attn(plain.norm1(x))
    bottleneck = beside.up(torch.relu(beside.down(middle)))
    torch.testing.assert_close(block(x), middle + plain.mlp(plain.norm2(middle)) + SCALE * bottleneck)


@pytest.mark.parametrize(("family", "prefix"), [("vit", 1), ("vit_registers", 3), ("vit_siglip", 0)])
@torch.no_grad()
def test_prompts_stand_behind_the_prefix_tokens_and_leave_after_their_block(family: str, prefix: int) -> None:
    run = prepared("vpt", family)
    block = run.attachment.model.get_submodule("blocks.0")
    plain = copy.deepcopy(block)
    vpt(run, prompts=4)
    x = torch.randn(2, 7, 32)
    longer = plain(torch.cat([x[:, :prefix], block.prompts.expand(2, -1, -1), x[:, prefix:]], 1))
    torch.testing.assert_close(block(x), torch.cat([longer[:, :prefix], longer[:, prefix + 4 :]], 1))


@torch.no_grad()
def test_a_copy_of_a_prompted_model_reads_its_own_prompts() -> None:
    run = prepared("vpt")
    vpt(run)
    before = outputs(run)
    run.attachment.model = copy.deepcopy(run.attachment.model)
    torch.testing.assert_close(outputs(run), before)
    for block in run.attachment.model.blocks:
        block.prompts.normal_()
    assert not torch.allclose(outputs(run), before, atol=1e-3)


@pytest.mark.parametrize("method", ["lora", "ssf", "adaptformer", "vpt", "sct"])
def test_a_method_trains_in_bfloat16_about_as_in_float32(method: str) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        run = prepared(method, precision=precision)
        settle(run, Checkpoint())
        METHODS[method].train(run)
        losses.append(run.state.history[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[1] != losses[0]


@pytest.mark.parametrize("put", [lora, ssf, adaptformer, vpt])
def test_stochastic_depth_reaches_the_blocks_of_an_adapted_model(put: Put) -> None:
    run = prepared("norm")
    put(run)
    with stochastic_depth(run.attachment.model, run.attachment.backbone, 0.5):
        kinds = [type(m).__name__ for m in run.attachment.model.modules()]
    assert kinds.count("StochasticDepth") == 4


def test_sct_scores_the_patch_tokens_of_the_untouched_backbone() -> None:
    run = prepared("sct")
    METHODS["sct"].train(run)
    fresh = prepared("sct")
    assert isinstance(fresh.trainer.images, LabelledImages)
    expected = score(
        fresh.attachment.model,
        fresh.sites,
        fresh.trainer.scoring_batches(),
        fresh.trainer.loss,
        classes=3,
        importance="l2",
        tokens="patches",
    )
    for name, scores in expected.items():
        assert torch.equal(run.state.importance[name], scores)
        chosen = scores.topk(4).indices.sort().values
        tuning = next(t for site, t in run.attachment.tunings.items() if site.name == name)
        assert torch.equal(tuning.channels, chosen)


def test_the_controls_choose_other_channels_than_the_method() -> None:
    runs = {method: prepared(method) for method in ("ttc", "ttc-random", "ttc-bottom")}
    for method, run in runs.items():
        METHODS[method].train(run)
    chosen = {m: [set(t.channels.tolist()) for t in r.attachment.tunings.values()] for m, r in runs.items()}
    assert chosen["ttc-random"] != chosen["ttc"]
    assert all(not top & bottom for top, bottom in zip(chosen["ttc"], chosen["ttc-bottom"], strict=True))


def test_alignment_precedes_lora_and_norms_go_on_beside_it() -> None:
    run = prepared("align+lora", epochs=3)
    METHODS["align+lora"].train(run)
    rows = run.state.history
    assert [row["stage"] for row in rows] == ["align", "tune", "tune"]
    assert rows[0]["learning_rates"].keys() == {"norms", "head"}
    assert rows[1]["learning_rates"].keys() == {"lora", "norms", "head"}


@pytest.mark.parametrize(
    ("method", "family", "words"),
    [
        ("lora", "beit", "LoRA on BEiT: .* never calls blocks.0.attn.qkv"),
        ("lora", "eva_split_qkv", "LoRA on EVA, EVA-02, DINOv3: .* has nothing"),
        ("lora", "convnext", "LoRA on ConvNeXt: no site qkv"),
        ("ssf", "swinv2", "SSF on SwinV2: .* never calls"),
        ("adaptformer", "tiny_vit", "AdaptFormer on TinyViT: no site stream"),
        ("vpt", "swin", "VPT on Swin"),
        ("vpt", "vit_relpos", "VPT on ViT with relative positions"),
    ],
)
def test_a_family_where_a_method_cannot_act_is_refused_in_one_line(method: str, family: str, words: str) -> None:
    run = prepared(method, family)
    with pytest.raises(BackboneError, match=words) as refusal:
        METHODS[method].train(run)
    assert "\n" not in str(refusal.value) and "leave this method out" in str(refusal.value)


def test_sct_is_refused_where_no_stream_is_read_behind_the_attention() -> None:
    with pytest.raises(SiteError, match="site 'stream' in SwinV2"):
        prepared("sct", "swinv2")


def test_bitfit_is_refused_where_no_layer_has_a_bias() -> None:
    model = tiny("vit", qkv_bias=False, proj_bias=False, norm_layer=timm.layers.RmsNorm)
    model.patch_embed.proj.bias = None
    with pytest.raises(BackboneError, match="BitFit on ViT"):
        bitfit(prepared("bitfit", model))


def test_lora_without_peft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(PackageError, match=r"ttctune\[bench\]"):
        lora(prepared("lora"))
