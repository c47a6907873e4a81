"""Which of timm's architectures are supported."""

import pytest
import timm
import torch

from ttctune.backbone.architectures import supported_architectures
from ttctune.backbone.families import FAMILIES
from ttctune.backbone.model import family_of
from ttctune.errors import BackboneError


def test_every_family_has_architectures_and_none_is_in_two():
    """All are timm's, and the names people ask for are where they belong."""
    supported = supported_architectures()
    names = [name for family in supported.values() for name in family]
    assert {row.title for row in FAMILIES} == {title for title, family in supported.items() if family}
    assert len(names) == len(set(names)) and set(names) <= set(timm.list_models())
    for title, name in (
        ("Swin", "swin_tiny_patch4_window7_224"),
        ("ConvNeXt", "convnext_tiny"),
        ("ViT, DeiT, DINOv2, CLIP, SigLIP", "vit_small_patch14_dinov2"),
        ("ViT, DeiT, DINOv2, CLIP, SigLIP", "vit_base_patch16_clip_224"),
        ("Hiera", "hiera_tiny_224"),
        ("EVA, EVA-02, DINOv3", "eva02_tiny_patch14_224"),
    ):
        assert name in supported[title]


@pytest.mark.parametrize("name", ["resnet50", "mobilevitv2_050", "cait_xxs24_224", "vit_small_patch16_18x2_224"])
def test_what_is_refused_is_not_listed(name):
    """No family has it."""
    assert all(name not in family for family in supported_architectures().values())


@pytest.mark.slow
def test_the_list_is_what_the_families_say_of_every_architecture():
    """Each of timm's is built on the meta device: listed are those that have a family, under its title."""
    listed = {name: title for title, names in supported_architectures().items() for name in names}
    found = {}
    for name in timm.list_models():
        with torch.device("meta"):
            model = timm.create_model(name)
        try:
            found[name] = family_of(model).title
        except BackboneError:
            continue
    assert found == listed
