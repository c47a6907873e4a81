"""The numbers of an evaluation, against naive loops."""

import numpy as np
import pytest
import torch

from ttctune.evaluation import CALIBRATION_BINS, evaluate_logits

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
