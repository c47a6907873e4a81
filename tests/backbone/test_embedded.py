"""The embedded backbone: a timm model of a known name whose weights come with the package."""

import timm
import torch

from ttctune.backbone.embedded import NAME, WEIGHTS
from ttctune.backbone.opening import open_backbone


def test_it_opens_without_a_download_by_the_code_that_opens_any_other() -> None:
    backbone = open_backbone(NAME)
    assert (backbone.name, len(backbone.blocks)) == (NAME, 6)
    assert (backbone.input.channels, backbone.input.height, backbone.input.width) == (3, 64, 64)


def test_timm_opens_it_by_name_with_the_same_weights() -> None:
    ours, theirs = open_backbone(NAME).model.state_dict(), timm.create_model(NAME, pretrained=True).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_its_weights_are_trained_and_small() -> None:
    trained, fresh = timm.create_model(NAME, pretrained=True), timm.create_model(NAME)
    assert WEIGHTS.stat().st_size <= 6_000_000
    assert 1_100_000 < sum(p.numel() for p in trained.parameters()) < 1_300_000
    norms = {n: p for n, p in trained.named_parameters() if "norm" in n}
    assert all(not torch.equal(p, fresh.get_parameter(n)) for n, p in norms.items())


def test_a_head_can_be_asked_for() -> None:
    assert timm.create_model(NAME, pretrained=True, num_classes=7)(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
