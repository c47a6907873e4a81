"""The methods that are compared train what they say, nothing else, and the same from the same seed."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from tests.bench.runs import outputs, prepared

from models import print_of, tiny
from ttctune.bench.methods import METHODS, recipe_for, titles_of
from ttctune.errors import RecipeError
from ttctune.run import Run
from ttctune.training.trainer import Trainer

#: Parameters of the tiny ViT (width 32, MLP 64 wide, 2 blocks, 16 patches of 8 x 8), head left out.
WIDTH, HIDDEN, BLOCKS = 32, 64, 2
NORMS = 2 * (2 * BLOCKS + 1) * WIDTH
CHANNELS = BLOCKS * (5 * WIDTH + HIDDEN)  # behind qkv, proj, fc1 and fc2
LORA = BLOCKS * 8 * (WIDTH + 3 * WIDTH)
MAPS = 2 * BLOCKS * (4 * 4 + 4)
GATES = 2 * BLOCKS * (3 * WIDTH + HIDDEN)  # scale and shift at qkv and fc1
OURS = NORMS + MAPS + GATES
FULL = (
    NORMS
    + BLOCKS * (WIDTH * (3 * WIDTH + WIDTH) + 2 * WIDTH * HIDDEN)
    + CHANNELS
    + (3 * 8 * 8 + 1) * WIDTH  # patches
    + (16 + 1) * WIDTH  # positions
    + WIDTH  # class token
)

NORM, MAP, PAIR = r"norm\d?\.(weight|bias)", r"\.tuning\.(map|bias)", r"\.lora_[AB]\."
GATED = rf"{NORM}|{MAP}|\.gates\.(log_scale|shift)$"

#: Method -> what it trains, as the names of parameters, and how many, head left out.
TRAINED = {
    "linear": ("nothing", 0),
    "norm": (NORM, NORMS),
    "bitfit": (r"bias$", CHANNELS + NORMS // 2 + WIDTH),
    "full": (".", FULL),
    "lora": (PAIR, LORA),
    "ssf": (r"\.(scale|shift)$", 2 * (CHANNELS + WIDTH) + NORMS),
    "adaptformer": (r"\.(down|up)\.", BLOCKS * (2 * WIDTH * 8 + 8 + WIDTH)),
    "vpt": (r"\.prompts$", BLOCKS * 10 * WIDTH),
    "sct": (MAP, BLOCKS * (4 * 4 + 4)),
    "paper": (f"{NORM}|{MAP}", NORMS + BLOCKS * (4 * 4 + 4)),
    "ttc": (GATED, OURS),
    "ttc-maps": (f"{NORM}|{MAP}", NORMS + 2 * BLOCKS * (8 * 8 + 8)),
    "ttc-random": (GATED, OURS),
    "ttc-bottom": (GATED, OURS),
    "joint": (GATED, OURS),
    "norm-long": (NORM, NORMS),
    "lora+norm": (f"{NORM}|{PAIR}", NORMS + LORA),
    "align+lora": (f"{NORM}|{PAIR}", NORMS + LORA),
}
HEAD = r"^head\."


@cache
def trained(method: str, seed: int = 0) -> tuple[Run, int, dict[str, object], dict[str, object]]:
    """A trained run, its number of parameters, and prints of the backbone before and after."""
    backbone = tiny("vit")
    run = prepared(method, backbone, seed=seed)
    before = print_of(backbone)
    return run, METHODS[method].train(run), before, print_of(backbone)


def test_every_method_is_held_to_what_it_trains() -> None:
    assert TRAINED.keys() == METHODS.keys()


@pytest.mark.parametrize("method", METHODS)
def test_exactly_the_declared_parameters_change_and_are_counted(method: str) -> None:
    run, parameters, _, _ = trained(method)
    frozen = list(run.attachment.backbone.model.parameters())
    named = dict(run.attachment.model.named_parameters())
    changed = {n for n, p in named.items() if not any(f.shape == p.shape and torch.equal(f, p) for f in frozen)}
    pattern, expected = TRAINED[method]
    assert changed == {n for n in named if re.search(pattern, n) or re.search(HEAD, n)}
    assert all(named[n].std() > 0 for n in changed)
    assert parameters == expected
    assert parameters == sum(named[n].numel() for n in changed if not re.search(HEAD, n))


@pytest.mark.parametrize("method", METHODS)
def test_the_backbone_stays_as_it_is_in_every_bit(method: str) -> None:
    _, _, before, after = trained(method)
    assert after == before


@cache
def loss_before() -> float:
    """What every method begins with: the backbone with the new head."""
    return loss_of(prepared("linear"))


def loss_of(run: Run) -> float:
    return float(run.trainer.loss(outputs(run), run.trainer.images.labels).mean())


@pytest.mark.parametrize("method", METHODS)
def test_a_few_steps_lower_the_loss(method: str) -> None:
    run, _, _, _ = trained(method)
    assert loss_of(run) < loss_before()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits(method: str) -> None:
    run, again = trained(method)[0], trained.__wrapped__(method)[0]
    assert torch.equal(outputs(run), outputs(again))


@pytest.mark.parametrize("method", ["linear", "lora", "adaptformer", "vpt", "ttc-random"])
def test_another_seed_gives_another_model(method: str) -> None:
    assert not torch.allclose(outputs(trained(method)[0]), outputs(trained(method, 1)[0]))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gets_the_same_number_of_epochs_but_for_the_one_that_says_so(method: str) -> None:
    run = trained(method)[0]
    assert len(run.state.history) == (4 if method == "norm-long" else 2)
    assert {"stage", "epoch", "loss", "accuracy", "seconds"} <= run.state.history[0].keys()


@pytest.mark.parametrize(
    ("method", "epochs", "split"),
    [
        ("ttc", 20, (2, 18)),
        ("ttc", 5, (1, 4)),
        ("paper", 10, (5, 5)),
        ("joint", 20, (0, 19)),
        ("norm-long", 20, (4, 36)),
    ],
)
def test_epochs_are_split_as_in_the_preset(method: str, epochs: int, split: tuple[int, int]) -> None:
    recipe = recipe_for(METHODS[method], epochs)
    assert (recipe.align_epochs, recipe.tune_epochs) == split


@pytest.mark.parametrize(("aligned", "tuned"), [(6, 14), (0, 19), (19, 1)])
def test_an_alignment_of_another_length_leaves_the_epochs_in_all_as_they_are(aligned: int, tuned: int) -> None:
    recipe = recipe_for(METHODS["ttc"], 20, align_epochs=aligned)
    assert (recipe.align_epochs, recipe.tune_epochs) == (aligned, tuned)


def test_a_method_of_one_stage_trains_for_all_epochs_whatever_the_alignment() -> None:
    recipe = recipe_for(METHODS["norm"], 20, align_epochs=0)
    assert recipe.align_epochs + recipe.tune_epochs == 20


def test_an_alignment_longer_than_all_epochs_is_refused() -> None:
    with pytest.raises(RecipeError, match="align_epochs = 21; expected 0 to 20"):
        recipe_for(METHODS["ttc"], 20, align_epochs=21)


@pytest.mark.parametrize("method", ["ttc", "joint", "align+lora"])
def test_one_epoch_is_too_few_for_two_stages(method: str) -> None:
    with pytest.raises(RecipeError, match=r"1 epochs for the two stages of .*; expected at least 2"):
        recipe_for(METHODS[method], 1)
    with pytest.raises(RecipeError, match=r"20 epochs for the two stages of .*; expected at least 21"):
        recipe_for(METHODS[method], 20, align_epochs=20)


def test_a_setting_beyond_its_bounds_is_refused() -> None:
    with pytest.raises(RecipeError, match="batch_size"):
        recipe_for(METHODS["ttc"], 10, batch_size=0)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.dial])
def test_the_dial_changes_the_size_and_stands_at_its_default(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = trained(method)[1]
    monkeypatch.setattr(Trainer, "train", lambda *_, **__: None)  # which changes no size
    row = METHODS[method]
    assert row.dial.default in row.dial.values and list(row.dial.values) == sorted(row.dial.values)
    sizes = {value: row.at(value).train(prepared(row.at(value))) for value in row.dial.values}
    assert sorted(sizes.values()) == list(sizes.values()) and len(set(sizes.values())) == len(sizes)
    assert sizes[row.dial.default] == usual


def test_a_dial_that_is_not_there_or_beyond_its_bounds_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"linear probe.*no dial"):
        METHODS["linear"].at(3)
    with pytest.raises(RecipeError, match=r"rank = 0 for LoRA"):
        METHODS["lora"].at(0)
    with pytest.raises(RecipeError, match=r"prompts = 2.5 for VPT-Deep"):
        METHODS["vpt"].at(2.5)
    with pytest.raises(RecipeError, match="channels"):
        recipe_for(METHODS["ttc"].at(-1), 2)


def test_only_the_linear_probe_takes_a_folder_for_features(tmp_path: Path) -> None:
    keeping = {name for name, method in METHODS.items() if method.with_features(tmp_path) is not method}
    assert keeping == {"linear"}


def test_variants_are_shown_behind_their_method():
    titles = titles_of(["linear", "lora@r=2", "ttc@few", "ttc"])
    assert [*titles][:2] == ["linear", "norm"] and len(titles) == len(METHODS) + 2
    assert [*titles.values()][[*titles].index("ttc") :][:2] == ["two-stage", "two-stage, few"]
    assert titles["lora@r=2"] == "LoRA, r=2"
