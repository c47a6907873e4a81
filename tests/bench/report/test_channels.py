"""Overlap of chosen channels, against sets written down by hand."""

import numpy as np
import pytest
from tests.bench.records import record

from ttctune.bench.record import packed
from ttctune.bench.report.channels import overlap_of
from ttctune.bench.report.runs import Run


def run(seed, width=8, **chosen):
    selection = {site.replace("_", "0."): channels for site, channels in chosen.items()}
    importance = {site: packed(np.arange(width), "<f2") for site in selection}
    return Run((record(seed=seed, selection=selection, importance=importance),))


def test_overlap_is_the_mean_over_sites_of_shared_channels_over_all():
    found = overlap_of({"a": [run(0, _attn=(0, 1), _mlp=(2, 3))], "b": [run(0, _attn=(0, 1), _mlp=(3, 4))]})
    assert found.tasks == ("a", "b")
    assert found.shares[0][1] == found.shares[1][0] == pytest.approx((1 + 1 / 3) / 2)
    assert found.shares[0][0] is None and found.shares[1][1] is None
    assert found.chance == pytest.approx(2 / (16 - 2))


def test_the_diagonal_is_between_seeds():
    found = overlap_of({"a": [run(0, _attn=(0, 1)), run(1, _attn=(1, 2)), run(2, _attn=(0, 1))]})
    assert found.shares == ((pytest.approx((1 / 3 + 1 + 1 / 3) / 3),),)


def test_chance_is_what_random_choices_share():
    generator = np.random.default_rng(0)
    runs = {
        task: [run(seed, 40, _attn=tuple(generator.permutation(40)[:10].tolist())) for seed in range(12)]
        for task in "ab"
    }
    found = overlap_of(runs)
    assert found.shares[0][1] == pytest.approx(found.chance, abs=0.02)


def test_without_two_choices_there_is_no_overlap():
    assert overlap_of({"a": [run(0, _attn=(0, 1))]}) is None
    assert overlap_of({"a": [Run((record(),))], "b": [Run((record(),))]}) is None
