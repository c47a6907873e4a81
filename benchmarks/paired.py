"""Two methods on the same images of several tasks: the difference of their means, with an interval.

The benchmarks that compare runs of different folders (other epochs, other rates) share this; within one folder,
`ttctune report` does it.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttctune.bench.report.runs import Run, read_results
from ttctune.bench.statistics import Interval, interval

DRAWS = 10_000


def runs_of(folder: Path, method: str, seed: int = 0) -> dict[str, Run]:
    """Task -> the method's run, in the order of the tasks' names."""
    runs = {run.task: run for run in read_results(folder).runs if (run.method, run.seed) == (method, seed)}
    return dict(sorted(runs.items()))


def check_same_images(first: dict[str, Run], *others: dict[str, Run]) -> None:
    """Refuse to pair runs that were scored on other images."""
    for other in others:
        for task in first.keys() & other.keys():
            if (first[task].data, first[task].images) != (other[task].data, other[task].images):
                raise SystemExit(f"{task} has other images in one of the folders; run it again")


def right_of(runs: dict[str, Run]) -> dict[str, NDArray[np.float64]]:
    """Task -> 1 for every image answered rightly, else 0."""
    return {task: run.right.astype(np.float64) for task, run in runs.items()}


def percent(right: dict[str, NDArray[np.float64]]) -> float:
    """Mean accuracy over tasks, in percent."""
    return 100 * float(np.mean([answers.mean() for answers in right.values()]))


def cells(right: dict[str, NDArray[np.float64]]) -> str:
    """Accuracy on each task and their mean, in percent, as cells of a table."""
    single = (percent({task: answers}) for task, answers in right.items())
    return " | ".join(f"{share:.1f}" for share in (*single, percent(right)))


def difference(first: dict[str, NDArray[np.float64]], second: dict[str, NDArray[np.float64]]) -> Interval:
    """First minus second, in points of the mean over tasks; 95 %, by paired bootstrap over images with tasks fixed.

    Args:
        first: Task -> right answers, or their mean over several runs; an image each.
        second: The same tasks and images.
    """
    if first.keys() != second.keys():
        raise SystemExit(f"different tasks: {sorted(first)} and {sorted(second)}; run what is missing")
    generator = np.random.default_rng(0)
    gains = [100 * (first[task] - second[task]) for task in first]
    drawn = [gain[generator.integers(len(gain), size=(DRAWS, len(gain)))].mean(1) for gain in gains]
    return interval(float(np.mean([gain.mean() for gain in gains])), np.mean(drawn, axis=0))


def in_points(gain: Interval) -> Interval:
    """A difference of shares in points."""
    return Interval(100 * gain.value, 100 * gain.low, 100 * gain.high)


def said(gain: Interval) -> str:
    """As it stands in tables."""
    return f"{gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}]"
