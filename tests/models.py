"""Tiny random models of every supported family, in which nothing hides: each tensor is drawn at order 1."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import ttctune.torchvision_operators  # noqa: F401  isort: skip  (before timm)

import timm
import timm.layers
import timm.models.beit
import timm.models.byobnet
import timm.models.deit
import timm.models.eva
import timm.models.mobilevit
import timm.models.vision_transformer as vit
import torch
from torch import Tensor, nn

from ttctune.backbone.description import InputDescription
from ttctune.backbone.model import Backbone, Site, norm_names, tensor_digest
from ttctune.backbone.verification import verify_sites
from ttctune.method.attachment import Attachment, attach
from ttctune.training.trainer import set_training

SIDE, WIDTH, CLASSES = 32, 32, 4
PICTURE = (3, SIDE, SIDE)

_SIZES = {"img_size": SIDE, "patch_size": 8, "embed_dim": WIDTH, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
_vit = partial(vit.VisionTransformer, **_SIZES)
_eva = partial(timm.models.eva.Eva, **_SIZES, use_rot_pos_emb=True)
_relpos = partial(timm.create_model, "vit_relpos_small_patch16_224", **_SIZES)


def _staged(name: str, depths: tuple[int, ...], **settings: object) -> Callable[..., nn.Module]:
    return partial(timm.create_model, name, depths=depths, **settings)


_SWIN = {"img_size": SIDE, "window_size": 4, "embed_dim": 16, "num_heads": (2, 4), "mlp_ratio": 2.0}
_CONVNEXT = {"dims": (8, 16, 16, 24), "ls_init_value": 1e-6}
_MAXXVIT = {"img_size": SIDE, "embed_dim": (16, 32), "stem_width": 16, "transformer_dim_head": 8}


def _hybrid(**settings: object) -> nn.Module:
    stem = timm.create_model("test_resnet", features_only=True, out_indices=(1,))
    return _vit(embed_layer=partial(timm.layers.HybridEmbed, backbone=stem), **{"patch_size": 1} | settings)


def _mobilevit(**settings: object) -> nn.Module:
    xxs = timm.models.mobilevit.model_cfgs["mobilevit_xxs"]
    return timm.models.byobnet.ByobNet(replace(xxs, blocks=xxs.blocks[1:3], num_features=32), **settings)


#: What LayerScale's vectors are called.
LAYER_SCALES = ("gamma", "gamma_1", "gamma_2")
#: A shift of all keys changes no attention: the softmax takes it out, so its gradient is zero.
NO_EFFECT = "k_norm.bias"

#: Family name -> a function that builds a tiny model of it.
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "vit": _vit,
    "vit_layer_scale": partial(_vit, init_values=1e-5),
    "vit_fc_norm": partial(_vit, global_pool="avg", fc_norm=True),
    "vit_clip": partial(_vit, pre_norm=True, norm_layer=timm.layers.LayerNorm),
    "vit_siglip": partial(_vit, global_pool="map", class_token=False),
    "vit_registers": partial(_vit, reg_tokens=2, no_embed_class=True, init_values=1e-5),
    "vit_qk_norm": partial(_vit, qk_norm=True),
    "vit_no_qkv_bias": partial(_vit, qkv_bias=False, proj_bias=False),
    "vit_swiglu": partial(_vit, mlp_layer=timm.layers.SwiGLUPacked, init_values=1e-5),
    "vit_post_norm": partial(_vit, block_fn=vit.ResPostBlock, init_values=1e-5),
    "deit_distilled": partial(timm.models.deit.VisionTransformerDistilled, **_SIZES),
    "beit": partial(timm.models.beit.Beit, **_SIZES, init_values=0.1, use_rel_pos_bias=True),
    "beit_swiglu": partial(timm.models.beit.Beit, **_SIZES, swiglu_mlp=True, scale_mlp=True),
    "eva": partial(_eva, init_values=1e-5),
    "eva_no_qkv_bias": partial(_eva, qkv_bias=False),
    "eva_swiglu": partial(_eva, swiglu_mlp=True, scale_mlp=True),
    "eva_split_qkv": partial(_eva, qkv_fused=False, swiglu_mlp=True, scale_attn_inner=True),
    "eva_rope": partial(_eva, attn_type="rope", init_values=1e-5, num_reg_tokens=2),
    "eva_post_norm": partial(_eva, use_post_norm=True),
    "vit_rms_norm": partial(_vit, norm_layer=timm.layers.RmsNorm),
    "vit_hybrid": _hybrid,
    "vit_relpos": partial(_relpos, class_token=True, init_values=1e-5),
    "vit_relpos_post_norm": partial(timm.create_model, "vit_relpos_base_patch16_rpn_224", **_SIZES),
    "swin": _staged("swin_tiny_patch4_window7_224", (2, 1), **_SWIN),
    "swinv2": _staged("swinv2_tiny_window8_256", (2, 1), **_SWIN),
    "swinv2_cr": _staged("swinv2_cr_tiny_ns_224", (2, 1), **_SWIN),
    "hiera": partial(
        timm.create_model,
        "hiera_tiny_224",
        img_size=SIDE,
        embed_dim=16,
        num_heads=2,
        stages=(1, 1),
        q_pool=1,
        mask_unit_size=(4, 4),
        mlp_ratio=2.0,
        init_values=1e-5,
    ),
    "pvt_v2": _staged("pvt_v2_b0", (1, 1), embed_dims=(16, 32), num_heads=(1, 2), sr_ratios=(2, 1), mlp_ratios=(2, 2)),
    "tiny_vit": _staged(
        "tiny_vit_5m_224", (1, 1, 1), embed_dims=(8, 16, 32), num_heads=(2, 2, 4), window_sizes=(4, 2, 2)
    ),
    "maxvit": _staged("maxvit_tiny_tf_224", (1, 1), block_type=("M", "M"), transformer_partition_ratio=8, **_MAXXVIT),
    "coatnet": _staged("coatnet_0_rw_224", (1, 2), block_type=("C", "T"), transformer_init_values=1e-5, **_MAXXVIT),
    "mobilevit": _mobilevit,
    "convnext": _staged("convnext_tiny", (1, 1, 1, 1), **_CONVNEXT),
    "convnext_conv": _staged("convnext_atto", (1, 1, 1, 1), **_CONVNEXT),
    "convnext_rms_norm": _staged("convnext_tiny", (1, 1, 1, 1), norm_layer="rmsnorm", **_CONVNEXT),
    "convnextv2": _staged("convnextv2_atto", (1, 1, 1, 1), dims=(8, 16, 16, 24)),
}


def tiny(family: str, *, seed: int = 0, num_classes: int = 5, **settings: object) -> nn.Module:
    """A tiny model of a family with all its tensors drawn at random, in eval mode.

    Args:
        family: A key of `BUILDERS`.
        seed: Of the draw.
        num_classes: Outputs of the backbone's own head.
        settings: Go to the model's class.
    """
    torch.manual_seed(seed)
    return randomise(BUILDERS[family](num_classes=num_classes, **settings), seed).eval()


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw norms around 1 and 0, LayerScale at order 1 with random sign, biases and embeddings at order 0.3.

    Weight matrices keep the size that lets a signal of order 1 through: the square root of 1 / inputs.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor, std: float) -> Tensor:
        return std * torch.randn(like.shape, generator=generator, dtype=like.dtype)

    around_one = [model.get_submodule(name) for name in norm_names(model)]
    around_one += [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = {id(p) for norm in around_one for p in norm.parameters(recurse=False)}
    for name, p in model.named_parameters():
        if name.rpartition(".")[2] in LAYER_SCALES:
            sign = torch.randint(0, 2, p.shape, generator=generator) * 2 - 1
            p.copy_(sign * (0.5 + torch.rand(p.shape, generator=generator)))
        elif id(p) in norms:
            p.copy_(normal(p, 0.3) + (1.0 if name.endswith("weight") else 0.0))
        elif p.ndim >= 2 and name.endswith("weight"):
            p.copy_(normal(p, p[0].numel() ** -0.5))
        else:
            p.copy_(normal(p, 0.3))
    return model


def backbone_of(model: nn.Module) -> Backbone:
    """The model as `open_backbone` would hand it over."""
    description = InputDescription(SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)
    return Backbone(model, f"module:{type(model).__name__}", tensor_digest(model), description)


def selected(sites: Iterable[Site], k: int, seed: int = 0) -> dict[str, Tensor]:
    """k random channels of each site, ascending."""
    generator = torch.Generator().manual_seed(seed)
    return {site.name: torch.randperm(site.width, generator=generator)[:k].sort().values for site in sites}


def attached(
    backbone: Backbone | nn.Module | str,
    kinds: Iterable[str] = ("attn", "mlp"),
    *,
    form: str = "map",
    k: int = 6,
    draw: float | None = 0.2,
    seed: int = 0,
) -> Attachment:
    """An adapter on a tiny model, with k random channels at every site and all it trains drawn at random.

    Args:
        backbone: A backbone, a model, or the name of a family.
        kinds: Site kinds; none of them leaves the model at stage 1.
        form: "map" or "rows".
        k: Channels a site.
        draw: Standard deviation of maps, biases and changes of the norms; None leaves all at its start.
        seed: Of every draw.
    """
    backbone = tiny(backbone) if isinstance(backbone, str) else backbone
    backbone = backbone_of(backbone) if isinstance(backbone, nn.Module) else backbone
    attachment = attach(backbone, CLASSES, seed=seed)
    sites = backbone.sites(kinds)
    verify_sites(attachment.model, sites, PICTURE)
    attachment.tune(sites, selected(sites, k, seed), form)
    if draw is not None:
        draw_adapter(attachment, draw, seed)
    return attachment


@torch.no_grad()
def draw_adapter(attachment: Attachment, std: float = 0.2, seed: int = 0) -> None:
    """Change everything that is trained by random numbers of this standard deviation; the head by order 1."""
    generator = torch.Generator().manual_seed(seed + 1)
    for name, p in attachment.adapter.named_parameters():
        scale = 0.3 if name.startswith("head") else std
        p.add_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))


def pictures(n: int = 6, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """n normalised pictures of noise."""
    return torch.randn(n, *PICTURE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def labels(n: int = 6) -> Tensor:
    """n labels that visit every class."""
    return torch.arange(n) % CLASSES


def per_image_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each image."""
    return nn.functional.cross_entropy(logits, target, reduction="none")


def print_of(model: nn.Module) -> dict[str, object]:
    """All there is to notice about a model: tensors bit for bit, identities, flags, hooks, attributes."""
    state: dict[str, object] = {}
    for name, module in model.named_modules():
        state[f"{name}: class"] = type(module)
        state[f"{name}: attributes"] = sorted(module.__dict__)
        state[f"{name}: values"] = {
            k: v for k, v in module.__dict__.items() if isinstance(v, bool | int | float | str | tuple | type(None))
        }
        state[f"{name}: submodules"] = [(k, id(m)) for k, m in module._modules.items()]
        state[f"{name}: hooks"] = {
            k: list(v.values()) for k, v in module.__dict__.items() if "hooks" in k and isinstance(v, dict)
        }
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        bits = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        state[f"{name}: tensor"] = (id(tensor), tensor.data_ptr(), tensor.dtype, tensor.requires_grad, bits)
        state[f"{name}: gradient"] = tensor.grad is None
        state[f"{name}: tensor hooks"] = len(tensor._backward_hooks or {})
    state["keys"] = list(model.state_dict())
    return state


def train_step(model: nn.Module, images: Tensor | None = None, target: Tensor | None = None, rate: float = 0.1) -> None:
    """One step of gradient descent in training mode, on every parameter that asks for a gradient."""
    set_training(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    images = pictures(dtype=trained[0].dtype) if images is None else images
    target = labels(len(images)) if target is None else target
    per_image_loss(model(images), target).mean().backward()
    with torch.no_grad():
        for p in trained:
            p.sub_(rate * p.grad)
            p.grad = None
    model.eval()
