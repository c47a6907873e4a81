"""The tables of the page, as rows of numbers and short texts; what they look like is the templates' business."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ttctune.bench.published import published
from ttctune.bench.report.grid import Cell, Grid, Versus
from ttctune.bench.report.runs import Results, Run, differences, protocol_of, said

#: The method that others are compared with where it is there and nothing else is asked for.
OURS = "ttc"


@dataclass(frozen=True)
class Column:
    """One column of numbers: a task, or an average."""

    name: str
    cells: Mapping[str, Cell]
    is_average: bool


@dataclass(frozen=True)
class MethodRow:
    """A method's facts beside its numbers, as text."""

    method: str
    title: str
    parameters: str
    trials: str
    seeds: str
    lacking: int


@dataclass(frozen=True)
class Table:
    """All about the runs of one protocol.

    Attributes:
        grid: The runs.
        differs: How its protocol differs from that of the first table; empty for the first.
        protocol: Name -> value of what its runs share.
        also: Name -> values of what they may differ in.
        columns: Averages where there are several tasks, then tasks.
        rows: Methods.
        reference: What others are compared with.
        versus: The comparisons.
    """

    grid: Grid
    differs: tuple[str, ...]
    protocol: Mapping[str, str]
    also: Mapping[str, str]
    columns: tuple[Column, ...]
    rows: tuple[MethodRow, ...]
    reference: str
    versus: tuple[Versus, ...]

    @property
    def closest(self) -> Versus | None:
        """The comparison with the strongest of the other methods on all tasks; None where no other has them all."""
        whole = [row for row in self.versus if row.tasks == len(self.grid.tasks)]
        return min(whole, key=lambda row: row.over_tasks.value, default=None)

    @property
    def titles(self) -> dict[str, str]:
        """Method -> what people call it."""
        return {row.method: row.title for row in self.rows}


def tables_of(results: Results, titles: Mapping[str, str], reference: str | None) -> tuple[Table, ...]:
    """One table a protocol.

    Args:
        results: What was read.
        titles: Known methods in the order to show them in -> what people call them.
        reference: What others are compared with; None takes ours, else the best.
    """
    return tuple(_table(runs, results, titles, reference) for runs in results.tables)


def grid_of(runs: Sequence[Run], results: Results, titles: Iterable[str]) -> Grid:
    """The grid of one table; it lacks tasks that no job has finished, and of VTAB whatever is not there of the 19."""
    wanted = {*results.groups, *(published().tasks if results.header.suite == "vtab" else ())}
    return Grid(
        runs,
        results.groups,
        tuple(titles),
        lacking=frozenset(wanted - {run.task for run in results.runs}),
        partial=frozenset((job.method, job.task) for job in results.missing),
    )


def _table(runs: Sequence[Run], results: Results, titles: Mapping[str, str], reference: str | None) -> Table:
    grid = grid_of(runs, results, titles)
    names = {"tasks": f"mean of {len(grid.tasks) + len(grid.lacking)} tasks", "groups": "mean of groups"}
    averages = [Column(names[average], grid.average_column(average), True) for average in grid.averages]
    tasks = [Column(task, grid.column(task), False) for task in grid.tasks]
    chosen = next((name for name in (reference, OURS) if name in grid.methods), _best(grid))
    return Table(
        grid=grid,
        differs=tuple(differences(runs, results.tables[0])) if runs is not results.tables[0] else (),
        protocol={
            name.replace("_", " "): said(value) for name, value in protocol_of(runs).items() if value is not None
        },
        also=_also(runs),
        columns=(*averages, *tasks) if len(tasks) > 1 or grid.lacking else tuple(tasks),
        rows=tuple(_row(grid, method, titles) for method in grid.methods),
        reference=chosen,
        versus=tuple(grid.versus(chosen)),
    )


def _best(grid: Grid) -> str:
    """Of the methods with most tasks, that with the highest mean on them."""

    def rank(method: str) -> tuple[int, float]:
        tasks = [task for task in grid.tasks if grid.runs_of(method, task)]
        return len(tasks), sum(grid.mean(method, task) for task in tasks)

    return max(grid.methods, key=rank)


def _row(grid: Grid, method: str, titles: Mapping[str, str]) -> MethodRow:
    runs = [run for run in grid.runs if run.method == method]
    records = [record for run in runs for record in run.records]
    tasks = {run.task for run in runs}
    return MethodRow(
        method=method,
        title=titles.get(method, method),
        parameters=_range({run.parameters for run in runs}),
        trials=_range({record.trials for record in records}),
        seeds=_range({len(grid.runs_of(method, task)) for task in tasks}),
        lacking=len(grid.tasks) - len(tasks),
    )


def _range(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _also(runs: Sequence[Run]) -> dict[str, str]:
    """What may differ within a table, as it was: devices, threads, versions."""
    protocols = [record.protocol for run in runs for record in run.records if record.protocol]
    names = sorted({name for protocol in protocols for name in protocol.versions})
    found: dict[str, set[Any]] = {
        "settings chosen by": {record.chosen_by for run in runs for record in run.records},
        "device": {protocol.device for protocol in protocols},
        "threads": {protocol.threads for protocol in protocols},
    }
    for name in names:
        found[name] = {protocol.versions[name] for protocol in protocols if name in protocol.versions}
    return {name: ", ".join(map(str, sorted(values))) for name, values in found.items()}


def not_run(results: Results) -> int:
    """Jobs of the full grid of methods, tasks and seeds seen here that nobody has run."""
    seen = {(run.task, run.method, run.seed) for run in results.runs}
    seen |= {(missing.task, missing.method, missing.seed) for missing in results.missing}
    tasks, methods, seeds = ({job[place] for job in seen} for place in range(3))
    return len(tasks) * len(methods) * len(seeds) - len(seen)
