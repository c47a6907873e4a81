"""Write the tables of a page anew from the records of benchmarks.

    python benchmarks/tables.py docs/results/forms.md

A table stands between two lines,

    <!-- table of FOLDER against METHOD: METHOD, METHOD, ... -->
    <!-- end of table -->

the first of which says which results it shows: the folder that `ttctune bench` wrote, seen from where this is called,
the method that others are compared with, and the others. `FOLDER with seeds 0, 1` leaves other seeds out, `FOLDER on
TASK, TASK, ...` other tasks. Rows are in the order of their means; p is after Holm's correction for their number.
"""

import argparse
import math
import re
from dataclasses import replace
from pathlib import Path

from paired import in_points, said

from ttctune.bench.methods import titles_of
from ttctune.bench.report.runs import read_results
from ttctune.bench.report.tables import tables_of

TABLE = re.compile(
    r"(?P<begin><!-- table of (?P<folder>\S+)(?: with seeds (?P<seeds>[\d, ]+?))?(?: on (?P<tasks>[^>]*?))?"
    r" against (?P<reference>\S+): (?P<others>[^>]*) -->\n)"
    r".*?(?P<end><!-- end of table -->)",
    re.DOTALL,
)


def table(folder: Path, seeds: list[str], tasks: list[str], reference: str, others: list[str]) -> str:
    """Methods and variants by their means over the tasks, with what the reference has more.

    Args:
        folder: Of results, of one protocol.
        seeds: Those to show; none stand for all.
        tasks: Likewise.
        reference: The method that others are compared with.
        others: Those.
    """
    results = read_results(folder)
    groups = {task: group for task, group in results.groups.items() if not tasks or task in tasks}
    shown_seeds = {int(seed) for seed in seeds} or {run.seed for run in results.tables[0]}
    runs = tuple(
        run
        for run in results.tables[0]
        if run.method in {reference, *others} and run.task in groups and run.seed in shown_seeds
    )
    if absent := ({reference, *others} - {run.method for run in runs}) | (set(tasks) - {run.task for run in runs}):
        raise SystemExit(f"{folder} has no results of {', '.join(sorted(absent))}; take them out of the page")
    titles = titles_of([reference, *others])
    (shown,) = tables_of(replace(results, tables=(runs,), groups=groups), titles, reference)
    mean = shown.columns[0]
    against = {row.method: row for row in shown.versus}
    if partial := [row.method for row in shown.rows if row.method not in mean.cells]:
        raise SystemExit(
            f"{folder} lacks results of {', '.join(partial)} on some task; run them, or take them out of the page"
        )
    lines = [
        f"| method | parameters | seeds | {mean.name}, % | {titles[reference]} minus it, points | p |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(shown.rows, key=lambda row: mean.cells[row.method].value):
        cell, other = mean.cells[row.method], against.get(row.method)
        deviation = "" if math.isnan(cell.deviation) else f" ± {100 * cell.deviation:.1f}"
        bounds = "" if cell.bounds is None else f" [{100 * cell.bounds.low:.1f}, {100 * cell.bounds.high:.1f}]"
        accuracy = f"{100 * cell.value:.1f}{deviation}{bounds}"
        gain, p = ("", "") if other is None else (said(in_points(other.difference)), f"{other.p:.2g}")
        lines.append(f"| {row.title} | {row.parameters} | {row.seeds} | {accuracy} | {gain} | {p} |")
    return "\n".join(lines) + "\n"


def renewed(page: str) -> str:
    """The page with every table of it made anew."""

    def again(m: re.Match[str]) -> str:
        seeds, tasks, others = (_names(m[name]) for name in ("seeds", "tasks", "others"))
        return m["begin"] + table(Path(m["folder"]), seeds, tasks, m["reference"], others) + m["end"]

    return TABLE.sub(again, page)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+")
    for path in parser.parse_args().pages:
        path.write_text(renewed(path.read_text()))
