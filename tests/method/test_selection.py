"""Which channels are selected: exactly K with ties, and never more than a budget buys."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import backbone_of, tiny
from ttctune.backbone.model import Site
from ttctune.errors import RecipeError, ScoreError
from ttctune.method.channels import FORMS
from ttctune.method.selection import parameters_of, ranking, select_by_budget, select_per_site

#: Scores with many ties.
TIED = st.lists(st.integers(0, 3), min_size=2, max_size=12).filter(lambda s: len(set(s)) > 1)
NO_DEADLINE = settings(deadline=None, max_examples=100, derandomize=True, database=None)


def _site(block: int, width: int, inputs: int = 5, has_bias: bool = True, kind: str = "attn") -> Site:
    return Site(block, kind, f"blocks.{block}.attn.proj", width, inputs, -1, has_bias)


@NO_DEADLINE
@given(scores=TIED, data=st.data())
def test_exactly_k_channels_with_ties_to_the_lower_index(scores, data):
    """The first k of a sort by falling score and rising index, handed out in ascending order, as int64."""
    k = data.draw(st.integers(1, len(scores)))
    expected = sorted(sorted(range(len(scores)), key=lambda c: (-scores[c], c))[:k])
    found = select_per_site({"0.attn": torch.tensor(scores, dtype=torch.float32)}, {"0.attn": k})["0.attn"]
    assert torch.int64 == found.dtype
    assert expected == found.tolist()


def test_a_tie_at_the_border_of_k_goes_to_the_lower_index():
    """Channels 1, 2 and 4 tie for the two places behind channel 3."""
    assert [1, 2, 3] == select_per_site({"a": torch.tensor([0.0, 5, 5, 9, 5])}, {"a": 3})["a"].tolist()


def test_ranking_is_stable_in_wide_sites():
    """3072 channels of two scores stay in the order of their index."""
    scores = torch.zeros(3072)
    scores[::2] = 1
    expected = [*range(0, 3072, 2), *range(1, 3072, 2)]
    assert expected == ranking("0.fc1", scores).tolist()


def test_every_site_is_selected_by_its_own_scores():
    """Sites of different widths keep their names and take as many channels each as they are told."""
    scores = {"0.attn": torch.tensor([3.0, 1, 2]), "0.fc1": torch.tensor([0.0, 1, 5, 2, 4])}
    found = {name: channels.tolist() for name, channels in select_per_site(scores, {"0.attn": 2, "0.fc1": 3}).items()}
    assert {"0.attn": [0, 2], "0.fc1": [2, 3, 4]} == found


@pytest.mark.parametrize("k", [-1, 0, 4])
def test_k_outside_one_to_width_is_refused(k):
    """The message names k, the site and the bounds."""
    with pytest.raises(RecipeError, match=rf"^{k} channels at site 0.attn; expected 1 to 3"):
        select_per_site({"0.attn": torch.tensor([1.0, 2, 3])}, {"0.attn": k})


def test_k_larger_than_one_of_several_sites_is_refused():
    """The narrow site is the one that is named."""
    scores = {"0.fc1": torch.arange(8.0), "0.attn": torch.arange(3.0)}
    with pytest.raises(RecipeError, match=r"site 0\.attn"):
        select_per_site(scores, dict.fromkeys(scores, 4))


def test_all_channels_of_a_site_may_be_selected():
    """K equal to the width."""
    assert [0, 1, 2] == select_per_site({"a": torch.tensor([1.0, 3, 2])}, {"a": 3})["a"].tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_refused(bad):
    """One such score is enough, in both ways of selecting."""
    scores = {"2.mlp": torch.tensor([1.0, bad, 2.0])}
    with pytest.raises(ScoreError, match=r"2\.mlp that are not finite"):
        select_per_site(scores, {"2.mlp": 1})
    with pytest.raises(ScoreError, match=r"2\.mlp that are not finite"):
        select_by_budget(scores, [Site(2, "mlp", "x", 3, 5, -1, has_bias=True)], 50, "map")


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_scores_that_are_all_equal_are_refused(value):
    """They decide nothing; the message says what they all are."""
    with pytest.raises(ScoreError, match=f"all {value:g}"):
        select_per_site({"0.attn": torch.full((4,), value)}, {"0.attn": 2})


@pytest.mark.parametrize("family", ["vit", "vit_no_qkv_bias"])
@pytest.mark.parametrize("form", ["map", "rows"])
@pytest.mark.parametrize("kind", ["attn", "mlp", "qkv", "fc1"])
def test_parameters_of_is_what_a_form_really_has(family, form, kind):
    """Counted on the module itself, with and without a bias in the layer."""
    backbone = backbone_of(tiny(family))
    site = backbone.sites([kind])[0]
    layer = backbone.model.get_submodule(site.path)
    for k in (1, 3):
        tuning = FORMS[form](torch.arange(k), layer.weight, site.has_bias)
        assert sum(p.numel() for p in tuning.parameters()) == parameters_of(site, form, k)


@pytest.mark.parametrize("k", range(5))
def test_the_next_channel_costs_2k_plus_2_for_a_map_and_inputs_plus_1_for_rows(k):
    """In a site that has k channels and a bias."""
    site = _site(0, 8, inputs=5)
    assert 2 * k + 2 == parameters_of(site, "map", k + 1) - parameters_of(site, "map", k)
    assert 5 + 1 == parameters_of(site, "rows", k + 1) - parameters_of(site, "rows", k)


def test_parameters_of_stream_count_the_maps_own_bias():
    """There is no layer, but the map has a bias: k^2 + k."""
    assert 12 == parameters_of(Site(0, "stream", "blocks.0.norm2", 8, 0, -1, has_bias=False), "map", 3)


def _greedy(scores: dict[str, list[int]], sites: list[Site], budget: int, form: str) -> dict[str, list[int]]:
    """Look at the next channel of every site; take the best per parameter among those that fit; repeat."""
    taken: dict[str, list[int]] = {site.name: [] for site in sites}
    while True:
        offers = []
        for index, site in enumerate(sites):
            s, have = scores[site.name], taken[site.name]
            rest = sorted((c for c in range(site.width) if c not in have), key=lambda c: (-s[c], c))
            k = len(have)
            cost = {"map": 2 * k + 1, "rows": site.inputs}[form] + (1 if site.has_bias else 0)
            if rest and cost <= budget:
                offers.append((-float(s[rest[0]]) / cost, index, rest[0], cost))
        if not offers:
            return {name: sorted(channels) for name, channels in taken.items() if channels}
        _, index, channel, cost = min(offers)
        taken[sites[index].name].append(channel)
        budget -= cost


@NO_DEADLINE
@given(scores=st.lists(TIED, min_size=1, max_size=3), form=st.sampled_from(["map", "rows"]), data=st.data())
def test_a_budget_is_spent_greedily_by_gain_per_parameter_and_never_exceeded(scores, form, data):
    """Equal to a brute-force greedy choice over all sites, and within the budget."""
    sites = [_site(i, len(s), data.draw(st.integers(1, 6)), data.draw(st.booleans())) for i, s in enumerate(scores)]
    budget = data.draw(st.integers(min(parameters_of(s, form, 1) for s in sites), 120))
    named = {site.name: s for site, s in zip(sites, scores, strict=True)}
    tensors = {name: torch.tensor(s, dtype=torch.float64) for name, s in named.items()}
    found = select_by_budget(tensors, sites, budget, form)
    assert _greedy(named, sites, budget, form) == {name: channels.tolist() for name, channels in found.items()}
    by_name = {site.name: site for site in sites}
    assert budget >= sum(parameters_of(by_name[n], form, len(c)) for n, c in found.items())


def test_a_budget_worked_out_by_hand():
    """Maps with bias cost 2, 4, 6: gains 9/2, 6/2, 8/4, 5/4 are taken in this order, up to 12 parameters."""
    sites = [_site(0, 3), _site(1, 3)]
    scores = {"0.attn": torch.tensor([1.0, 9, 8]), "1.attn": torch.tensor([6.0, 5, 0])}
    found = select_by_budget(scores, sites, 12, "map")
    assert {"0.attn": [1, 2], "1.attn": [0, 1]} == {name: c.tolist() for name, c in found.items()}
    assert {"0.attn": [1, 2], "1.attn": [0]} == {
        name: c.tolist() for name, c in select_by_budget(scores, sites, 11, "map").items()
    }


def test_a_site_too_dear_for_the_budget_is_left_out():
    """Rows of 100 inputs do not fit into 20 parameters, rows of 9 do, twice."""
    sites = [_site(0, 3, inputs=100), _site(1, 3, inputs=9)]
    scores = {"0.attn": torch.tensor([900.0, 1, 2]), "1.attn": torch.tensor([1.0, 3, 2])}
    assert {"1.attn": [1, 2]} == {n: c.tolist() for n, c in select_by_budget(scores, sites, 20, "rows").items()}


def test_a_budget_for_everything_takes_everything():
    """No channel is taken twice."""
    found = select_by_budget({"0.attn": torch.tensor([1.0, 0, 2])}, [_site(0, 3)], 10_000, "map")
    assert [0, 1, 2] == found["0.attn"].tolist()


@pytest.mark.parametrize(("form", "cheapest"), [("map", 2), ("rows", 6)])
def test_a_budget_below_one_channel_is_refused(form, cheapest):
    """The message says what one channel costs, and just that is accepted."""
    scores, sites = {"0.attn": torch.tensor([1.0, 0, 2])}, [_site(0, 3)]
    with pytest.raises(RecipeError, match=f"at least {cheapest}, the cost of one channel"):
        select_by_budget(scores, sites, cheapest - 1, form)
    assert [2] == select_by_budget(scores, sites, cheapest, form)["0.attn"].tolist()
