"""The families of backbones, one row each: names and axes, no code.

To add a family, add a row; `tests/backbone/test_families.py` puts every row through the same behaviour matrix.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Where the linear layers of a timm transformer block live; the site's channels are the layer's output channels.
TRANSFORMER_SITES: Mapping[str, str] = {
    "attn": "attn.proj",
    "mlp": "mlp.fc2",
    "qkv": "attn.qkv",
    "fc1": "mlp.fc1",
}


@dataclass(frozen=True)
class Family:
    """Where the method finds its places in one kind of model.

    Attributes:
        title: What people call it.
        model: Class name of the model (or of one of its base classes).
        block: Class name of its blocks.
        blocks: Regular expression that the full name of every block matches.
        sites: Path of each site's layer inside a block.
        stream: Path of the norm that first reads the residual stream after the attention's addition; None where
            the block has no such place.
        drop_paths: Paths of the stochastic-depth modules inside a block.
        axis: Dimension of a layer's output that holds its channels.
    """

    title: str
    model: str
    block: str
    blocks: str = r"blocks\.\d+"
    sites: Mapping[str, str] = field(default_factory=lambda: TRANSFORMER_SITES)
    stream: str | None = "norm2"
    drop_paths: tuple[str, ...] = ("drop_path1", "drop_path2")
    axis: int = -1


FAMILIES: tuple[Family, ...] = (
    Family("ViT, DeiT, DINOv2, CLIP, SigLIP", model="VisionTransformer", block="Block"),
    Family("ViT with post-norm blocks", model="VisionTransformer", block="ResPostBlock", stream=None),
    Family("BEiT", model="Beit", block="Block"),
    Family("EVA", model="Eva", block="EvaBlock"),
    Family("EVA with post-norm blocks", model="Eva", block="EvaBlockPostNorm", stream=None),
)
