"""The numbers of an evaluation, against naive loops."""

import numpy as np
import pytest
import torch
from tests.run_helpers import arrays, short, vit

import ttctune
from ttctune.calibration import CALIBRATION_BINS
from ttctune.evaluation import evaluate_logits

CLASSES = ("ant", "bee", "cat", "dog")


def drawn(n=97, present=(0, 1, 2, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(present)[torch.randint(0, len(present), (n,), generator=generator)]
    logits = torch.randn(n, len(CLASSES), generator=generator)
    logits[torch.arange(n), labels] += 1
    return logits, labels


def naive_calibration_error(logits, labels):
    probabilities = np.exp(logits.numpy().astype(float))
    probabilities /= probabilities.sum(1, keepdims=True)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    total = 0.0
    for b in range(CALIBRATION_BINS):
        low, high = b / CALIBRATION_BINS, (b + 1) / CALIBRATION_BINS
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return total


@pytest.mark.parametrize("present", [(0, 1, 2, 3), (0, 2), (3,)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_number_is_that_of_a_naive_loop(present, seed):
    logits, labels = drawn(present=present, seed=seed)
    guesses = [int(row.argmax()) for row in logits]
    got = evaluate_logits(logits, labels, CLASSES, "val", 2)
    assert (got.part, got.images, got.skipped) == ("val", 97, 2)
    right = [int(label) == guess for label, guess in zip(labels, guesses, strict=True)]
    assert got.accuracy == pytest.approx(sum(right) / 97)
    recalls = []
    for i, row in enumerate(got.per_class):
        true = [g for g, label in zip(guesses, labels, strict=True) if label == i]
        guessed = [int(label) for g, label in zip(guesses, labels, strict=True) if g == i]
        assert row["class"] == CLASSES[i] and row["images"] == len(true)
        assert got.confusion[i] == [true.count(j) for j in range(len(CLASSES))]
        recall = true.count(i) / len(true) if true else 0.0
        precision = guessed.count(i) / len(guessed) if guessed else 0.0
        both = precision + recall
        assert row["recall"] == pytest.approx(recall)
        assert row["precision"] == pytest.approx(precision)
        assert row["f1"] == pytest.approx(2 * precision * recall / both if both else 0.0, abs=1e-6)
        recalls += [recall] if true else []
    assert got.balanced_accuracy == pytest.approx(sum(recalls) / len(recalls))
    assert got.ece == pytest.approx(naive_calibration_error(logits, labels), abs=1e-6)


def test_absent_classes_do_not_lower_the_balanced_accuracy():
    logits = torch.eye(4)[[0, 0, 2, 2]] * 9
    got = evaluate_logits(logits, torch.tensor([0, 0, 2, 2]), CLASSES, "test")
    assert got.balanced_accuracy == 1.0 and got.accuracy == 1.0
    assert [row["images"] for row in got.per_class] == [2, 0, 2, 0]


def test_a_rare_class_counts_as_much_as_a_frequent_one_in_the_balanced_accuracy():
    logits = torch.eye(4)[[0] * 10] * 9
    got = evaluate_logits(logits, torch.tensor([0] * 9 + [1]), CLASSES, "test")
    assert got.accuracy == pytest.approx(0.9) and got.balanced_accuracy == pytest.approx(0.5)


def test_a_sure_model_that_is_always_wrong_has_the_worst_calibration():
    logits = torch.eye(4)[[1] * 8] * 50
    assert evaluate_logits(logits, torch.zeros(8, dtype=torch.long), CLASSES, "test").ece == pytest.approx(1.0)


def test_one_image_is_enough():
    got = evaluate_logits(torch.tensor([[0.0, 3.0, 0.0, 0.0]]), torch.tensor([1]), CLASSES, "test")
    assert (got.accuracy, got.images) == (1.0, 1)


def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits(monkeypatch):
    """A model that could be trained image by image can also be measured."""
    adapted = ttctune.adapt(vit(), arrays(), short(), quiet=True)
    expected, sizes = adapted.predict(arrays()[0]), []
    forward = adapted.model.forward

    def small(images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(images))
        return forward(images)

    monkeypatch.setattr(adapted.model, "forward", small)
    torch.testing.assert_close(adapted.predict(arrays()[0]), expected)
    assert max(sizes) == 2


def test_class_names_of_any_bytes_survive_to_the_card(tmp_path):
    """A folder's name need not be UTF-8, and a run must not fail over it at its end."""
    images, labels = arrays()
    names = np.array(["a", "b", "caf\udce9"])[labels]
    ttctune.adapt(vit(), (images, names), short(), quiet=True, out=tmp_path / "x")
    assert len(ttctune.load(tmp_path / "x", model=vit()).classes) == 3
