"""The temperature against a naive search, and thresholds against counting."""

import math

import numpy as np
import pytest
import torch

from ttctune.calibration import (
    LEAST_ANSWERS,
    LEAST_IMAGES,
    Calibration,
    answered,
    calibrate,
    coverage_and_accuracy,
    fit_temperature,
    thresholds,
)


def drawn(n=400, classes=5, temperature=1.0, seed=0):
    """Logits whose softmax at `temperature` is the distribution that the labels are drawn from."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    return logits, labels


def naive_nll(logits, labels, temperature):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total += math.log(sum(math.exp(z / temperature) for z in row)) - row[label] / temperature
    return total / len(labels)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_best_of_a_naive_grid(temperature):
    logits, labels = drawn(120, temperature=temperature)
    grid = np.exp(np.linspace(math.log(0.1), math.log(10), 231))
    losses = [naive_nll(logits, labels, t) for t in grid]
    found = fit_temperature(logits, labels)
    assert found is not None and naive_nll(logits, labels, found) <= min(losses)
    assert abs(math.log(found / grid[int(np.argmin(losses))])) <= math.log(100) / 230


def test_the_temperature_that_made_the_labels_is_found():
    logits, labels = drawn(20_000, temperature=1.7)
    assert fit_temperature(logits, labels) == pytest.approx(1.7, rel=0.03)


def test_float32_logits_and_shifted_logits_have_the_same_temperature():
    logits, labels = drawn()
    want = fit_temperature(logits, labels)
    assert fit_temperature(logits.float(), labels) == pytest.approx(want, rel=1e-5)
    assert fit_temperature(logits + 1000 * torch.arange(400)[:, None], labels) == pytest.approx(want, rel=1e-6)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * want, rel=1e-9)


def test_answers_that_bound_no_temperature_give_none():
    logits, _ = drawn()
    assert fit_temperature(logits, logits.argmax(1)) is None  # all right: the surer the better
    assert fit_temperature(logits, logits.argmin(1)) is None  # worse than chance
    assert fit_temperature(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long)) is None
    assert fit_temperature(torch.empty(0, 3), torch.empty(0, dtype=torch.long)) is None


def test_calibrating_lowers_likelihood_and_error_and_changes_no_answer():
    logits, labels = drawn(600, temperature=0.4)
    got = calibrate(logits.float(), labels)
    assert got.temperature == pytest.approx(0.4, rel=0.15) and got.images == 600 and got.note == ""
    assert got.nll[1] < got.nll[0] and got.ece[1] < got.ece[0]
    assert got.nll[1] == pytest.approx(naive_nll(logits, labels, got.temperature), abs=1e-5)
    assert torch.equal(got.probabilities(logits).argmax(1), logits.argmax(1))
    assert torch.allclose(got.probabilities(logits), (logits / got.temperature).softmax(1))


def test_no_temperature_is_fitted_on_too_few_images_and_the_reason_is_said():
    logits, labels = drawn(LEAST_IMAGES - 1, temperature=0.4)
    got = calibrate(logits, labels)
    assert got.temperature == 1 and got.images == 0 and got.nll is None and str(LEAST_IMAGES - 1) in got.note
    assert calibrate(*drawn(LEAST_IMAGES, temperature=0.4)).temperature != 1


def test_without_a_temperature_probabilities_are_the_plain_softmax_in_every_bit():
    logits, _ = drawn()
    assert torch.equal(Calibration().probabilities(logits), logits.softmax(1))


def test_coverage_and_accuracy_count_the_answers_at_or_above_the_threshold():
    probabilities = torch.tensor([[0.9, 0.1], [0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
    labels = torch.tensor([0, 1, 1, 0])
    assert coverage_and_accuracy(probabilities, labels, 0.75) == (0.75, pytest.approx(2 / 3))
    assert coverage_and_accuracy(probabilities, labels, 0.0) == (1.0, 0.75)
    assert coverage_and_accuracy(probabilities, labels, 0.95) == (0.0, None)
    assert answered(probabilities, 0.75).tolist() == [True, True, True, False]


def test_each_threshold_is_the_lowest_that_reaches_its_target():
    logits, labels = drawn(500, temperature=0.8)
    probabilities = logits.softmax(1)
    found = thresholds(probabilities, labels)
    assert found and [t.target for t in found] == sorted(t.target for t in found)
    top, right = probabilities.max(1).values.numpy(), (probabilities.argmax(1) == labels).numpy()
    for t in found:
        chosen = top >= t.abstain
        assert t.coverage == pytest.approx(chosen.mean()) and t.accuracy == pytest.approx(right[chosen].mean())
        assert t.accuracy >= t.target and chosen.sum() >= LEAST_ANSWERS
        lower = [right[top >= k / 100].mean() for k in range(round(100 * t.abstain))]
        assert all(accuracy < t.target for accuracy in lower)


def test_a_target_that_only_a_handful_of_answers_reach_is_not_promised():
    probabilities = torch.full((200, 2), 0.5, dtype=torch.float64)
    probabilities[: LEAST_ANSWERS - 1] = torch.tensor([0.99, 0.01], dtype=torch.float64)
    labels = torch.ones(200, dtype=torch.long)
    labels[: LEAST_ANSWERS - 1] = 0
    assert thresholds(probabilities, labels) == ()
    probabilities[LEAST_ANSWERS - 1], labels[LEAST_ANSWERS - 1] = probabilities[0], 0
    assert {t.abstain for t in thresholds(probabilities, labels)} == {0.51}
