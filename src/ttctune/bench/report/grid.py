"""The grid of one table, tasks x methods x seeds, and what may be said about it.

Everything is in shares (0 to 1). Methods are compared on the seeds that both have, image by image; an average is that
of every task of the table, or there is none.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from ttctune.bench.published import published
from ttctune.bench.report.runs import Run
from ttctune.bench.statistics import (
    Average,
    Draws,
    Interval,
    average_draws,
    average_weights,
    difference_draws,
    holm,
    interval,
    mean_and_deviation,
    p_value,
    task_interval,
    win_tie_loss,
)

SIGNIFICANT = 0.05
#: "best": better than every other in its column; "close": the best, or not told apart from it; "": neither.
Mark = Literal["best", "close", ""]


@dataclass(frozen=True)
class Cell:
    """A number of the table: accuracy of a method on a task, or an average.

    Attributes:
        value: Mean over seeds.
        deviation: Over seeds; NaN for one seed.
        bounds: The paired bootstrap's interval; None where the two were scored on different images with one seed.
        mark: How it stands in its column.
        partial: Whether jobs of it failed or are not finished: the value is that of the other seeds.
    """

    value: float
    deviation: float
    bounds: Interval | None
    mark: Mark
    partial: bool = False


@dataclass(frozen=True)
class Versus:
    """The reference minus another method.

    Attributes:
        method: The other.
        tasks: On how many tasks both have a common seed.
        difference: Of the means over these tasks, with the tasks fixed; None where images differ.
        p: Two-sided, after Holm; None where images differ.
        over_tasks: The same difference, the tasks being the sample.
        wins: Tasks where the reference is better, cannot be told apart (or images differ), is worse.
    """

    method: str
    tasks: int
    difference: Interval | None
    p: float | None
    over_tasks: Interval
    wins: tuple[int, int, int]


@dataclass(frozen=True)
class Grid:
    """One table's runs.

    Attributes:
        runs: Of one protocol.
        groups: Task -> group.
        methods_order: Known methods in the order to show them in.
        lacking: Further tasks of the grid, on which no method has a result; with any, there is no average.
        partial: (method, task) of which jobs failed or are not finished.
    """

    runs: Sequence[Run]
    groups: Mapping[str, str]
    methods_order: Sequence[str] = ()
    lacking: frozenset[str] = frozenset()
    partial: frozenset[tuple[str, str]] = frozenset()
    _draws: dict[tuple[str, str | None, str], Draws | None] = field(default_factory=dict, repr=False)

    @cached_property
    def cells(self) -> dict[tuple[str, str], dict[int, Run]]:
        """(method, task) -> seed -> run."""
        found: dict[tuple[str, str], dict[int, Run]] = {}
        for run in sorted(self.runs, key=lambda run: run.seed):
            found.setdefault((run.method, run.task), {})[run.seed] = run
        return found

    @cached_property
    def methods(self) -> list[str]:
        """In the order asked for, unknown ones at the end."""
        known = {name: place for place, name in enumerate(self.methods_order)}
        return sorted({run.method for run in self.runs}, key=lambda name: (known.get(name, len(known)), name))

    @cached_property
    def tasks(self) -> list[str]:
        """As in VTAB, others by group and name."""
        known = {name: place for place, name in enumerate(published().tasks)}
        tasks = {run.task for run in self.runs}
        return sorted(tasks, key=lambda task: (known.get(task, len(known)), self.groups[task], task))

    @cached_property
    def averages(self) -> list[Average]:
        """The averages that differ here."""
        groups = {self.groups[task] for task in self.tasks}
        return ["tasks", "groups"] if 1 < len(groups) < len(self.tasks) else ["tasks"]

    def runs_of(self, method: str, task: str) -> list[Run]:
        """By seed; none where the method has no result on the task."""
        return list(self.cells.get((method, task), {}).values())

    def mean(self, method: str, task: str) -> float:
        """Accuracy over seeds."""
        return mean_and_deviation([run.accuracy for run in self.runs_of(method, task)])[0]

    def complete(self) -> list[str]:
        """Methods with a result on every task: only these have an average."""
        if self.lacking:
            return []
        return [method for method in self.methods if all((method, task) in self.cells for task in self.tasks)]

    def draws(self, first: str, second: str | None, task: str) -> Draws | None:
        """Bootstrap draws of a difference on one task, or of one method; None where nothing can be paired."""
        key = (first, second, task)
        if key not in self._draws:
            one = self.cells[first, task]
            other = one if second is None else self.cells[second, task]
            pairs = [(run, other[seed]) for seed, run in one.items() if seed in other]
            paired = pairs and all(run.images == its.images for run, its in pairs)
            generator = np.random.default_rng([2023, self.tasks.index(task)])
            self._draws[key] = _drawn(pairs, second is not None, generator) if paired else None
        return self._draws[key]

    def difference(self, first: str, second: str, task: str) -> float | None:
        """Mean of the differences over the seeds that both have; None without one."""
        one, other = self.cells[first, task], self.cells[second, task]
        values = [one[seed].accuracy - other[seed].accuracy for seed in one if seed in other]
        return mean_and_deviation(values)[0] if values else None

    def average(self, method: str, average: Average) -> float:
        """The mean over tasks, or over the means of groups."""
        return sum(weight * self.mean(method, task) for task, weight in self._weights(average).items())

    def _weights(self, average: Average, tasks: Sequence[str] | None = None) -> dict[str, float]:
        return average_weights({task: self.groups[task] for task in tasks or self.tasks}, average)

    def _averaged(self, first: str, second: str | None, weights: Mapping[str, float]) -> Draws | None:
        by_task = {}
        for task in weights:
            draws = self.draws(first, second, task)
            if draws is None:
                return None
            by_task[task] = draws
        return average_draws(by_task, weights)

    def column(self, task: str) -> dict[str, Cell]:
        """The numbers of one task, by method."""
        present = [method for method in self.methods if (method, task) in self.cells]
        values = {method: self.mean(method, task) for method in present}
        partial = {method for method in present if (method, task) in self.partial}
        marks = _marks(values, partial, lambda first, second: self.draws(first, second, task))
        cells = {}
        for method in present:
            _, deviation = mean_and_deviation([run.accuracy for run in self.runs_of(method, task)])
            bounds = _bounds(values[method], self.draws(method, None, task))
            cells[method] = Cell(values[method], deviation, bounds, marks[method], method in partial)
        return cells

    def average_column(self, average: Average) -> dict[str, Cell]:
        """One average, by method; methods without a result on every task are not there."""
        weights, complete = self._weights(average), self.complete()
        values = {method: self.average(method, average) for method in complete}
        partial = {method for method, task in self.partial if task in self.tasks}
        marks = _marks(values, partial, lambda first, second: self._averaged(first, second, weights))
        cells = {}
        for method in complete:
            seeds = set.intersection(*({*self.cells[method, task]} for task in self.tasks))
            by_seed = [sum(w * self.cells[method, t][seed].accuracy for t, w in weights.items()) for seed in seeds]
            deviation = mean_and_deviation(by_seed)[1] if by_seed else math.nan
            bounds = _bounds(values[method], self._averaged(method, None, weights))
            cells[method] = Cell(values[method], deviation, bounds, marks[method], method in partial)
        return cells

    def versus(self, reference: str) -> list[Versus]:
        """The reference against every other method, on the tasks that both have."""
        rows = []
        for method in self.methods:
            common = {
                task: difference
                for task in self.tasks
                if {(reference, task), (method, task)} <= self.cells.keys()
                and (difference := self.difference(reference, method, task)) is not None
            }
            if method == reference or not common:
                continue
            drawn = self._averaged(reference, method, self._weights("tasks", list(common)))
            by_task = [
                _bounds(value, self.draws(reference, method, task)) or Interval(value, math.nan, math.nan)
                for task, value in common.items()
            ]
            over_tasks = task_interval(list(common.values()))
            rows.append(
                Versus(
                    method=method,
                    tasks=len(common),
                    difference=_bounds(over_tasks.value, drawn),
                    p=None if drawn is None else p_value(drawn.values),
                    over_tasks=over_tasks,
                    wins=win_tie_loss(by_task),
                )
            )
        return _corrected(rows)


def _drawn(pairs: Sequence[tuple[Run, Run]], minus: bool, generator: np.random.Generator) -> Draws:
    """Draws of the first of each pair, minus the second where it counts; an image may be scored under several seeds."""
    place = {image: k for k, image in enumerate(dict.fromkeys(image for run, _ in pairs for image in run.images))}
    seen, first, second = np.zeros((3, len(pairs), len(place)), np.bool_)
    for seed, (one, other) in enumerate(pairs):
        own = [place[image] for image in one.images]
        seen[seed, own], first[seed, own], second[seed, own] = True, one.right, other.right
    return difference_draws(first, second if minus else None, generator, seen=seen)


def _bounds(value: float, draws: Draws | None) -> Interval | None:
    return None if draws is None else interval(value, draws.values)


def _marks(
    values: Mapping[str, float], partial: Collection[str], draws: Callable[[str, str], Draws | None]
) -> dict[str, Mark]:
    """The best of a column is marked so only where it is, after Holm, better than each other one by no accident.

    Of two methods only the seeds that both have count here, so that the higher mean may be the worse one; and one whose
    jobs failed is never the best, as those that diverge would gain by it.
    """
    marks: dict[str, Mark] = dict.fromkeys(values, "")
    if len(values) < 2:
        return marks
    best = max(values, key=lambda method: values[method])
    others = [method for method in values if method != best]
    drawn = [draws(best, other) for other in others]
    p_values = holm([1.0 if d is None or d.images.mean() <= 0 else p_value(d.values) for d in drawn])
    close = [other for other, p in zip(others, p_values, strict=True) if p >= SIGNIFICANT]
    marks[best] = "close" if close or best in partial else "best"
    return marks | dict.fromkeys(close, "close")


def _corrected(rows: list[Versus]) -> list[Versus]:
    """P-values after Holm, over the rows that have one."""
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return [Versus(**{**vars(row), "p": None if row.p is None else next(adjusted)}) for row in rows]
