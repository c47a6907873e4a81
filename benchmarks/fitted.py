r"""How well each method fits its training images, and how soon, beside how well it answers new ones.

    python benchmarks/fitted.py results/test --page docs/results/fitted.md

Reads the records that `ttctune bench` wrote for docs/results/ten-tasks.md; the first seed of every method that has it
on all ten tasks.
"""

import statistics
from collections import defaultdict
from pathlib import Path
from textwrap import fill

from page_of import commands_of, page_of

from ttctune.bench.methods import titles_of
from ttctune.bench.report.runs import Run, read_results

#: Share of the training images of an epoch that is called all of them.
FITTED = 0.99
#: Points of test accuracy below the highest mean within which a method is called good.
GOOD = 0.03


def training_accuracies(run: Run) -> list[float]:
    """Share of right answers during each epoch, as the weights change and branches are left out."""
    (record,) = run.records
    return [row["accuracy"] for row in record.history]


def fitted_after(run: Run) -> int | None:
    """The first epoch that answers at least `FITTED` of the training images rightly, from 1; None if none does."""
    return next((k for k, share in enumerate(training_accuracies(run), 1) if share >= FITTED), None)


def page(folder: Path) -> str:
    """The table as Markdown."""
    by_method: dict[str, list[Run]] = defaultdict(list)
    results = read_results(folder)
    for run in results.runs:
        if run.seed == 0:
            by_method[run.method].append(run)
    whole = {method: runs for method, runs in by_method.items() if len(runs) == len(results.groups)}
    test = {method: statistics.mean(run.accuracy for run in runs) for method, runs in whole.items()}
    last = {method: [training_accuracies(run)[-1] for run in runs] for method, runs in whole.items()}
    names = titles_of(whole)
    good = [method for method in whole if test[method] > max(test.values()) - GOOD]
    legend = (
        "The runs of [ten-tasks.md](ten-tasks.md), first seed, of every method that has it on all ten tasks. "
        "Right answers in the last epoch are those given while training, with stochastic depth: their mean over "
        "the tasks, and the fewest of any task. A task is learnt by heart in the first epoch that has "
        f"{100 * FITTED:.0f} % right; the median of these epochs is shown. Parameters without head."
    )
    lines = [
        "# All of them learn their images by heart",
        "",
        *commands_of(__doc__),
        "",
        fill(legend, 120),
        "",
        "| method | parameters | right in the last epoch, % | fewest, % | tasks learnt by heart | in epoch | test, % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for method in sorted(whole, key=lambda method: test[method]):
        epochs = [epoch for epoch in map(fitted_after, whole[method]) if epoch is not None]
        parameters = max(run.parameters for run in whole[method])
        when = f"{statistics.median(epochs):g}" if epochs else ""
        lines.append(
            f"| {names[method]} | {parameters:,} | {100 * statistics.mean(last[method]):.1f} "
            f"| {100 * min(last[method]):.1f} | {len(epochs)} of {len(whole[method])} | {when} "
            f"| {100 * test[method]:.1f} |"
        )
    spread = 100 * (max(test.values()) - min(test[method] for method in good))
    unfitted = 100 * max(1 - statistics.mean(last[method]) for method in good)
    wrong = 100 * (1 - max(test.values()))
    conclusion = (
        f"The {len(good)} methods within {100 * GOOD:.0f} points of the highest mean on test leave at most "
        f"{unfitted:.1f} % of their training images wrong and lie within {spread:.1f} points of each other, and "
        f"the best of them leaves {wrong:.1f} % of the test images wrong. On the training images more parameters, "
        "or better chosen ones, have nothing left to gain: these methods differ in what else they learn with them. "
        "There size may still matter: [cross-validated on coil100_azimuth18](suite.md#other-sizes), LoRA with the "
        "norms gains by three times its rank, though with either it is right on 99 % of its training images."
    )
    return "\n".join([*lines, "", fill(conclusion, 120), ""])


if __name__ == "__main__":
    page_of(page, __doc__)
