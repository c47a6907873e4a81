"""Drawings of what is rare: nothing chosen, nothing learned, many methods at one place."""

import re

import numpy as np
import pytest
from tests.bench.records import record

from ttctune.bench.record import packed
from ttctune.bench.report import figures
from ttctune.bench.report.grid import Cell
from ttctune.bench.report.runs import Run
from ttctune.bench.statistics import Interval


def test_a_site_of_which_nothing_was_chosen_is_drawn():
    scores = {site: packed(np.arange(8), "<f2") for site in ("0.attn", "1.attn")}
    run = Run((record(importance=scores, selection={"0.attn": (1, 2), "1.attn": ()}),))
    assert "2 channels chosen at 2 sites (attn)" in figures.channels("digits", 0, run)


@pytest.mark.parametrize(
    "history", [(), ({"epoch": 1},), ({"loss": "x"},), ({"loss": float("nan")},), ({"loss": 0.0},)], ids=str
)
def test_without_a_loss_there_are_no_curves(history):
    assert figures.curves("digits", 0, {"norm": [Run((record(history=history),))]}, {"norm": 0}) is None


@pytest.mark.parametrize("methods", [2, 20])
def test_names_beside_a_drawing_keep_apart_and_inside(methods):
    """All points at one place, and one far below."""
    names = [f"method {number}" for number in range(methods)]
    cells = {
        name: Cell(0.7 if number else 0.1, 0.0, Interval(0.7, 0.69, 0.71), "") for number, name in enumerate(names)
    }
    drawn = figures.cost(
        {name: (number, cell) for number, (name, cell) in enumerate(cells.items())},
        {name: name for name in names},
        {name: number for number, name in enumerate(names)},
        "parameters",
    )
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>method ', drawn))
    assert len(heights) == methods and min(np.diff(heights)) >= 10
    assert 0 < heights[0] and heights[-1] < float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', drawn)[1])


def test_costs_that_differ_much_and_begin_at_zero_are_drawn_on_a_logarithmic_axis():
    cells = {name: Cell(0.5, 0.0, None, "") for name in "abc"}
    costs = dict(zip("abc", (0, 640, 5_500_000), strict=True))
    drawn = figures.cost(
        {n: (costs[n], cells[n]) for n in "abc"}, dict(zip("abc", "abc", strict=True)), dict.fromkeys("abc", 0), "x"
    )
    assert all(f">{label}</text>" in drawn for label in ("0", "1 k", "10 k", "100 k", "1 M"))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12, "12"), (9600, "9.6 k"), (5_493_696, "5.49 M"), (2e9, "2 G"), (0.25, "0.25")]
)
def test_numbers_are_short(value, text):
    assert figures.short(value) == text
