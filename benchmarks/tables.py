"""Write the tables of a page anew from the records of benchmarks.

    python benchmarks/tables.py docs/results/forms.md

A table stands between two lines,

    <!-- table of FOLDER against METHOD: METHOD, METHOD, ... -->
    <!-- end of table -->

the first of which says which results it shows: the folder that `ttctune bench` wrote, seen from where this is called,
the method that others are compared with, and the others. Rows are in the order of their means.
"""

import argparse
import re
from pathlib import Path

from ttctune.bench.methods import METHODS, titles_of
from ttctune.bench.report.grid import Cell, Grid, Versus
from ttctune.bench.report.runs import read_results
from ttctune.bench.statistics import Interval

TABLE = re.compile(r"(<!-- table of (\S+) against (\S+): ([^>]*) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def table(folder: Path, reference: str, others: list[str]) -> str:
    """Methods and variants by their means over the tasks, with what the reference has more.

    Args:
        folder: Of results, of one protocol.
        reference: The method that others are compared with.
        others: Those.
    """
    results = read_results(folder)
    runs = [run for run in results.tables[0] if run.method in {reference, *others}]
    if absent := {reference, *others} - {run.method for run in runs}:
        raise SystemExit(f"{folder} has no results of {', '.join(sorted(absent))}; take them out of the page")
    grid = Grid(runs, results.groups, tuple(METHODS))
    titles, means = titles_of(grid.methods), grid.average_column("tasks")
    versus = {row.method: row for row in grid.versus(reference)}
    lines = [
        f"| method | parameters | seeds | mean of {len(grid.tasks)} tasks, % | {reference} minus it, points |",
        "|---|---:|---:|---:|---:|",
    ]
    for method in sorted(means, key=lambda name: means[name].value):
        by_task = [grid.runs_of(method, task) for task in grid.tasks]
        parameters = max(run.parameters for own in by_task for run in own)
        seeds = " to ".join(str(count) for count in sorted({len(own) for own in by_task}))
        gain = _difference(versus.get(method))
        lines.append(f"| {titles[method]} | {parameters:,} | {seeds} | {_mean(means[method])} | {gain} |")
    return "\n".join(lines) + "\n"


def _mean(cell: Cell) -> str:
    deviation = f" ± {100 * cell.deviation:.1f}" if cell.deviation == cell.deviation else ""
    return f"{100 * cell.value:.1f}{deviation}{_bounds(cell.bounds)}"


def _difference(row: Versus | None) -> str:
    if row is None or row.difference is None:
        return ""
    return f"{100 * row.difference.value:+.1f}{_bounds(row.difference)}"


def _bounds(interval: Interval | None) -> str:
    return "" if interval is None else f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def renewed(page: str) -> str:
    """The page with every table of it made anew."""
    return TABLE.sub(
        lambda m: m[1] + table(Path(m[2]), m[3], [name.strip() for name in m[4].split(",") if name.strip()]) + m[5],
        page,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+")
    for path in parser.parse_args().pages:
        path.write_text(renewed(path.read_text()))
