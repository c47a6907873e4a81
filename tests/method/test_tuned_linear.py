"""Tuned channels, gates and both against their formulas, and their gradients against plain autograd."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttctune.method import tuned_linear
from ttctune.method.channels import FORMS, ChannelMap, ChannelRows
from ttctune.method.gates import ChannelGates
from ttctune.method.tuned_linear import TunedLinear

INPUTS, OUTPUTS, CHANNELS = 5, 7, torch.tensor([1, 3, 4])

forms = pytest.mark.parametrize("form", ["map", "rows", "gates", "map gates", "rows gates"])
tunings = pytest.mark.parametrize("form", ["map", "rows"])
biases = pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no_bias"])


def _layer(has_bias: bool = True, dtype: torch.dtype = torch.float64) -> nn.Linear:
    layer = nn.Linear(INPUTS, OUTPUTS, bias=has_bias).to(dtype)
    return layer.requires_grad_(False)


def _tuned(form: str, has_bias: bool = True, dtype: torch.dtype = torch.float64, draw: bool = True) -> TunedLinear:
    layer = _layer(has_bias, dtype)
    tunings = [FORMS[part](CHANNELS, layer.weight, has_bias) for part in form.split() if part in FORMS]
    gates = ChannelGates(layer.weight, has_bias) if "gates" in form else None
    tuned = TunedLinear(layer, *tunings, gates=gates)
    if draw:
        with torch.no_grad():
            for p in _trained(tuned):
                p.copy_(torch.randn(p.shape))
    return tuned


def _inputs(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*(shape or (2, 3)), INPUTS, dtype=dtype)


def _formula(tuned: TunedLinear, x: Tensor) -> list[float]:
    """The output of a tuned layer, token by token, channel by channel, in plain Python."""
    weight, bias = tuned.layer.weight.tolist(), tuned.layer.bias
    bias = [0.0] * OUTPUTS if bias is None else bias.tolist()
    channels, tuning, gates = CHANNELS.tolist(), tuned.tuning, tuned.gates
    out = []
    for row in x.reshape(-1, INPUTS).tolist():
        y = [sum(w * v for w, v in zip(weight[c], row, strict=True)) + bias[c] for c in range(OUTPUTS)]
        tuned_y = list(y)
        for i, c in enumerate(channels if tuning is not None else ()):
            if isinstance(tuning, ChannelMap):
                tuned_y[c] += sum(tuning.map[i, j].item() * y[d] for j, d in enumerate(channels))
            else:
                tuned_y[c] += sum(tuning.rows[i, j].item() * v for j, v in enumerate(row))
            tuned_y[c] += 0.0 if tuning.bias is None else tuning.bias[i].item()
        if gates is not None:
            shift = [0.0] * OUTPUTS if gates.shift is None else gates.shift.tolist()
            tuned_y = [math.exp(gates.log_scale[c].item()) * tuned_y[c] + shift[c] for c in range(OUTPUTS)]
        out.append(tuned_y)
    return out


@forms
@biases
@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 2)])
def test_a_form_computes_its_formula(form, has_bias, shape):
    """y_S + M y_S + m, or y_S + D x + d, and exp(s) y + t, on inputs of any rank; with and without gradients."""
    tuned, x = _tuned(form, has_bias), _inputs(*shape)
    expected = torch.tensor(_formula(tuned, x), dtype=torch.float64).reshape(*shape, OUTPUTS)
    assert float((expected - tuned.layer(x)).abs().max()) > 0.1
    torch.testing.assert_close(tuned(x), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(tuned(x), expected, rtol=1e-12, atol=1e-12)


@tunings
@biases
def test_channels_that_are_not_selected_stay_as_they_are(form, has_bias):
    """Bit for bit in the folded weight."""
    tuned = _tuned(form, has_bias)
    weight, bias = tuned.folded()
    others = [c for c in range(OUTPUTS) if c not in CHANNELS.tolist()]
    assert torch.equal(tuned.layer.weight[others], weight[others])
    assert not torch.equal(tuned.layer.weight[CHANNELS], weight[CHANNELS])
    assert (bias is None) != has_bias
    if bias is not None:
        assert torch.equal(tuned.layer.bias[others], bias[others])


@forms
@biases
def test_a_form_without_effect_at_the_start(form, has_bias):
    """All that is trained is zero, and the output is that of the layer."""
    tuned, x = _tuned(form, has_bias, draw=False), _inputs()
    assert all(not p.any() for p in _trained(tuned))
    assert torch.equal(tuned.layer(x), tuned(x))


@forms
@biases
def test_folding_leaves_the_frozen_layer_alone(form, has_bias):
    """A forward and a backward pass do not write into its weight."""
    tuned = _tuned(form, has_bias)
    before = copy.deepcopy(tuned.layer.state_dict())
    tuned(_inputs().requires_grad_(True)).sum().backward()
    assert all(torch.equal(before[k], v) for k, v in tuned.layer.state_dict().items())
    assert tuned.layer.weight.grad is None


def _trained(tuned: TunedLinear) -> list[Tensor]:
    return [p for part in (tuned.tuning, tuned.gates) if part is not None for p in part.parameters()]


@forms
@biases
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_the_backward_pass_agrees_with_finite_differences(form, has_bias, shape):
    """torch.autograd.gradcheck in float64, for the input and everything that is trained."""
    tuned, x = _tuned(form, has_bias), _inputs(*shape).requires_grad_(True)

    def output(x: Tensor, *_: Tensor) -> Tensor:
        return tuned(x)

    assert torch.autograd.gradcheck(output, (x, *_trained(tuned)))


@forms
@biases
@pytest.mark.parametrize("input_grad", [True, False])
def test_the_backward_pass_equals_autograd_through_the_folded_weight(form, has_bias, input_grad):
    """To 1e-12, and also where the input asks for no gradient (the first site of a model)."""
    tuned, x = _tuned(form, has_bias), _inputs(3, 4).requires_grad_(input_grad)
    weigh = torch.randn(3, 4, OUTPUTS, dtype=torch.float64)
    wanted = [*_trained(tuned), *([x] if input_grad else [])]
    found = torch.autograd.grad((tuned(x).tanh() * weigh).sum(), wanted)
    plain = F.linear(x, *tuned.folded())
    expected = torch.autograd.grad((plain.tanh() * weigh).sum(), wanted)
    for a, b in zip(found, expected, strict=True):
        assert float(b.abs().max()) > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_map_and_rows_of_equal_effect_are_equal():
    """The map is the case D = M W_S, d = M b_S + m of rows."""
    mapped = _tuned("map")
    weight, bias, tuning = mapped.layer.weight, mapped.layer.bias, mapped.tuning
    rows = ChannelRows(CHANNELS, weight, has_bias=True)
    with torch.no_grad():
        rows.rows.copy_(tuning.map @ weight[CHANNELS])
        rows.bias.copy_(tuning.map @ bias[CHANNELS] + tuning.bias)
    x = _inputs()
    torch.testing.assert_close(TunedLinear(mapped.layer, rows)(x), mapped(x), rtol=1e-12, atol=1e-12)


@forms
def test_a_frozen_form_still_acts_and_passes_gradients_on(form):
    """With everything trained switched off, the input's gradient is that of the tuned layer."""
    tuned, x = _tuned(form), _inputs().requires_grad_(True)
    expected_y = tuned(x)
    (expected,) = torch.autograd.grad(expected_y.square().sum(), x)
    tuned.requires_grad_(False)
    torch.testing.assert_close(tuned(x), expected_y, rtol=1e-12, atol=1e-12)
    (found,) = torch.autograd.grad(tuned(x).square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@tunings
def test_one_part_of_a_form_can_be_frozen(form):
    """With the bias frozen, the matrix has the gradient it had."""
    tuned, x = _tuned(form), _inputs()
    matrix = tuned.tuning.map if form == "map" else tuned.tuning.rows
    (expected,) = torch.autograd.grad(tuned(x).square().sum(), matrix)
    tuned.tuning.bias.requires_grad_(False)
    (found,) = torch.autograd.grad(tuned(x).square().sum(), matrix)
    assert torch.equal(expected, found)


@forms
@biases
def test_bfloat16_autocast_stays_close_to_float32(form, has_bias):
    """Output in bfloat16, gradients in float32, both within a few rounding errors; so without gradients."""
    tuned = _tuned(form, has_bias, torch.float32)
    x = _inputs(4, 6, dtype=torch.float32).requires_grad_(True)
    wanted = [x, *_trained(tuned)]
    exact_y = tuned(x)
    exact = torch.autograd.grad(exact_y.square().mean(), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        mixed_y = tuned(x)
        with torch.no_grad():
            silent_y = tuned(x)
    mixed = torch.autograd.grad(mixed_y.float().square().mean(), wanted)
    assert {torch.bfloat16} == {mixed_y.dtype, silent_y.dtype}
    for y in (mixed_y.detach(), silent_y):
        torch.testing.assert_close(
            y.float(), exact_y.detach(), rtol=0.03, atol=0.03 * float(exact_y.detach().abs().max())
        )
    for a, b in zip(mixed, exact, strict=True):
        assert torch.float32 == a.dtype
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05 * float(b.abs().max()))


def test_sums_over_many_positions_do_not_add_up_in_bfloat16():
    """With 4,000 positions, sums kept in bfloat16 would be wrong by several per cent."""
    tuned = _tuned("gates", dtype=torch.float32)
    x, weights = _inputs(20, 200, dtype=torch.float32), torch.randn(20, 200, OUTPUTS)
    exact = torch.autograd.grad((tuned(x) * weights).sum(), _trained(tuned))
    with torch.autocast("cpu", torch.bfloat16):
        y = tuned(x)
    mixed = torch.autograd.grad((y.float() * weights).sum(), _trained(tuned))
    for a, b in zip(mixed, exact, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("shape", [(OUTPUTS, 12), (3, OUTPUTS, 4)])
@pytest.mark.parametrize("shifted", [True, False])
def test_the_sums_of_gates_are_the_same_on_every_device(shape, shifted):
    """A CPU's kernel, the products of other devices, and plain loops: g (z - t), and g."""
    g, z, t = (torch.randn(n, dtype=torch.float64) for n in (shape, shape, (OUTPUTS,)))
    t = t if shifted else torch.zeros_like(t)
    flat = [a.movedim(-2, 0).reshape(OUTPUTS, -1).tolist() for a in (g, z)]
    channels = list(zip(*flat, t.tolist(), strict=True))
    expected = [
        [sum(a * (b - shift) for a, b in zip(gs, zs, strict=True)) for gs, zs, shift in channels],
        [sum(gs) for gs, _, _ in channels],
    ]
    for sums in (tuned_linear._sums_of_one_reading, tuned_linear._sums_of_two):
        found = sums(g, z, t if shifted else None, torch.float64)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, torch.tensor(b, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@forms
def test_a_small_change_survives_bfloat16_weights(form):
    """Folding happens in float32: the weight is rounded once, after the change, not before."""
    tuned = _tuned(form, dtype=torch.float32, draw=False)
    with torch.no_grad():
        for p in _trained(tuned):
            p.copy_(1e-3 * torch.randn(p.shape))
        expected, _ = tuned.folded()
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = tuned.folded()
    assert torch.float32 == found.dtype
    assert torch.equal(expected, found)


def _convolution(tuned: TunedLinear) -> TunedLinear:
    """The same layer with the same tuning as a 1 x 1 convolution."""
    layer = nn.Conv2d(INPUTS, OUTPUTS, 1, bias=tuned.layer.bias is not None).to(tuned.layer.weight.dtype)
    layer.weight.data.copy_(tuned.layer.weight[..., None, None])
    if layer.bias is not None:
        layer.bias.data.copy_(tuned.layer.bias)
    return TunedLinear(layer.requires_grad_(False), tuned.tuning, tuned.gates)


@forms
@biases
@pytest.mark.parametrize("input_grad", [True, False])
def test_a_convolution_of_one_pixel_equals_the_linear_layer_at_every_pixel(form, has_bias, input_grad):
    """Outputs and all gradients to 1e-12, with channels in dimension 1, and without gradients too."""
    tuned = _tuned(form, has_bias)
    convolution = _convolution(tuned)
    x = _inputs(2, 3, 4).requires_grad_(input_grad)
    weigh = torch.randn(2, 3, 4, OUTPUTS, dtype=torch.float64)
    wanted = [*_trained(tuned), *([x] if input_grad else [])]
    outputs = tuned(x), convolution(x.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-12)
    found, expected = (torch.autograd.grad((y.tanh() * weigh).sum(), wanted) for y in outputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(convolution(x.movedim(-1, 1)).movedim(1, -1), outputs[0], rtol=1e-12, atol=1e-12)


@forms
def test_the_backward_pass_of_a_convolution_agrees_with_finite_differences(form):
    """torch.autograd.gradcheck in float64."""
    tuned = _convolution(_tuned(form))
    x = _inputs(2, 2, 3).movedim(-1, 1).contiguous().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, *_: tuned(x), (x, *_trained(tuned)))


@forms
def test_a_convolution_under_mixed_precision_keeps_what_is_trained_in_float32(form):
    """Output in bfloat16, gradients in float32 and near those of float32."""
    tuned = _convolution(_tuned(form, dtype=torch.float32))
    x = _inputs(8, 4, 4, dtype=torch.float32).movedim(-1, 1)
    exact = torch.autograd.grad(tuned(x).square().mean(), _trained(tuned))
    with torch.autocast("cpu", torch.bfloat16):
        y = tuned(x)
    assert torch.bfloat16 == y.dtype
    for a, b in zip(torch.autograd.grad(y.float().square().mean(), _trained(tuned)), exact, strict=True):
        assert torch.float32 == a.dtype
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.1 * float(b.abs().max()))
