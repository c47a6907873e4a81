"""How many images a temperature needs: fitted on draws from val, measured on the rest of val.

    python benchmarks/calibration.py --data DIR --weights FILE RUN...     # writes docs/results/calibration.md

Each RUN is an adapter folder made on the train part of DIR, such as `benchmarks/warm_start.py` leaves behind. From its
val part images are drawn 200 times for each size, temperature and thresholds are found on each draw, and measured on
the images of val that were not drawn. No test part is read.
"""

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ttctune.calibration import TARGETS, calibration_error, coverage_and_accuracy, fit_temperature, thresholds
from ttctune.calibration import negative_log_likelihood as nll
from ttctune.images import open_images
from ttctune.loading import load

SIZES, DRAWS = (25, 50, 100, 150), 200
PAGE = Path("docs/results/calibration.md")


def parted(count: int, size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Positions that are drawn, and those that are left, 200 times."""
    generator = torch.Generator().manual_seed(size)
    for _ in range(DRAWS):
        order = torch.randperm(count, generator=generator)
        yield order[:size], order[size:]


def temperatures(logits: Tensor, labels: Tensor, size: int) -> str:
    """A table's cells: temperatures found, share of draws that help on the rest, change of NLL and of ECE."""
    found, changes, errors = [], [], []
    for drawn, rest in parted(len(labels), size):
        t = fit_temperature(logits[drawn], labels[drawn]) or 1.0
        found.append(t)
        changes.append(nll(logits[rest] / t, labels[rest]) - nll(logits[rest], labels[rest]))
        ece = [calibration_error((logits[rest] / by).softmax(1), labels[rest]) for by in (1.0, t)]
        errors.append(ece[1] - ece[0])
    helped = statistics.mean(change < 0 for change in changes)
    return (
        f"{statistics.mean(found):.3f} ± {statistics.stdev(found):.3f} | {helped:.0%} | "
        f"{statistics.mean(changes):+.4f} | {max(changes):+.4f} | {statistics.mean(errors):+.4f}"
    )


def abstaining(logits: Tensor, labels: Tensor, size: int) -> list[str]:
    """Rows of a table: what thresholds chosen on the draws do on the rest."""
    rows = []
    for target in TARGETS:
        chosen, answered, right = [], [], []
        for drawn, rest in parted(len(labels), size):
            t = fit_temperature(logits[drawn], labels[drawn]) or 1.0
            probabilities = (logits / t).softmax(1)
            for threshold in thresholds(probabilities[drawn], labels[drawn]):
                if threshold.target == target:
                    coverage, accuracy = coverage_and_accuracy(probabilities[rest], labels[rest], threshold.abstain)
                    chosen.append(threshold.abstain)
                    answered.append(coverage)
                    right += [] if accuracy is None else [accuracy]
        if len(right) > 1:
            rows.append(
                f"{target:.0%} | {len(chosen) / DRAWS:.0%} | {statistics.mean(chosen):.2f} | "
                f"{statistics.mean(answered):.1%} | {statistics.mean(right):.1%} ± {100 * statistics.stdev(right):.1f}"
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    arguments = parser.parse_args()
    first, second = [], []
    for run in arguments.runs:
        adapted = load(run, weights=arguments.weights)
        opened = open_images(arguments.data, adapted.input, val_fraction=0, parts=("val",), classes=adapted.classes)
        val = opened.parts["val"]
        logits = adapted.logits(val)
        first += [f"| {run.name} | {size} | {temperatures(logits, val.labels, size)} |" for size in SIZES]
        second += [f"| {run.name} | {row} |" for row in abstaining(logits, val.labels, SIZES[-2])]
    lines = [
        "# Temperature and thresholds",
        "",
        "`python benchmarks/calibration.py --data DIR --weights FILE RUN...`, with the runs `cold-<seed>` that "
        "`benchmarks/warm_start.py` leaves in `--runs` (DeiT-tiny, 96 px, caltech101: 800 training images, 102 "
        "classes; maps of a quarter of the channels without gates or stochastic depth).",
        "",
        f"Temperatures are fitted on {DRAWS} draws of n of the 200 images of val, and measured on the images of val "
        "that were not drawn, against T = 1: the share of draws that lower the negative log-likelihood (NLL), its mean "
        "and its worst change, the mean change of the expected calibration error (ECE). No test part was read.",
        "",
        "| run | n | temperature | draws that help | mean change of NLL | worst | mean change of ECE |",
        "|---|---|---|---|---|---|---|",
        *first,
        "",
        f"Thresholds for abstaining, chosen on draws of {SIZES[-2]} images of val (where they can be), on the images "
        "that were not drawn:",
        "",
        "| run | to be right | draws with a threshold | --abstain, mean | answers | right |",
        "|---|---|---|---|---|---|",
        *second,
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
