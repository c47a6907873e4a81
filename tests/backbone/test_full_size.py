"""Architectures as people ask for them, at full size with random weights: a step, scores, channels, merge."""

import pytest
import timm
import torch

from models import CLASSES, draw_adapter, labels, per_image_loss, randomise, train_step
from ttctune.backbone.opening import open_backbone
from ttctune.backbone.verification import verify_sites
from ttctune.method.attachment import attach
from ttctune.method.importance import score
from ttctune.method.merge import merge
from ttctune.method.selection import select_per_site

#: Name -> picture size, where it is not the architecture's own.
NAMES = {
    "swin_tiny_patch4_window7_224": None,
    "swinv2_tiny_window8_256": None,
    "convnext_tiny": None,
    "convnextv2_atto": (160, 192),
    "hiera_tiny_224": None,
    "mobilevit_s": (192, 224),
    "vit_small_patch14_dinov2": (224, 224),
    "vit_small_patch14_reg4_dinov2": (224, 196),
    "vit_base_patch16_clip_224": None,
    "vit_tiny_r_s16_p8_224": None,
    "vit_base_resnet26d_224": None,
    "eva02_base_patch14_224": None,
    "vit_medium_patch16_rope_reg1_gap_256": (192, 160),
    "vit_small_patch16_dinov3": None,
    "beit_base_patch16_224": (192, 192),
    "deit3_small_patch16_224": None,
    "pvt_v2_b0": (160, 160),
    "maxvit_tiny_tf_224": None,
    "coatnet_0_rw_224": None,
    "tiny_vit_5m_224": None,
    "swinv2_cr_tiny_224": None,
    "vit_relpos_small_patch16_224": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_size_architecture_is_adapted_and_merged(name):
    """Two pictures: aligned by a step, scored, a quarter of each site's channels tuned by a step, merged equal."""
    backbone = open_backbone(randomise(timm.create_model(name)).eval())
    size = NAMES[name] or (backbone.input.height, backbone.input.width)
    attachment = attach(backbone, CLASSES, image_size=size)
    sites = backbone.sites([kind for kind in ("attn", "mlp") if kind in backbone.family.sites])
    verify_sites(attachment.model, sites, (3, *size))
    images, target = torch.randn(2, 3, *size), labels(2)
    train_step(attachment.model, images, target, rate=1e-3)
    scores = score(attachment.model, sites, [(images, target)], per_image_loss, classes=CLASSES)
    attachment.tune(sites, select_per_site(scores, {site.name: site.width // 4 for site in sites}), "map")
    draw_adapter(attachment, std=0.05)
    train_step(attachment.model, images, target, rate=1e-3)
    with torch.no_grad():
        adapted = attachment.model(images)
        torch.testing.assert_close(merge(attachment)(images), adapted, rtol=1e-3, atol=1e-3)
        for tuning in attachment.tunings.values():
            tuning.map.zero_()
        assert float((attachment.model(images) - adapted).abs().max()) > 1e-2
