"""Numbers a practitioner trusts: accuracy, balanced accuracy, a row per class, confusion, calibration."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ttctune.backbone.description import InputDescription
from ttctune.calibration import Calibration, calibration_error, coverage_and_accuracy
from ttctune.images.normalisation import normalise
from ttctune.metrics import classification_metrics
from ttctune.out_of_memory import is_out_of_memory
from ttctune.training.kept_memory import freed_memory_kept
from ttctune.training.precision import Precision, attention


@dataclass(frozen=True)
class Evaluation:
    """How good predictions are on labelled images.

    Attributes:
        part: What was read: "test", "val", ...
        images: How many.
        skipped: Unreadable images that were left out.
        accuracy: Share of right answers, 0 to 1.
        balanced_accuracy: Mean recall over the classes present, 0 to 1.
        ece: Expected calibration error over 15 bins, 0 to 1, of the probabilities that `predict` gives. Where the
            temperature was fitted on these very images, it is no clean figure.
        ece_raw: The same of the plain softmax, before the temperature.
        temperature: What the logits were divided by.
        per_class: One row a class: name, precision, recall, f1 (0 to 1), images.
        confusion: Rows are true classes, columns predicted ones; counts.
        abstaining: One row a threshold, from val or given: abstain, coverage, accuracy (0 to 1, on these images; None
            where no image is answered), and target, val_coverage, val_accuracy where it was chosen on val.
    """

    part: str
    images: int
    skipped: int
    accuracy: float
    balanced_accuracy: float
    ece: float
    ece_raw: float
    temperature: float
    per_class: list[dict[str, Any]]
    confusion: list[list[int]]
    abstaining: list[dict[str, Any]] = field(default_factory=list)


def outputs_of(
    model: nn.Module,
    batches: Iterable[Tensor],
    description: InputDescription,
    precision: Precision,
    compute: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """float32 outputs on the CPU of each uint8 batch, with the model in eval mode.

    Args:
        model: Normalised images -> logits.
        batches: uint8, B x C x H x W.
        description: Of the pictures the model takes.
        precision: How the arithmetic is done.
        compute: Another function of the model's normalised images; None takes its logits.
    """
    device = next(model.parameters()).device
    with torch.inference_mode(), attention(model.eval(), precision.fused_attention), ExitStack() as stack:
        for number, images in enumerate(batches):
            if number == 1:  # a single batch has nothing to use again
                stack.enter_context(freed_memory_kept(device))
            yield _within_memory(partial(_forward, compute or model, description, precision, device), images)


def _forward(
    compute: Callable[[Tensor], Tensor],
    description: InputDescription,
    precision: Precision,
    device: torch.device,
    images: Tensor,
) -> Tensor:
    with precision.forward_context(device):
        outputs = compute(normalise(images, description, device))
    return outputs.float().cpu()


def _within_memory(compute: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Compute a batch whole, or in halves where memory runs out; one image must fit."""
    try:
        return compute(images)
    except (MemoryError, RuntimeError) as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
    return torch.cat([_within_memory(compute, half) for half in images.chunk(2)])


def evaluate_logits(
    logits: Tensor,
    labels: Tensor,
    classes: tuple[str, ...],
    part: str,
    skipped: int = 0,
    calibration: Calibration | None = None,
    abstain: Iterable[float] = (),
) -> Evaluation:
    """Compare logits (N x classes) with int64 labels (N).

    Args:
        logits: float, N x classes.
        labels: int64, N.
        classes: Class names in label order.
        part: What was read.
        skipped: Unreadable images that were left out.
        calibration: Temperature, and thresholds chosen on val; None has neither.
        abstain: Further thresholds to measure, 0 to 1.
    """
    metrics = classification_metrics()
    calibration = calibration or Calibration()
    settings: dict[str, Any] = {"num_classes": len(classes), "average": "none"}
    guess = logits.argmax(1)
    precision = metrics.multiclass_precision(guess, labels, **settings)
    recall = metrics.multiclass_recall(guess, labels, **settings)
    f1 = metrics.multiclass_f1_score(guess, labels, **settings)
    confusion = metrics.multiclass_confusion_matrix(guess, labels, len(classes))
    support = confusion.sum(1)
    rows = [
        {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "images": int(n)}
        for name, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
    ]
    probabilities = calibration.probabilities(logits)
    return Evaluation(
        part=part,
        images=len(labels),
        skipped=skipped,
        accuracy=float((guess == labels).float().mean()),
        balanced_accuracy=float(recall[support > 0].mean()),
        ece=calibration_error(probabilities, labels),
        ece_raw=calibration_error(logits.softmax(1), labels),
        temperature=calibration.temperature,
        per_class=rows,
        confusion=confusion.tolist(),
        abstaining=_abstaining(probabilities, labels, calibration, abstain),
    )


def _abstaining(
    probabilities: Tensor, labels: Tensor, calibration: Calibration, abstain: Iterable[float]
) -> list[dict[str, Any]]:
    chosen: list[dict[str, Any]] = [
        {"abstain": t.abstain, "target": t.target, "val_coverage": t.coverage, "val_accuracy": t.accuracy}
        for t in calibration.thresholds
    ]
    rows = []
    for row in [*chosen, *({"abstain": p} for p in abstain)]:
        coverage, accuracy = coverage_and_accuracy(probabilities, labels, row["abstain"])
        rows.append(row | {"coverage": coverage, "accuracy": accuracy})
    return rows
