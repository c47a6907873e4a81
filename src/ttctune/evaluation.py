"""Numbers a practitioner trusts: accuracy, balanced accuracy, a row per class, confusion, calibration."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import ttctune.torchvision_operators  # noqa: F401  (before torchmetrics, which imports torchvision)

from torchmetrics.functional import classification as metrics  # isort: skip

from ttctune.backbone.description import InputDescription
from ttctune.images.normalisation import normalise
from ttctune.out_of_memory import is_out_of_memory
from ttctune.training.precision import Precision, attention

#: Bins of equal width for the expected calibration error (Guo et al. 2017).
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """How good predictions are on labelled images.

    Attributes:
        part: What was read: "test", "val", ...
        images: How many.
        skipped: Unreadable images that were left out.
        accuracy: Share of right answers, 0 to 1.
        balanced_accuracy: Mean recall over the classes present, 0 to 1.
        ece: Expected calibration error over 15 bins, 0 to 1.
        per_class: One row a class: name, precision, recall, f1 (0 to 1), images.
        confusion: Rows are true classes, columns predicted ones; counts.
    """

    part: str
    images: int
    skipped: int
    accuracy: float
    balanced_accuracy: float
    ece: float
    per_class: list[dict[str, Any]]
    confusion: list[list[int]]


def logits_of(
    model: nn.Module, batches: Iterable[Tensor], description: InputDescription, precision: Precision
) -> Iterator[Tensor]:
    """float32 logits (B x classes) on the CPU, of each uint8 batch, with the model in eval mode."""
    device = next(model.parameters()).device
    with torch.inference_mode(), attention(model.eval(), precision.fused_attention):
        for images in batches:
            yield _within_memory(partial(_forward, model, description, precision, device), images)


def _forward(
    model: nn.Module, description: InputDescription, precision: Precision, device: torch.device, images: Tensor
) -> Tensor:
    with precision.forward_context(device):
        logits: Tensor = model(normalise(images, description, device))
    return logits.float().cpu()


def _within_memory(compute: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Compute a batch whole, or in halves where memory runs out; one image must fit."""
    try:
        return compute(images)
    except (MemoryError, RuntimeError) as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
    return torch.cat([_within_memory(compute, half) for half in images.chunk(2)])


def evaluate_logits(
    logits: Tensor, labels: Tensor, classes: tuple[str, ...], part: str, skipped: int = 0
) -> Evaluation:
    """Compare logits (N x classes) with int64 labels (N)."""
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
    probabilities = logits.softmax(1)
    return Evaluation(
        part=part,
        images=len(labels),
        skipped=skipped,
        accuracy=float((guess == labels).float().mean()),
        balanced_accuracy=float(recall[support > 0].mean()),
        ece=float(metrics.multiclass_calibration_error(probabilities, labels, len(classes), n_bins=CALIBRATION_BINS)),
        per_class=rows,
        confusion=confusion.tolist(),
    )
