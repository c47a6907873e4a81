"""Probabilities that can be taken at their word: a temperature fitted on val, and when to abstain.

The temperature T of Guo et al. (2017) divides the logits; it changes how sure a prediction is, never which class
comes first. The model and its merged copy keep their logits: T acts where probabilities are made.
"""

import math

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ttctune.metrics import classification_metrics

#: Bins of equal width for the expected calibration error (Guo et al. 2017).
CALIBRATION_BINS = 15
#: Images of val below which no temperature is fitted: see docs/results/calibration.md.
LEAST_IMAGES = 100
#: Temperatures outside of this range say that the logits do not bound one (all answers right, or worse than chance).
LOWEST, HIGHEST = 0.02, 50.0
#: Shares of right answers for which a threshold is looked up, and the answers that such a share needs to mean much.
TARGETS = (0.9, 0.95, 0.98, 0.99)
LEAST_ANSWERS = 30


class Threshold(BaseModel):
    """A probability below which to abstain, chosen on val.

    Attributes:
        target: Share of right answers asked for, 0 to 1.
        abstain: Where the most probable class is less probable than this, no answer is given; 0 to 1.
        coverage: Share of the images of val that are answered, 0 to 1.
        accuracy: Share of right answers among those, 0 to 1.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    target: float = Field(ge=0, le=1)
    abstain: float = Field(ge=0, le=1)
    coverage: float = Field(ge=0, le=1)
    accuracy: float = Field(ge=0, le=1)


class Calibration(BaseModel):
    """How logits become probabilities, and what was found on val.

    Attributes:
        temperature: Divides the logits; 1 where none was fitted.
        images: Images of val it was fitted on; 0 where none was fitted.
        note: Why none was fitted; else empty.
        nll: Mean negative log-likelihood on those images, before and after, in nats.
        ece: Expected calibration error on them, before and after, 0 to 1.
        thresholds: One for each target that val reaches, for the probabilities after the temperature.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    temperature: float = Field(default=1.0, gt=0)
    images: int = Field(default=0, ge=0)
    note: str = "no val part"
    nll: tuple[float, float] | None = None
    ece: tuple[float, float] | None = None
    thresholds: tuple[Threshold, ...] = ()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits, N x classes, to probabilities; rows sum to 1."""
        return (logits / self.temperature).softmax(1)


def calibrate(logits: Tensor, labels: Tensor) -> Calibration:
    """Fit a temperature where there is enough to fit it on, and look up when to abstain.

    Args:
        logits: float, N x classes, of images that were not trained on.
        labels: int64, N.
    """
    temperature, note = fit_temperature(logits, labels), ""
    if len(labels) < LEAST_IMAGES:
        temperature, note = None, f"{len(labels)} images of val are fewer than {LEAST_IMAGES}"
    elif temperature is None:
        note = "the answers on val bound no temperature"
    if temperature is None:
        calibration = Calibration(note=note)
    else:
        fitted = Calibration(temperature=temperature)
        calibration = Calibration(
            temperature=temperature,
            images=len(labels),
            note=note,
            nll=(negative_log_likelihood(logits, labels), negative_log_likelihood(logits / temperature, labels)),
            ece=(calibration_error(logits.softmax(1), labels), calibration_error(fitted.probabilities(logits), labels)),
        )
    chosen = thresholds(calibration.probabilities(logits), labels)
    return calibration.model_copy(update={"thresholds": chosen})


def fit_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """The temperature of least negative log-likelihood; None where there is none between 0.02 and 50.

    In b = 1 / T the likelihood's slope, mean over images of sum_c p_c z_c - z_label, only ever rises: its zero is
    found by halving, in float64.

    Args:
        logits: float, N x classes.
        labels: int64, N.
    """
    if not len(labels):
        return None
    z = logits.double()
    own = z.gather(1, labels[:, None]).mean()

    def slope(b: float) -> float:
        return float(((b * z).softmax(1) * z).sum(1).mean() - own)

    low, high = math.log(1 / HIGHEST), math.log(1 / LOWEST)
    if slope(math.exp(low)) >= 0 or slope(math.exp(high)) <= 0:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean over the images, in nats, computed in float64."""
    return float(F.cross_entropy(logits.double(), labels))


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error over 15 bins, 0 to 1; probabilities are N x classes, labels int64, N."""
    metrics = classification_metrics()
    classes = probabilities.shape[1]
    return float(metrics.multiclass_calibration_error(probabilities, labels, classes, n_bins=CALIBRATION_BINS))


def answered(probabilities: Tensor, abstain: float) -> Tensor:
    """bool, N: whether the most probable class is at least as probable as `abstain`."""
    return probabilities.amax(1).double() >= abstain


def coverage_and_accuracy(probabilities: Tensor, labels: Tensor, abstain: float) -> tuple[float, float | None]:
    """Share of the images that are answered, and share of right answers among those; None without an answer."""
    chosen = answered(probabilities, abstain)
    if not chosen.any():
        return 0.0, None
    right = probabilities.argmax(1) == labels
    return float(chosen.double().mean()), float(right[chosen].double().mean())


def thresholds(probabilities: Tensor, labels: Tensor) -> tuple[Threshold, ...]:
    """For each target the lowest threshold, in hundredths, that reaches it with at least 30 answers."""
    found = []
    for target in TARGETS:
        for hundredths in range(100):
            abstain = hundredths / 100
            if int(answered(probabilities, abstain).sum()) < LEAST_ANSWERS:
                break
            coverage, accuracy = coverage_and_accuracy(probabilities, labels, abstain)
            if accuracy is not None and accuracy >= target:
                found.append(Threshold(target=target, abstain=abstain, coverage=coverage, accuracy=accuracy))
                break
    return tuple(found)
