"""The embedded backbone: a timm model of a known name whose weights come with the package."""

import subprocess
import sys
from pathlib import Path

import timm
import torch
from tests.run_helpers import arrays

from ttctune.backbone.embedded import NAME, WEIGHTS
from ttctune.backbone.opening import open_backbone
from ttctune.backbone.saving import write_timm_folder
from ttctune.recipe import Recipe
from ttctune.run import adapt


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


def test_a_merged_one_opens_in_a_timm_that_has_never_heard_of_it(tmp_path: Path) -> None:
    recipe = Recipe(align_epochs=1, tune_epochs=1, image_size=48, precision="fp32")
    adapted = adapt(NAME, arrays(), recipe, quiet=True)
    pictures = torch.randn(4, 3, 48, 48)
    with torch.no_grad():
        torch.save((pictures, adapted.model(pictures)), tmp_path / "expected.pt")
    write_timm_folder(tmp_path, adapted.merge(), adapted.input, adapted.classes)
    program = """if True:
        import sys, torch, timm
        model = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True).eval()
        pictures, expected = torch.load(f"{sys.argv[1]}/expected.pt")
        torch.testing.assert_close(model(pictures), expected, atol=1e-4, rtol=1e-4)
        assert not any(name.startswith("ttctune.backbone") for name in sys.modules)
    """
    program = f"import ttctune.torchvision_operators\n{program}"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
