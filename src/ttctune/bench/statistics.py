"""How sure a comparison is: deviations over seeds, paired bootstrap, intervals over tasks, Holm, wins and losses.

Two questions, two intervals. *Is A better than B on these tasks?* resamples test images and seeds and keeps the tasks
(`difference_draws`, `average_draws`). *Would A be better on another task of this sort?* takes the tasks as the sample
(`task_interval`), and is much wider with few of them.

Images are drawn under all seeds that were scored on them at once, and how much drawn seeds move the mean is added. Few
seeds drawn with replacement vary too little, by (S - 1) / S; their part is stretched by as much. What is particular to
one image under one seed is in both parts: where nothing else varies, the interval is too wide by a factor of 1.4 at
most. A single seed has no part of its own: the interval is then about images alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LEVEL = 0.95
DRAWS = 4000


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval; NaN bounds where nothing can be said."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves zero out, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (over n - 1) of some runs; the deviation of a single one is NaN."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def difference_draws(
    first: BoolArray,
    second: BoolArray | None,
    generator: np.random.Generator,
    draws: int = DRAWS,
    *,
    seen: BoolArray | None = None,
) -> FloatArray:
    """Bootstrap draws of the accuracy of one method, minus that of another where there is one, on one task.

    Images that were scored under the same seeds are drawn among themselves. Those of them that add as much to the
    mean are exchangeable, so only their counts are drawn: the same distribution as drawing single images, at a cost
    that does not depend on their number.

    Args:
        first: Right answers of one method, seeds x images.
        second: Those of another under the same seeds (paired), or None.
        generator: What is drawn from.
        draws: How many.
        seen: Under which seeds each image was scored, seeds x images; answers elsewhere do not count. None: all.

    Returns:
        `draws` values in [-1, 1], up to the stretch for few seeds.

    Raises:
        ValueError: The shapes differ, or there are no seeds, or a seed has no images.
    """
    shapes = [first.shape, *(array.shape for array in (second, seen) if array is not None)]
    if first.ndim != 2 or not first.size or len(set(shapes)) != 1 or (seen is not None and not seen.any(1).all()):
        raise ValueError(f"expected right answers of seeds x images, of one shape; got {shapes}")
    answers = first.astype(np.float64) - (0.0 if second is None else second)
    seen = np.ones(first.shape, np.bool_) if seen is None else seen
    shares = np.where(seen, answers, 0.0) / seen.sum(1, keepdims=True)
    return _over_images(shares.mean(0), seen, draws, generator) + _seed_deviations(shares.sum(1), draws, generator)


def _over_images(parts: FloatArray, seen: BoolArray, draws: int, generator: np.random.Generator) -> FloatArray:
    """The mean over drawn images, to which each adds its part; those seen under the same seeds are drawn together."""
    total = np.zeros(draws)
    _, kind = np.unique(seen.T, axis=0, return_inverse=True)
    for alike in (parts[kind.ravel() == number] for number in range(kind.max() + 1)):
        values, counts = np.unique(alike, return_counts=True)
        total += generator.multinomial(len(alike), counts / len(alike), size=draws) @ values
    return total


def _seed_deviations(means: FloatArray, draws: int, generator: np.random.Generator) -> FloatArray:
    """How much drawn seeds move the mean over seeds; zero for a single one."""
    seeds = len(means)
    if seeds == 1:
        return np.zeros(draws)
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    stretched: FloatArray = math.sqrt(seeds / (seeds - 1)) * (drawn @ (means - means.mean()))
    return stretched


def average_draws(by_task: Mapping[str, FloatArray], weights: Mapping[str, float]) -> FloatArray:
    """Draws of an average over fixed tasks: each draw of it takes one draw of every task."""
    weighted: FloatArray = np.sum([weights[task] * draws for task, draws in by_task.items()], axis=0)
    return weighted


def interval(value: float, draws: FloatArray, level: float = LEVEL) -> Interval:
    """The percentile interval of bootstrap draws around the value that was measured."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def p_value(draws: FloatArray) -> float:
    """Two-sided: how often a drawn difference is on the other side of zero; never 0, as draws are finite."""
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(draws) + 1)))


def task_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's interval of a mean over tasks, the tasks being the sample; NaN bounds for a single task."""
    mean, deviation = mean_and_deviation(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * deviation / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values after Holm's correction for their number, in the order given."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else []
    return [float(p) for p in adjusted]


def win_tie_loss(differences: Iterable[Interval]) -> tuple[int, int, int]:
    """Tasks where a method is better, cannot be told apart, and is worse, by the intervals of its differences."""
    signs = [difference.sign for difference in differences]
    return signs.count(1), signs.count(0), signs.count(-1)


Average = Literal["tasks", "groups"]


def average_weights(groups: Mapping[str, str], average: Average) -> dict[str, float]:
    """The weight of each task in the mean over tasks, or in the mean over the means of groups.

    Args:
        groups: Task -> its group.
        average: Which of the two.
    """
    if average == "tasks":
        return dict.fromkeys(groups, 1 / len(groups))
    sizes = {group: list(groups.values()).count(group) for group in groups.values()}
    return {task: 1 / (len(sizes) * sizes[group]) for task, group in groups.items()}
