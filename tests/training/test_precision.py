"""How the arithmetic is done: the fastest safe way, measured."""

import pytest
import torch
from torch import nn

from ttctune.training import precision as precision_module
from ttctune.training.precision import Precision, attention, by_hand, candidates, measure

CPU = torch.device("cpu")
FP32, FP32_PLAIN, BF16, BF16_PLAIN = candidates(CPU)


class Clock:
    """Time that passes only when a step says so: a busy machine must not decide a test."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def pass_by(self, milliseconds):
        self.now += milliseconds / 1000


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(precision_module, "time", clock)
    return clock


@pytest.fixture
def fake_step(clock):
    """Makes a step whose loss and time are given by format and kernel."""

    def make(losses, milliseconds):
        def step(precision):
            clock.pass_by(milliseconds[precision])
            return losses.get(precision, 2.0)

        return step

    return make


@pytest.mark.parametrize("fastest", [FP32, FP32_PLAIN, BF16, BF16_PLAIN])
def test_the_fastest_of_equally_safe_ways_is_chosen_and_all_times_are_said(fastest, fake_step):
    times = {c: 1 if c == fastest else 12 for c in candidates(CPU)}
    chosen = measure(CPU, fake_step({}, times))
    assert (chosen.format, chosen.fused_attention) == (fastest.format, fastest.fused_attention)
    assert all(c.title in chosen.reason for c in candidates(CPU) if c != fastest) and "\n" not in chosen.reason


def test_a_way_for_which_memory_is_short_is_left_out(fake_step):
    """Half precision that does not fit must not cost float32 its batch."""
    times = dict.fromkeys(candidates(CPU), 5)

    def step(precision):
        if precision.format == "bf16":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return fake_step({}, times)(precision)

    chosen = measure(CPU, step)
    assert chosen.format == "fp32" and "bf16" not in chosen.reason


def test_a_little_faster_is_not_enough_to_leave_the_safer_way(fake_step):
    """Noise must not decide between equals."""
    times = {FP32: 20.0, FP32_PLAIN: 19.8, BF16: 19.8, BF16_PLAIN: 19.8}
    chosen = measure(CPU, fake_step({}, times))
    assert (chosen.format, chosen.fused_attention) == ("fp32", True)


@pytest.mark.parametrize("loss", [2.05, 1.95, float("nan"), float("inf"), -2.0])
def test_a_fast_way_with_another_loss_is_not_safe(loss, fake_step):
    times = {FP32: 8, FP32_PLAIN: 12, BF16: 1, BF16_PLAIN: 1}
    chosen = measure(CPU, fake_step({BF16: loss, BF16_PLAIN: loss}, times))
    assert (chosen.format, chosen.fused_attention) == ("fp32", True)


def test_a_loss_within_rounding_is_safe(fake_step):
    chosen = measure(CPU, fake_step({BF16_PLAIN: 2.03}, {FP32: 8, FP32_PLAIN: 8, BF16: 8, BF16_PLAIN: 1}))
    assert (chosen.format, chosen.fused_attention) == ("bf16", False)


def test_a_loss_that_is_nan_everywhere_falls_back_to_float32(fake_step):
    chosen = measure(CPU, fake_step(dict.fromkeys(candidates(CPU), float("nan")), dict.fromkeys(candidates(CPU), 1)))
    assert (chosen.format, chosen.fused_attention) == ("fp32", True)


def test_a_slow_first_step_does_not_count(clock):
    seen = []

    def step(precision):
        first = precision not in seen
        seen.append(precision)
        clock.pass_by(30 if first and precision == BF16_PLAIN else 1 if precision == BF16_PLAIN else 6)
        return 2.0

    assert measure(CPU, step).title == BF16_PLAIN.title


def test_a_device_with_one_way_is_not_measured():
    def step(_):
        raise AssertionError("measured")

    assert measure(torch.device("mps"), step).format == "fp32"


class Attention(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.fused_attn = fused


def test_attention_is_fused_as_before_on_leaving_even_after_an_error():
    model = nn.ModuleList([Attention(True), Attention(False)])
    with attention(model, False):
        assert [m.fused_attn for m in model] == [False, False]
    assert [m.fused_attn for m in model] == [True, False]
    with pytest.raises(KeyError), attention(model, False):
        raise KeyError
    assert [m.fused_attn for m in model] == [True, False]


def test_attention_that_was_not_fused_is_never_fused():
    model = nn.ModuleList([Attention(True), Attention(False)])
    with attention(model, True):
        assert [m.fused_attn for m in model] == [True, False]


@pytest.mark.parametrize(("format", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_forward_context_computes_matrix_products_in_the_format(format, dtype):
    x = torch.ones(4, 4)
    with Precision(format).forward_context(CPU):
        assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32


def test_a_format_chosen_by_hand_gets_the_attention_that_is_fast_for_it():
    assert by_hand("fp32", CPU).fused_attention and not by_hand("bf16", CPU).fused_attention
    assert by_hand("bf16", torch.device("cuda")).fused_attention
