"""Do the scored channels matter? The default recipe with them and with channels drawn at random, at several rates.

    python benchmarks/selection.py results/rates --page docs/results/selection.md

Reads the records that `benchmarks/rates.py` leaves, a folder for each rate; trains nothing.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from page_of import page_of
from paired import difference, percent, right_of, runs_of, said
from rates import rates_of

SCORED, RANDOM = "ttc", "ttc-random"
Answers = dict[str, NDArray[np.float64]]


def row(title: str, scored: Answers, random: Answers) -> str:
    """One line of the table."""
    gains = [percent({task: scored[task]}) - percent({task: random[task]}) for task in scored]
    single = " | ".join(f"{gain:+.1f}" for gain in gains)
    return (
        f"| {title} | {percent(scored):.1f} | {percent(random):.1f} | {said(difference(scored, random))} | {single} |"
    )


def mean_of(runs: list[Answers]) -> Answers:
    """Task -> each image's mean over runs."""
    return {task: np.mean([answers[task] for answers in runs], axis=0) for task in runs[0]}


def page(folder: Path) -> str:
    """The table as Markdown."""
    folders = {rate: folder / str(number) for number, rate in enumerate(rates_of(SCORED))}
    folders = {rate: own for rate, own in folders.items() if any(own.glob(f"*/{RANDOM}/seed0.json"))}
    pairs = {
        rate: [right_of(runs_of(folders[rate], method)) for method in (SCORED, RANDOM)] for rate in sorted(folders)
    }
    overall = [mean_of([pair[place] for pair in pairs.values()]) for place in (0, 1)]
    tasks = [*overall[0]]
    return "\n".join(
        [
            "# Do the scored channels matter?",
            "",
            f"`python benchmarks/selection.py {folder} --page FILE`",
            "",
            "The default recipe with the channels of highest Taylor score, and with channels drawn at random: same",
            "images, seed, number of channels, gates, norms and epochs. The runs are those of [rates.md](rates.md).",
            "Mean accuracy over four tasks in %, and the difference in points, on single tasks too. Intervals are",
            "95 %, by paired bootstrap over images with tasks and rates fixed. One seed, so what another seed would",
            "change is not in them.",
            "",
            f"| learning rate | scored | random | difference | {' | '.join(tasks)} |",
            "|---|---:|---:|---|" + "---:|" * len(tasks),
            *(row(f"{rate:g}", *pair) for rate, pair in pairs.items()),
            row("mean of these", *overall),
            "",
        ]
    )


if __name__ == "__main__":
    page_of(page, __doc__)
