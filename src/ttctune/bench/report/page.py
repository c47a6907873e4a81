"""The report as one HTML page that needs no network, and as Markdown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ttctune.bench.published import published
from ttctune.bench.report import figures
from ttctune.bench.report.channels import Overlap, overlap_of
from ttctune.bench.report.grid import Cell
from ttctune.bench.report.mistakes import Confusions, Example, confusions_of, examples_of
from ttctune.bench.report.runs import Results, Run
from ttctune.bench.report.tables import Table, not_run
from ttctune.bench.statistics import DRAWS, Interval
from ttctune.version import __version__


@dataclass(frozen=True)
class TaskDrawings:
    """What is drawn of one task, as SVG; None where there is nothing to draw."""

    task: str
    bars: str
    curves: str | None


@dataclass(frozen=True)
class TaskMistakes:
    """Where one method errs on one task."""

    task: str
    confusions: Confusions
    matrix: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class Drawings:
    """Everything that is drawn, of the first table.

    Attributes:
        costs: Accuracy against parameters, and against time.
        legend: Which line is which method.
        tasks: Bars and curves, task by task.
        scored: The method whose channels are shown; None where none chooses any.
        maps: Task -> its map.
        overlap: Of the chosen channels between tasks.
        mistakes: Of the reference, task by task.
    """

    costs: Sequence[str]
    legend: str
    tasks: Sequence[TaskDrawings]
    scored: str | None
    maps: Mapping[str, str]
    overlap: Overlap | None
    mistakes: Sequence[TaskMistakes]


def as_html(results: Results, tables: Sequence[Table], images: Path | None = None) -> str:
    """The page.

    Args:
        results: What was read of a results folder.
        tables: What `tables_of` makes of it.
        images: Where the tasks' images lie; None leaves pictures out.
    """
    return _render("page.html.j2", results, tables, drawings=_drawings(tables[0], images))


def as_markdown(results: Results, tables: Sequence[Table]) -> str:
    """The tables of the page as Markdown; arguments as of `as_html`."""
    return _render("page.md.j2", results, tables)


def _render(template: str, results: Results, tables: Sequence[Table], **more: Any) -> str:
    environment = Environment(
        loader=PackageLoader("ttctune.bench.report"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": _percent,
        "points": _points,
        "p": _p,
        "pipes": _pipes,
        "known": _known,
        "sentence": _sentence,
    }
    return environment.get_template(template).render(
        results=results,
        tables=tables,
        not_run=not_run(results),
        published=published(),
        version=__version__,
        draws=DRAWS,
        **more,
    )


def _drawings(table: Table, images: Path | None) -> Drawings:
    grid, titles = table.grid, {method: figures.shortened(title) for method, title in table.titles.items()}
    colours = {method: number for number, method in enumerate(grid.methods)}
    tasks = []
    for number, column in enumerate(column for column in table.columns if not column.is_average):
        by_method = {method: grid.runs_of(method, column.name) for method in column.cells}
        classes = len(next(iter(by_method.values()))[0].records[0].classes)
        bars = figures.bars(column.name, number, column.cells, titles, 1 / classes)
        tasks.append(TaskDrawings(column.name, bars, figures.curves(column.name, number, by_method, colours)))
    scored = next(
        (m for m in (table.reference, *grid.methods) if any(_chosen(grid.runs_of(m, t)) for t in grid.tasks)), None
    )
    chosen = {task: own for task in grid.tasks if scored and (own := _chosen(grid.runs_of(scored, task)))}
    return Drawings(
        costs=_costs(table, titles, colours),
        legend=figures.legend(titles, colours),
        tasks=tasks,
        scored=scored,
        maps={task: figures.channels(task, number, own[0]) for number, (task, own) in enumerate(chosen.items())},
        overlap=overlap_of(chosen),
        mistakes=[
            _mistakes(task, number, own, images)
            for number, task in enumerate(grid.tasks)
            if (own := grid.runs_of(table.reference, task))
        ],
    )


def _chosen(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.records[0].selection]


def _costs(table: Table, titles: Mapping[str, str], colours: Mapping[str, int]) -> list[str]:
    """Mean accuracy against parameters and against time, of the methods that have a mean."""
    column = next((column for column in table.columns if column.is_average), table.columns[0])
    runs = {method: [run for run in table.grid.runs if run.method == method] for method in column.cells}
    if not runs:
        return []
    costs = {
        "parameters trained, head left out": {m: _mean([run.parameters for run in own]) for m, own in runs.items()},
        "seconds of training a run": {m: _mean([run.seconds for run in own]) for m, own in runs.items()},
    }
    return [
        figures.cost({m: (cost[m], cell) for m, cell in column.cells.items()}, titles, colours, name)
        for name, cost in costs.items()
    ]


def _mistakes(task: str, number: int, runs: Sequence[Run], images: Path | None) -> TaskMistakes:
    confusions = confusions_of(runs)
    matrix = figures.confusion(task, number, confusions.counts, confusions.names)
    return TaskMistakes(task, confusions, matrix, examples_of(runs, images))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _percent(value: float | None, digits: int = 1) -> str:
    """A share in %: 0.734 -> "73.4"; nothing for None."""
    return "" if value is None else f"{100 * value:.{digits}f}"


def _points(bounds: Interval | None) -> str:
    """An interval of a difference in points: "+1.2 [-0.3, 2.7]"."""
    if bounds is None:
        return "not paired"
    value = f"{100 * bounds.value:+.1f}"
    return value if math.isnan(bounds.low) else f"{value} [{100 * bounds.low:.1f}, {100 * bounds.high:.1f}]"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _sentence(text: str) -> str:
    """With a capital at its start, all else as it is."""
    return text[:1].upper() + text[1:]


def _known(cell: Cell) -> bool:
    """Whether a cell has a deviation."""
    return not math.isnan(cell.deviation)


def _pipes(text: object) -> str:
    """Text for a cell of a table in Markdown."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
