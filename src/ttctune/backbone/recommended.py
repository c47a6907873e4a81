"""Models to begin with; plain data, so that they are listed at once. Tests hold every row to what timm builds."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A model that can be adapted.

    Attributes:
        name: timm name, with or without a tag.
        family: Title of its row in the table of families.
        pixels: Height and width of the pictures it was trained on.
        parameters: Without the head.
        widths: Channels of the sites `attn` and `mlp`, ascending; one number where all blocks are alike.
        blocks: Number of blocks.
        sites: What `--sites` can name.
        weights: Tag of each set of weights on timm's hub -> its licence, as timm states it.
    """

    name: str
    family: str
    pixels: tuple[int, int]
    parameters: int
    widths: tuple[int, ...]
    blocks: int
    sites: tuple[str, ...]
    weights: Mapping[str, str]


@dataclass(frozen=True)
class Recommendation:
    """A model to begin with.

    Attributes:
        model: What it is.
        machine: What trains it in reasonable time.
        trained_on: What its weights were trained on.
    """

    model: Architecture
    machine: str
    trained_on: str


VIT, EVA, BEIT = "ViT, DeiT, DINOv2, CLIP, SigLIP", "EVA, EVA-02, DINOv3", "BEiT"
SITES = {
    BEIT: ("attn", "mlp", "fc1", "stream"),
    EVA: ("attn", "mlp", "fc1", "stream"),
    "ConvNeXt": ("mlp", "fc1"),
}
FREE, ASKED = "apache-2.0", "other"
ANY, TWO, EIGHT, GPU = "anything, without a download", "two CPU cores", "eight CPU cores, or a GPU", "a GPU"
SMALLER = "a GPU; with --image-size 224 eight CPU cores"
FOUR_STAGES = (96, 192, 384, 768)


def _row(
    name: str,
    family: str,
    side: int,
    parameters: int,
    widths: int | tuple[int, ...],
    blocks: int,
    licence: str,
    machine: str,
    images: str,
) -> Recommendation:
    model = Architecture(
        name=name,
        family=family,
        pixels=(side, side),
        parameters=parameters,
        widths=(widths,) if isinstance(widths, int) else widths,
        blocks=blocks,
        sites=SITES.get(family, ("attn", "mlp", "qkv", "fc1", "stream")),
        weights={name.partition(".")[2]: licence},
    )
    return Recommendation(model, machine, images)


#: The smallest first.
RECOMMENDED: tuple[Recommendation, ...] = (
    _row("ttctune_vit_patch8_64.distilled_in200", VIT, 64, 1_222_784, 128, 6, ASKED, ANY, "200 classes of ImageNet"),
    _row("deit_tiny_patch16_224.fb_in1k", VIT, 224, 5_524_416, 192, 12, FREE, TWO, "ImageNet-1k"),
    _row("vit_tiny_patch16_224.augreg_in21k", VIT, 224, 5_524_416, 192, 12, FREE, TWO, "ImageNet-21k"),
    _row("eva02_small_patch14_224.mim_in22k", EVA, 224, 21_621_120, 384, 12, "mit", EIGHT, "masked ImageNet-22k"),
    _row("vit_small_patch16_224.augreg_in21k", VIT, 224, 21_665_664, 384, 12, FREE, EIGHT, "ImageNet-21k"),
    _row("vit_small_patch14_dinov2.lvd142m", VIT, 518, 22_056_192, 384, 12, FREE, SMALLER, "images without labels"),
    _row(
        "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k",
        "Swin",
        224,
        27_519_354,
        FOUR_STAGES,
        12,
        "mit",
        EIGHT,
        "ImageNet-22k",
    ),
    _row("convnext_tiny.in12k", "ConvNeXt", 224, 27_820_128, FOUR_STAGES, 18, FREE, EIGHT, "ImageNet-12k"),
    _row("beitv2_base_patch16_224.in1k_ft_in22k", BEIT, 224, 85_761_984, 768, 12, FREE, GPU, "ImageNet-22k"),
    _row("vit_base_patch16_224.augreg_in21k", VIT, 224, 85_798_656, 768, 12, FREE, GPU, "ImageNet-21k"),
    _row("vit_base_patch16_clip_224.openai", VIT, 224, 85_799_424, 768, 12, FREE, GPU, "images and texts"),
    _row("vit_base_patch14_dinov2.lvd142m", VIT, 518, 86_579_712, 768, 12, FREE, GPU, "images without labels"),
    _row("vit_base_patch16_siglip_224.v2_webli", VIT, 224, 92_884_224, 768, 12, FREE, GPU, "images and texts"),
    _row("vit_large_patch14_dinov2.lvd142m", VIT, 518, 304_367_616, 1024, 24, FREE, GPU, "images without labels"),
)
