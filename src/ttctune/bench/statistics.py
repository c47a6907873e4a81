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
    blocks: Sequence[tuple[BoolArray, BoolArray | None]], generator: np.random.Generator, draws: int = DRAWS
) -> FloatArray:
    """Bootstrap draws of the accuracy of one method, minus that of another where there is one, on one task.

    Images with the same answers under every seed are exchangeable, so only their counts are drawn: the same
    distribution as drawing single images, at a cost that does not depend on their number.

    Args:
        blocks: Seeds that were scored on the same images, apart by images: right answers of one method, seeds x
            images, and those of another under the same seeds (paired), or None.
        generator: What is drawn from.
        draws: How many.

    Returns:
        `draws` values in [-1, 1], up to the stretch for few seeds.

    Raises:
        ValueError: The shapes of a pair differ, or there are no seeds or no images.
    """
    answers = [_difference(first, second) for first, second in blocks]
    if not answers:
        raise ValueError("expected right answers of seeds x images; got none")
    means = np.concatenate([block.mean(1) for block in answers])
    over_images: FloatArray = np.sum(
        [len(block) / len(means) * _over_images(block, draws, generator) for block in answers], axis=0
    )
    return over_images + _seed_deviations(means, draws, generator)


def _difference(first: BoolArray, second: BoolArray | None) -> NDArray[np.int8]:
    shapes = [first.shape, *([] if second is None else [second.shape])]
    if first.ndim != 2 or not first.size or len(set(shapes)) != 1:
        raise ValueError(f"expected right answers of seeds x images, of one shape; got {shapes}")
    return first.astype(np.int8) if second is None else first.astype(np.int8) - second.astype(np.int8)


def _over_images(answers: NDArray[np.int8], draws: int, generator: np.random.Generator) -> FloatArray:
    """The mean over seeds and drawn images; `answers` is seeds x images."""
    patterns, counts = np.unique(answers.T, axis=0, return_counts=True)
    images = int(counts.sum())
    drawn = generator.multinomial(images, counts / images, size=draws) / images
    mean: FloatArray = drawn @ patterns.mean(1)
    return mean


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
