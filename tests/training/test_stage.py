"""Which groups each recipe trains, for how long and how fast."""

import pytest
from tests.models import attached

from ttctune.recipe import Recipe
from ttctune.training.stage import stages_of


def rates(recipe):
    return [(stage.name, stage.epochs, dict(stage.rates)) for stage in stages_of(recipe)]


def test_the_default_aligns_norms_and_head_and_then_tunes_everything():
    assert rates(Recipe()) == [
        ("align", 2, {"norms": 1e-2, "head": 5e-3}),
        ("tune", 18, {"channels": 1e-2, "norms": 1e-2, "head": 5e-3}),
    ]


def test_the_paper_freezes_the_norms_while_it_tunes():
    assert rates(Recipe.preset("paper"))[1] == ("tune", 10, {"channels": 1e-2, "head": 5e-3})


def test_without_alignment_the_head_alone_is_trained_for_one_epoch():
    assert rates(Recipe(align_epochs=0))[0] == ("head", 1, {"head": 5e-3})


def test_without_tuning_there_is_one_stage():
    assert [name for name, _, _ in rates(Recipe(tune_epochs=0))] == ["align"]


def test_slower_is_a_tenth_and_frozen_is_left_out():
    slower = rates(Recipe(tune_norms="slower", tune_head="slower"))[1][2]
    assert slower == pytest.approx({"channels": 1e-2, "norms": 1e-3, "head": 5e-4})
    assert rates(Recipe(tune_norms="frozen", tune_head="frozen"))[1][2] == {"channels": 1e-2}


@pytest.mark.parametrize("form", ["map", "rows"])
def test_groups_hold_exactly_the_trained_tensors_of_the_adapter(form):
    attachment = attached("vit", ("attn", "mlp"), form=form)
    _, tune = stages_of(Recipe())
    groups = {group.name: set(group.parameters) for group in tune.groups(attachment, 0.1)}
    everything = {name for name, _ in attachment.adapter.named_parameters()}
    assert set.union(*groups.values()) == everything
    assert sum(len(names) for names in groups.values()) == len(everything)
    for group, prefix in (("channels", "sites."), ("norms", "norms."), ("head", "head.")):
        assert groups[group] and all(name.startswith(prefix) for name in groups[group])


def test_a_stage_before_selection_has_no_channels_to_train():
    attachment = attached("vit", ())
    align, tune = stages_of(Recipe())
    assert [g.name for g in align.groups(attachment, 0.1)] == ["norms", "head"]
    assert [g.name for g in tune.groups(attachment, 0.1)] == ["norms", "head"]


def test_norms_are_never_decayed():
    _, tune = stages_of(Recipe())
    decays = {g.name: g.decay for g in tune.groups(attached("vit"), 0.3)}
    assert decays == {"channels": 0.3, "norms": 0.0, "head": 0.3}


def test_both_heads_of_a_distilled_model_are_trained():
    align, _ = stages_of(Recipe())
    heads = align.groups(attached("deit_distilled", ()), 0.1)[1]
    assert set(heads.parameters) == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
