"""Do the scored channels matter? The default recipe with them and with channels drawn at random, at several rates.

    python benchmarks/selection.py results/rates --page docs/results/selection.md

Reads the records that `benchmarks/rates.py` leaves, a folder for each rate; trains nothing.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rates import rates_of

from ttctune.bench.report.runs import read_results
from ttctune.bench.statistics import Interval, interval

SCORED, RANDOM = "ttc", "ttc-random"
DRAWS = 10_000


def right_answers(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Task -> right answers, 2 x images: with scored channels, with random ones; tasks that have both."""
    runs = {(run.method, run.task): run for run in read_results(folder).runs}
    tasks = sorted({task for method, task in runs if method == SCORED and (RANDOM, task) in runs})
    return {task: np.stack([runs[m, task].right for m in (SCORED, RANDOM)]).astype(np.float64) for task in tasks}


def difference(by_task: dict[str, NDArray[np.float64]]) -> Interval:
    """Scored minus random, in points: mean over tasks, paired bootstrap over images with tasks and rates fixed.

    Args:
        by_task: Task -> right answers, or their mean over rates; 2 x images.
    """
    generator = np.random.default_rng(0)
    gains = [100 * (scored - random) for scored, random in by_task.values()]
    drawn = [gain[generator.integers(len(gain), size=(DRAWS, len(gain)))].mean(1) for gain in gains]
    return interval(float(np.mean([gain.mean() for gain in gains])), np.mean(drawn, axis=0))


def row(title: str, by_task: dict[str, NDArray[np.float64]]) -> str:
    """One line of the table: both means and the difference."""
    scored, random = 100 * np.mean([answers.mean(1) for answers in by_task.values()], axis=0)
    gain = difference(by_task)
    single = ", ".join(f"{100 * (a[0].mean() - a[1].mean()):+.1f}" for a in by_task.values())
    return f"| {title} | {scored:.1f} | {random:.1f} | {gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}] | {single} |"


def page(folder: Path) -> str:
    """The table as Markdown.

    Raises:
        SystemExit: The rates were tried on different tasks.
    """
    rates = sorted((rate, right_answers(folder / str(number))) for number, rate in enumerate(rates_of(SCORED)))
    tasks = [list(by_task) for _, by_task in rates]
    if any(names != tasks[0] for names in tasks) or not tasks[0]:
        raise SystemExit(f"{folder}: {SCORED} and {RANDOM} have no common tasks at all rates; run benchmarks/rates.py")
    over_rates = {task: np.mean([by_task[task] for _, by_task in rates], axis=0) for task in tasks[0]}
    return "\n".join(
        [
            "# Do the scored channels matter?",
            "",
            f"`python benchmarks/selection.py {folder} --page FILE`",
            "",
            "The default recipe with the channels of highest Taylor score, and with channels drawn at random: same",
            "images, seed, number of channels, gates, norms and epochs. The runs are those of [rates.md](rates.md).",
            f"Mean accuracy over {', '.join(tasks[0])} in %, and the difference in",
            "points with its 95 % interval: paired bootstrap over images, with tasks and rates fixed. One seed, so",
            "what another seed would change is not in it.",
            "",
            "| learning rate | scored | random | difference | on single tasks |",
            "|---|---:|---:|---:|---|",
            *(row(f"{rate:g}", by_task) for rate, by_task in rates),
            row("mean of these", over_rates),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", type=Path, help="Markdown to write; else it is printed")
    arguments = parser.parse_args()
    text = page(arguments.folder)
    if arguments.page:
        arguments.page.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
