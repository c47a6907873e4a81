"""How many images of val a temperature needs: fitted on draws from val, measured on test.

    python benchmarks/calibration.py --data DIR --weights FILE RUN...     # writes docs/results/calibration.md

Each RUN is an adapter folder made on the train part of DIR, such as `benchmarks/warm_start.py` leaves behind. From its
val part images are drawn 200 times for each size, a temperature is fitted on each draw, and the negative
log-likelihood on the whole test part is compared with that at T = 1.
"""

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor

from ttctune.adapted import Adapted, load
from ttctune.calibration import calibrate, calibration_error, fit_temperature, negative_log_likelihood
from ttctune.evaluation import evaluate_logits
from ttctune.images import open_images

SIZES, DRAWS = (25, 50, 100, 150), 200
PAGE = Path("docs/results/calibration.md")


def logits_and_labels(adapted: Adapted, data: Path, part: str) -> tuple[Tensor, Tensor]:
    images = open_images(data, adapted.input, val_fraction=0, parts=(part,), classes=adapted.classes).parts[part]
    return adapted.logits(images), images.labels


def draws(val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], size: int) -> str:
    """A table's cells: temperatures found, share of draws that help on test, worst change."""
    generator = torch.Generator().manual_seed(size)
    before = negative_log_likelihood(*test)
    temperatures, changes = [], []
    for _ in range(DRAWS):
        chosen = torch.randperm(len(val[1]), generator=generator)[:size]
        temperature = fit_temperature(val[0][chosen], val[1][chosen]) or 1.0
        temperatures.append(temperature)
        changes.append(negative_log_likelihood(test[0] / temperature, test[1]) - before)
    helped = statistics.mean(change < 0 for change in changes)
    return (
        f"{statistics.mean(temperatures):.3f} ± {statistics.stdev(temperatures):.3f} | {helped:.1%} | "
        f"{statistics.mean(changes):+.4f} | {max(changes):+.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    arguments = parser.parse_args()
    lines = [
        "# Temperature and thresholds",
        "",
        "`python benchmarks/calibration.py --data DIR --weights FILE RUN...`, with the runs `cold-<seed>` that "
        "`benchmarks/warm_start.py` leaves in `--runs` (DeiT-tiny, 96 px, caltech101: 800 training images).",
        "",
        f"Temperatures are fitted on {DRAWS} draws of n images from val (200 images) and measured on test (1,020 "
        "images): the share of draws that lower test's negative log-likelihood (NLL), the mean change and the worst.",
        "",
        "| run | n | temperature | draws that help | mean change of NLL | worst change |",
        "|---|---|---|---|---|---|",
    ]
    summaries, abstaining = [], []
    for run in arguments.runs:
        adapted = load(run, weights=arguments.weights)
        val, test = (logits_and_labels(adapted, arguments.data, part) for part in ("val", "test"))
        lines += [f"| {run.name} | {size} | {draws(val, test, size)} |" for size in SIZES]
        fitted = calibrate(*val)
        raw, calibrated = test[0].softmax(1), fitted.probabilities(test[0])
        summaries.append(
            f"| {run.name} | {fitted.temperature:.3f} | {negative_log_likelihood(*test):.3f} | "
            f"{negative_log_likelihood(test[0] / fitted.temperature, test[1]):.3f} | "
            f"{calibration_error(raw, test[1]):.3f} | {calibration_error(calibrated, test[1]):.3f} |"
        )
        for row in evaluate_logits(*test, adapted.classes, "test", calibration=fitted).abstaining:
            abstaining.append(
                f"| {run.name} | {row['target']:.0%} | {row['abstain']:g} | {row['val_coverage']:.1%} | "
                f"{row['val_accuracy']:.1%} | {row['coverage']:.1%} | {row['accuracy'] or 0:.1%} |"
            )
    lines += [
        "",
        "The temperature of the whole val part, on test:",
        "",
        "| run | temperature | NLL at T = 1 | NLL | ECE at T = 1 | ECE |",
        "|---|---|---|---|---|---|",
        *summaries,
        "",
        "Thresholds chosen on val, and what they do on test:",
        "",
        "| run | to be right | --abstain | answers on val | right on val | answers on test | right on test |",
        "|---|---|---|---|---|---|---|",
        *abstaining,
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
