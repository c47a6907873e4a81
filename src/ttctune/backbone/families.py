"""The families of backbones, one row each: names, no code.

To add a family, add a row; `tests/backbone/test_families.py` puts every row through the same behaviour matrix.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Where the layers of a timm transformer block live; a site's channels are the layer's output channels.
TRANSFORMER_SITES: Mapping[str, str] = {
    "attn": "attn.proj",
    "mlp": "mlp.fc2",
    "qkv": "attn.qkv",
    "fc1": "mlp.fc1",
}

#: Blocks without attention, or whose attention has no one layer for queries, keys and values.
CONVOLUTION_SITES: Mapping[str, str] = {"mlp": "mlp.fc2", "fc1": "mlp.fc1"}
SPLIT_ATTENTION_SITES: Mapping[str, str] = {"attn": "attn.proj", "mlp": "mlp.fc2", "fc1": "mlp.fc1"}

STAGES = r"stages\.\d+\.blocks\.\d+"


#: Classes of norms that stage 1 tunes: LayerNorm, and those of its kind that scale without a shift; subclasses too.
NORMS = frozenset(
    {"LayerNorm", "RMSNorm"}
    | {f"{kind}{suffix}" for kind in ("RmsNorm", "SimpleNorm") for suffix in ("", "Fp32", "2d", "2dFp32")}
)


@dataclass(frozen=True)
class Family:
    """Where the method finds its places in one kind of model.

    Attributes:
        title: What people call it.
        model: Class name of the model (or of one of its base classes).
        block: Class name of its blocks.
        blocks: Regular expression that the full name of every block matches; modules of another class in such a
            place are no blocks of this family.
        sites: Path of each site's layer inside a block.
        stream: Path of the norm that first reads the residual stream after the attention's addition; None where
            the block has no such place.
        drop_paths: Paths of the stochastic-depth modules inside a block.
        architectures: Module of timm.models -> regular expression of the names of its architectures of this family.
    """

    title: str
    model: str
    block: str
    blocks: str = r"blocks\.\d+"
    sites: Mapping[str, str] = field(default_factory=lambda: TRANSFORMER_SITES)
    stream: str | None = "norm2"
    drop_paths: tuple[str, ...] = ("drop_path1", "drop_path2")
    architectures: Mapping[str, str] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of site that a block of this family can have."""
        return (*self.sites, *(["stream"] if self.stream else []))


FAMILIES: tuple[Family, ...] = (
    Family(
        "ViT, DeiT, DINOv2, CLIP, SigLIP",
        "VisionTransformer",
        "Block",
        architectures={
            "vision_transformer": r"(?!.*(_xp_|_18x2_|_rpn_|_d?pwee_)).*",
            "vision_transformer_hybrid": ".*",
            "deit": ".*",
            "vitamin": ".*",
            "embedded": ".*",
        },
    ),
    Family(
        "ViT with post-norm blocks",
        "VisionTransformer",
        "ResPostBlock",
        stream=None,
        architectures={"vision_transformer": ".*_rpn_.*"},
    ),
    Family(
        "ViT with relative positions",
        "VisionTransformerRelPos",
        "RelPosBlock",
        architectures={"vision_transformer_relpos": "(?!.*_rpn_).*"},
    ),
    Family(
        "ViT with relative positions and post-norm blocks",
        "VisionTransformerRelPos",
        "ResPostRelPosBlock",
        stream=None,
        architectures={"vision_transformer_relpos": ".*_rpn_.*"},
    ),
    Family("BEiT", "Beit", "Block", architectures={"beit": ".*"}),
    Family("EVA, EVA-02, DINOv3", "Eva", "EvaBlock", architectures={"eva": "(?!eva02_enormous_).*"}),
    Family(
        "EVA with post-norm blocks",
        "Eva",
        "EvaBlockPostNorm",
        stream=None,
        architectures={"eva": "eva02_enormous_.*"},
    ),
    Family(
        "Swin",
        "SwinTransformer",
        "SwinTransformerBlock",
        r"layers\.\d+\.blocks\.\d+",
        architectures={"swin_transformer": ".*"},
    ),
    Family(
        "SwinV2",
        "SwinTransformerV2",
        "SwinTransformerV2Block",
        r"layers\.\d+\.blocks\.\d+",
        stream=None,
        architectures={"swin_transformer_v2": ".*"},
    ),
    Family(
        "SwinV2-CR",
        "SwinTransformerV2Cr",
        "SwinTransformerV2CrBlock",
        STAGES,
        stream=None,
        architectures={"swin_transformer_v2_cr": ".*"},
    ),
    Family("Hiera", "Hiera", "HieraBlock", architectures={"hiera": ".*"}),
    Family(
        "PVT-v2",
        "PyramidVisionTransformerV2",
        "Block",
        STAGES,
        SPLIT_ATTENTION_SITES,
        architectures={"pvt_v2": ".*"},
    ),
    Family("TinyViT", "TinyVit", "TinyVitBlock", STAGES, stream=None, architectures={"tiny_vit": ".*"}),
    Family(
        "MaxViT",
        "MaxxVit",
        "PartitionAttentionCl",
        rf"{STAGES}\.attn_(block|grid)",
        architectures={"maxxvit": "(test_)?max(?!.*_pm_).*"},
    ),
    Family(
        "CoAtNet",
        "MaxxVit",
        "TransformerBlock2d",
        STAGES,
        stream=None,
        architectures={"maxxvit": "(test_)?coat(?!net_bn_).*"},
    ),
    Family(
        "MobileViT",
        "ByobNet",
        "Block",
        r"stages\.\d+\.\d+\.transformer\.\d+",
        architectures={"mobilevit": "mobilevit_.*"},
    ),
    Family(
        "ConvNeXt",
        "ConvNeXt",
        "ConvNeXtBlock",
        STAGES,
        CONVOLUTION_SITES,
        stream=None,
        drop_paths=("drop_path",),
        architectures={"convnext": ".*"},
    ),
)
