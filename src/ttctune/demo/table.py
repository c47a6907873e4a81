"""The table of the demo, for a terminal and for the documentation."""

import statistics
import textwrap
from collections.abc import Iterable

from ttctune.backbone.embedded import NAME
from ttctune.bench.methods import METHODS
from ttctune.cli import tables
from ttctune.demo.comparison import COMPARED, Result, Size
from ttctune.demo.tasks import TASKS
from ttctune.wording import counted


def rows_of(results: Iterable[Result]) -> list[list[str]]:
    """One row a method: title, parameters, accuracy in % on each task, and their mean."""
    results = list(results)
    rows = []
    for method in COMPARED:
        mine = [r for r in results if r.job.method == method]
        cells = [[100 * r.accuracy for r in mine if r.job.task == task] for task in TASKS]
        mean = statistics.mean(100 * r.accuracy for r in mine)
        rows.append([METHODS[method].title, f"{mine[0].parameters:,}", *map(_mean, cells), f"{mean:.1f}"])
    return rows


def verdict(results: Iterable[Result]) -> str:
    """Where the two-stage method does not beat LayerNorm alone, in one line."""
    means: dict[tuple[str, str], list[float]] = {}
    for result in results:
        means.setdefault((result.job.task, result.job.method), []).append(result.accuracy)
    lost = [t for t in TASKS if statistics.mean(means[t, "ttc"]) <= statistics.mean(means[t, "norm"])]
    if not lost:
        return "two-stage beats LayerNorm only on every task"
    return f"two-stage does not beat LayerNorm only on {' and '.join(lost)}"


def settings(size: Size, seeds: int) -> str:
    """The protocol, in one line."""
    return (
        f"{NAME} at {size.pixels} px; a task: {size.train} images to train on, {size.val} to score on; {size.epochs} "
        f"epochs for every method, each at its default learning rate; {counted(seeds, 'seed')}; accuracy in %; "
        "parameters without head"
    )


def show(results: list[Result], size: Size, seeds: int) -> None:
    """Print the protocol, the table and the verdict."""
    print()
    print(textwrap.fill(settings(size, seeds), 79))
    table = tables.table_of()
    for number, name in enumerate(["method", "parameters", *TASKS, "mean"]):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows_of(results):
        table.add_row(*row)
    tables.show(table)
    print(f"\n{verdict(results)}\n")


def page(results: list[Result], size: Size, seeds: int) -> str:
    """The table as a page of the documentation."""
    header = ["method", "parameters", *TASKS, "mean"]
    lines = [
        "# The demo's table, with full sizes",
        "",
        f"`python -m ttctune.demo --full --seeds {seeds} --page docs/results/demo.md`",
        "",
        f"{settings(size, seeds)}; mean ± standard deviation over the seeds.",
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
        *(f"| {' | '.join(row)} |" for row in rows_of(results)),
        "",
        f"{verdict(results).capitalize()}.".replace("layernorm", "LayerNorm"),
        "",
    ]
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
