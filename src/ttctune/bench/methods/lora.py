"""LoRA (Hu et al. 2022), PEFT's own, on the fused layer of queries, keys and values.

The published form adapts q and v, each by a pair of its own. timm holds q, k and v in one layer, and PEFT adapts a
layer whole: one pair of matrices, A (rank x inputs) shared by the three and B (3 width x rank), so the rows of k
change too. That fused form is what is run here. The number is the same: on ViT-B/16 with rank 8, 12 blocks times
8 (768 + 2304) = 294,912 fused, 12 times 2 times 8 (768 + 768) = 294,912 on q and v.
"""

import ttctune.torchvision_operators  # noqa: F401  (before peft)
from ttctune.bench.methods.own_parameters import norm
from ttctune.bench.methods.stages import body_group, drawn_from, places
from ttctune.errors import PackageError
from ttctune.run import Run
from ttctune.training.stage import Group


def lora(run: Run, rank: int = 8) -> list[Group]:
    """A pair of matrices in every block, their product scaled by alpha / rank = 1, B zero at the start.

    Raises:
        PackageError: PEFT is not installed.
        BackboneError: The family has no one layer for queries, keys and values, or never calls it.
    """
    try:
        import peft
    except ImportError as error:
        raise PackageError("LoRA without PEFT", "the package peft", "pip install 'ttctune[bench]'") from error
    sites = places(run, "LoRA", ("qkv",))
    model = run.attachment.model
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=[site.path for site in sites])
    with drawn_from(run.recipe.seed):
        peft.inject_adapter_in_model(config, model)
    return [body_group(run, "lora", {n: p for n, p in model.named_parameters() if ".lora_" in n})]


def lora_and_norms(run: Run, rank: int = 8) -> list[Group]:
    """LoRA, and the norms as in stage 1."""
    return [*lora(run, rank), *norm(run)]
