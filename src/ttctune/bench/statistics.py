"""How sure a comparison is: deviations over seeds, paired bootstrap, intervals over tasks, Holm, wins and losses.

Two questions, two intervals. *Is A better than B on these tasks?* resamples test images and seeds and keeps the tasks
(`difference_draws`, `average_draws`). *Would A be better on another task of this sort?* takes the tasks as the sample
(`task_interval`), and is much wider with few of them.

Images are drawn under all seeds that were scored on them at once. How far other seeds would move the mean is added:
the variance between seeds, less what drawn images explain of it. As it is known from few seeds, all of it follows
Student's distribution, with the degrees of freedom that Welch and Satterthwaite give a sum of variances: few on one
task, many on many. Where some tasks have a single seed, the others tell how far one run may lie; where all have one,
nothing does, and the interval is about images alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtri, stdtrit

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LEVEL = 0.95
DRAWS = 4000
#: Student's distribution with as many degrees of freedom is the normal one.
MOST_FREEDOM = 1e6
#: Of a variance of which hardly anything is left: two seeds have as many.
LEAST_FREEDOM = 1.0


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


@dataclass(frozen=True)
class Draws:
    """Where a mean could lie, of one task or of an average over tasks.

    Attributes:
        seeds: How many runs stand behind it; of an average, the fewest on a task.
        images: The mean over drawn images.
        chance: Twice as many numbers in (0, 1), from which the seeds' part is drawn.
        by_images: Variance of the mean over drawn images.
        between: Variance of the mean over seeds, as the seeds show it.
        explained: What drawn images alone would add to it.
        spread: The square of the larger of the last two over its degrees of freedom, summed over tasks.
    """

    seeds: int
    images: FloatArray
    chance: FloatArray
    by_images: float
    between: float
    explained: float
    spread: float

    @cached_property
    def values(self) -> FloatArray:
        """The draws, seeds included."""
        if not self.spread:
            return self.images
        by_seeds = max(0.0, self.between - self.explained)
        freedom = min(max((self.by_images + by_seeds) ** 2 / self.spread, LEAST_FREEDOM), MOST_FREEDOM)
        center, normal = self.images.mean(), ndtri(self.chance[0])
        stretch = np.sqrt(freedom / 2 / gammaincinv(freedom / 2, self.chance[1]))
        drawn: FloatArray = center + (self.images - center + math.sqrt(by_seeds) * normal) * stretch
        return drawn


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
) -> Draws:
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

    Raises:
        ValueError: The shapes differ, or there are no seeds, or a seed has no images.
    """
    shapes = [first.shape, *(array.shape for array in (second, seen) if array is not None)]
    if first.ndim != 2 or not first.size or len(set(shapes)) != 1 or (seen is not None and not seen.any(1).all()):
        raise ValueError(f"expected right answers of seeds x images, of one shape; got {shapes}")
    answers = first.astype(np.float64) - (0.0 if second is None else second)
    seen = np.ones(first.shape, np.bool_) if seen is None else seen
    shares = np.where(seen, answers, 0.0) / seen.sum(1, keepdims=True)
    kinds = _seen_alike(shares, seen)
    images = np.sum([_over_images(alike.mean(0), draws, generator) for alike in kinds], axis=0)
    seeds, covariance = len(shares), np.sum([_covariance(alike) for alike in kinds], axis=0)
    chance = generator.random((2, draws))
    by_images = float(covariance.sum()) / seeds**2
    if seeds == 1:
        return Draws(seeds, images, chance, by_images, 0.0, 0.0, 0.0)
    between = float(shares.sum(1).var(ddof=1)) / seeds
    explained = float(covariance.trace() / seeds - by_images) / (seeds - 1)
    return Draws(seeds, images, chance, by_images, between, explained, max(between, explained) ** 2 / (seeds - 1))


def _seen_alike(shares: FloatArray, seen: BoolArray) -> list[FloatArray]:
    """The columns of images that were seen under the same seeds, together."""
    _, kind = np.unique(seen.T, axis=0, return_inverse=True)
    return [shares[:, kind.ravel() == number] for number in range(kind.max() + 1)]


def _over_images(parts: FloatArray, draws: int, generator: np.random.Generator) -> FloatArray:
    """The sum of the parts of as many drawn images."""
    values, counts = np.unique(parts, return_counts=True)
    drawn: FloatArray = generator.multinomial(len(parts), counts / len(parts), size=draws) @ values
    return drawn


def _covariance(shares: FloatArray) -> FloatArray:
    """Of the seeds' sums over as many drawn images: seeds x seeds."""
    centered = shares - shares.mean(1, keepdims=True)
    product: FloatArray = centered @ centered.T
    return product


def average_draws(by_task: Mapping[str, Draws], weights: Mapping[str, float]) -> Draws:
    """Draws of an average over fixed tasks: each draw of it takes one draw of every task.

    A run on a task with a single seed is taken to vary as one does, on average, on the tasks with more.
    """
    tasks = [(weights[task], draws) for task, draws in by_task.items()]
    images: FloatArray = np.sum([weight * draws.images for weight, draws in tasks], axis=0)
    alone = sum(weight**2 for weight, draws in tasks if draws.seeds == 1)
    several = [(weight, draws) for weight, draws in tasks if draws.seeds > 1]
    shares = [(weight**2 + alone * draws.seeds / len(several), draws) for weight, draws in several]
    return Draws(
        min(draws.seeds for _, draws in tasks),
        images,
        tasks[0][1].chance,
        by_images=sum(weight**2 * draws.by_images for weight, draws in tasks),
        between=sum(share * draws.between for share, draws in shares),
        explained=sum(share * draws.explained for share, draws in shares),
        spread=sum(share**2 * draws.spread for share, draws in shares),
    )


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
