"""Numbers of parameters on ViT-B/16, built on torch's meta device, against the published ones."""

import pytest
import torch
from tests.bench.runs import shell_run

from ttctune.backbone.model import Backbone
from ttctune.backbone.opening import open_shell
from ttctune.bench.methods import METHODS
from ttctune.bench.methods.adaptformer import adaptformer
from ttctune.bench.methods.lora import lora, lora_and_norms
from ttctune.bench.methods.own_parameters import bitfit, full, norm
from ttctune.bench.methods.ssf import ssf
from ttctune.bench.methods.stages import Put, count
from ttctune.bench.methods.vpt import vpt


@pytest.fixture(scope="module")
def vit_base() -> Backbone:
    return open_shell("vit_base_patch16_224")


@pytest.mark.parametrize(
    ("put", "dial", "exact", "published"),
    [
        (norm, {}, 38_400, "0.04"),
        (bitfit, {}, 102_912, "0.10"),
        (full, {}, 85_798_656, "85.80"),
        (lora, {"rank": 8}, 294_912, "0.29"),
        (ssf, {}, 205_824, "0.21"),  # printed as 0.205 and as 0.20
        (adaptformer, {"width": 8}, 156_768, "0.16"),
        (adaptformer, {"width": 64}, 1_189_632, "1.19"),
        (lora_and_norms, {"rank": 8}, 333_312, "0.33"),
        (vpt, {"prompts": 10}, 92_160, "0.09"),
        (vpt, {"prompts": 50}, 460_800, "0.46"),  # the printed 0.53 is a mean over lengths that were searched
    ],
)
def test_a_method_adds_what_is_published(
    vit_base: Backbone, put: Put, dial: dict[str, int], exact: int, published: str
) -> None:
    parameters = count(put(shell_run(vit_base, METHODS["norm"]), **dial))
    assert parameters == exact
    assert f"{parameters / 1e6:.2f}" == published


@pytest.mark.parametrize(
    ("method", "channels"), [("sct", 111_744), ("paper", 111_744), ("ttc-maps", 889_344), ("ttc", 352_512)]
)
def test_maps_and_gates_count_what_their_channels_say(vit_base: Backbone, method: str, channels: int) -> None:
    assert counts_of(vit_base, method)["channels"] == channels


@pytest.mark.parametrize(("method", "in_all"), [("paper", 150_144), ("ttc-maps", 927_744), ("ttc", 390_912)])
def test_two_stages_count_the_norms_too(vit_base: Backbone, method: str, in_all: int) -> None:
    counts = counts_of(vit_base, method)
    assert counts["channels"] + counts["norms"] == in_all


def counts_of(vit_base: Backbone, method: str) -> dict[str, int]:
    run = shell_run(vit_base, METHODS[method])
    first = {site.name: torch.arange(run.recipe.channels_of(site.width)) for site in run.sites}
    run.attachment.tune(run.sites, first, run.recipe.form, run.recipe.gates)
    return run.attachment.parameter_counts()
