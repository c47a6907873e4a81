"""The learning rate of a step: above zero at once, up, then down a cosine."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttctune.training.schedule import Schedule, warmup_steps


@given(total=st.integers(1, 200), warmup_epochs=st.floats(0, 50), steps=st.integers(1, 40))
def test_rates_rise_above_zero_to_the_peak_and_then_only_fall(total, warmup_epochs, steps):
    warmup = warmup_steps(warmup_epochs, steps, total)
    schedule = Schedule(total, warmup)
    shares = [schedule.share(step) for step in range(total)]
    rising, falling = shares[:warmup], shares[warmup:]
    assert all(0 < share <= 1 for share in shares)
    assert all(a < b for a, b in pairwise(rising))
    assert falling[0] == 1.0
    assert all(a > b for a, b in pairwise(falling))


@pytest.mark.parametrize("total", [100, 1000])
def test_the_last_step_is_almost_at_zero(total):
    assert 0 < Schedule(total, 10).share(total - 1) < 10 / total**1.9


def test_the_way_down_is_half_a_cosine():
    assert Schedule(110, 10).share(60) == pytest.approx(0.5)
    assert Schedule(110, 10).share(35) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_warm_up_takes_as_many_epochs_as_asked_for_but_at_most_half_the_stage():
    assert warmup_steps(1.0, 25, 500) == 25
    assert warmup_steps(0.5, 25, 500) == 12
    assert warmup_steps(1.0, 25, 25) == 12
    assert warmup_steps(3.0, 1, 1) == 0
    assert warmup_steps(0.0, 25, 500) == 0
    assert warmup_steps(1e308, 25, 500) == 250
