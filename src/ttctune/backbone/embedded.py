"""The embedded backbone: a small ViT of the package's own, registered with timm, whose weights lie beside this file.

`timm.create_model(NAME, pretrained=True)` builds it once this module is imported; `weights/README.md` is its card.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ttctune.torchvision_operators  # noqa: F401  (before timm)

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # isort: skip
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model  # isort: skip
from timm.models.vision_transformer import VisionTransformer  # isort: skip

NAME = "ttctune_vit_patch8_64"
#: What it is to a timm that has never heard of it: another architecture of the same class, with these arguments.
GENERIC = "vit_tiny_patch16_224"
SHAPE: Mapping[str, Any] = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "class_token": False,
    "global_pool": "avg",
}
WEIGHTS = Path(__file__).parent / "weights" / f"{NAME}.safetensors"

default_cfgs = generate_default_cfgs(
    {
        f"{NAME}.distilled_in200": {
            "file": str(WEIGHTS),
            "input_size": (3, 64, 64),
            "num_classes": 0,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "other",
        }
    }
)


@register_model  # type: ignore[untyped-decorator]
def ttctune_vit_patch8_64(pretrained: bool = False, **settings: Any) -> VisionTransformer:
    """ViT of 1.2 M parameters for 64 px: 8 px patches, 128 wide, 6 blocks, the mean of its tokens as feature."""
    return build_model_with_cfg(VisionTransformer, NAME, pretrained, **{**SHAPE, "num_classes": 0, **settings})
