"""The methods that are compared train what they say and nothing else."""

import numpy as np
import pytest
import torch

from models import tiny
from ttctune.bench.methods import METHODS, recipe_for
from ttctune.errors import RecipeError
from ttctune.run import Run, prepare
from ttctune.training.device import find_device
from ttctune.training.progress import Reporter

#: Trained parameters of the tiny ViT (width 32, 2 blocks), head left out.
NORMS = 5 * 2 * 32
MAPS = 2 * 2 * (8 * 8 + 8)


def prepared(method: str, epochs: int = 2) -> Run:
    random = np.random.default_rng(0)
    data = (random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), np.arange(12) % 3)
    recipe = recipe_for(METHODS[method], epochs, batch_size=6, precision="fp32")
    return prepare(tiny("vit"), data, recipe, None, find_device("cpu"), Reporter(quiet=True), None)


@pytest.mark.parametrize(("method", "expected"), [("linear", 0), ("norm", NORMS), ("ttc", NORMS + MAPS)])
def test_a_method_counts_and_changes_exactly_what_it_trains(method: str, expected: int) -> None:
    run = prepared(method)
    before = {name: tensor.clone() for name, tensor in run.attachment.model.state_dict().items()}
    assert METHODS[method].train(run) == expected
    after = run.attachment.model.state_dict()
    changed = {name for name in before if name in after and not torch.equal(before[name], after[name])}
    norms = {f"{n}.{p}" for n in run.attachment.norms for p in ("weight", "bias")}
    assert changed - {"head.weight", "head.bias"} == (norms if expected else set())
    assert {"head.weight", "head.bias"} <= changed


def test_full_fine_tuning_changes_every_parameter_and_leaves_the_backbone_alone() -> None:
    run = prepared("full")
    backbone = run.attachment.backbone.model
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    body = [n for n, _ in run.attachment.model.named_parameters() if not n.startswith("head.")]
    assert METHODS["full"].train(run) == sum(p.numel() for n, p in backbone.named_parameters() if n in body)
    after = dict(run.attachment.model.named_parameters())
    assert all(not torch.equal(before[name], after[name]) for name in body)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("method", "epochs", "split"), [("ttc", 20, (2, 18)), ("ttc", 5, (1, 4)), ("paper", 10, (5, 5))]
)
def test_epochs_are_split_as_in_the_preset(method: str, epochs: int, split: tuple[int, int]) -> None:
    recipe = recipe_for(METHODS[method], epochs)
    assert (recipe.align_epochs, recipe.tune_epochs) == split


def test_a_setting_beyond_its_bounds_is_refused() -> None:
    with pytest.raises(RecipeError, match="batch_size"):
        recipe_for(METHODS["ttc"], 10, batch_size=0)
