"""The K channels of each site that stage 2 may tune, or one parameter budget spent over all sites."""

import heapq
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ttctune.backbone.model import Site
from ttctune.errors import RecipeError, ScoreError

#: Site name -> int64 channels, ascending.
Selection = dict[str, Tensor]


def parameters_of(site: Site, form: str, k: int) -> int:
    """Trained parameters of a site with k channels: k^2 + k for a map, k (inputs + 1) for rows.

    Without a bias in the layer: k^2 and k inputs. The map at `stream` has a bias of its own.
    """
    bias = k if site.has_bias or site.kind == "stream" else 0
    return (k * k if form == "map" else k * site.inputs) + bias


def select_per_site(scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> Selection:
    """The K channels of largest score at each site, ties to the lower index.

    Args:
        scores: Site name -> float, C.
        counts: Site name -> K, 1 to C.

    Raises:
        RecipeError: K is larger than a site is wide.
        ScoreError: A site's scores are not finite, or all equal: they decide nothing.
    """
    selection = {}
    for name, score in scores.items():
        k = counts[name]
        if not 1 <= k <= len(score):
            raise RecipeError(f"{k} channels at site {name}", f"1 to {len(score)}", "change --channels")
        selection[name] = ranking(name, score)[:k].sort().values
    return selection


def select_by_budget(scores: Mapping[str, Tensor], sites: Sequence[Site], budget: int, form: str) -> Selection:
    """Channels of all sites by gain per parameter, until no further one fits into the budget.

    In a site with k channels the next one costs 2k + 2 for a map, inputs + 1 for rows. Sites that get
    none are left out.

    Args:
        scores: Site name -> float, C.
        sites: The sites, for their sizes.
        budget: Largest number of parameters of all maps or rows together.
        form: "map" or "rows".

    Raises:
        RecipeError: Not even one channel fits.
        ScoreError: A site's scores are not finite, or all equal.
    """
    rankings = {site.name: ranking(site.name, scores[site.name]) for site in sites}
    taken = dict.fromkeys(rankings, 0)
    left = budget
    queue: list[tuple[float, int]] = []

    def offer(index: int) -> None:
        site, k = sites[index], taken[sites[index].name]
        if k < site.width:
            gain = float(scores[site.name][rankings[site.name][k]])
            heapq.heappush(queue, (-gain / _next_cost(site, form, k), index))

    for index in range(len(sites)):
        offer(index)
    while queue:
        _, index = heapq.heappop(queue)
        site = sites[index]
        cost = _next_cost(site, form, taken[site.name])
        if cost <= left:
            left -= cost
            taken[site.name] += 1
            offer(index)
    if left == budget:
        cheapest = min(parameters_of(site, form, 1) for site in sites)
        raise RecipeError(f"budget = {budget}", f"at least {cheapest}, the cost of one channel", "raise --budget")
    return {name: rankings[name][:k].sort().values for name, k in taken.items() if k}


def ranking(name: str, score: Tensor) -> Tensor:
    """int64, C: channels by falling score, ties to the lower index.

    Raises:
        ScoreError: The scores are not finite, or all equal.
    """
    if not torch.isfinite(score).all():
        raise ScoreError(
            f"scores of site {name} that are not finite",
            "finite scores",
            "lower --learning-rate of the alignment",
        )
    if len(score) > 1 and score.min() == score.max():
        raise ScoreError(
            f"scores of site {name} that are all {float(score[0]):g}",
            "scores that tell channels apart",
            "see whether these tokens reach the head (patches do not, behind the last attention of a class-token "
            "model), whether the head is all zero, and whether a norm after the layer still starts at zero",
        )
    return score.sort(descending=True, stable=True).indices


def _next_cost(site: Site, form: str, k: int) -> int:
    return parameters_of(site, form, k + 1) - parameters_of(site, form, k)
