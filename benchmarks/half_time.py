r"""How good a short two-stage run is beside LoRA's full one, and what part of its time it takes.

    ttctune bench --suite folder --root DIR --methods ttc,ttc@dp1 --epochs 8 --image-size 96 --jobs 2 \
        --model deit_tiny_patch16_224 --weights FILE --settings results/time/settings-8.toml -o results/time/8
    ttctune bench --suite folder --root DIR --methods lora,lora@5e-3 --epochs 20 --image-size 96 --jobs 2 \
        --model deit_tiny_patch16_224 --weights FILE --settings results/time/settings-20.toml -o results/time/20
    python benchmarks/half_time.py results/time --page docs/results/time.md

The first two make the records; the last reads them.
"""

import statistics
from pathlib import Path

from page_of import commands_of, page_of
from paired import cells, check_same_images, difference, percent, right_of, runs_of, said

from ttctune.bench.methods import titles_of
from ttctune.bench.report.runs import Run

OURS, RIVALS = ("8", ("ttc", "ttc@dp1")), ("20", ("lora", "lora@5e-3"))


def seconds_of(run: Run) -> float:
    """Of training, had every epoch taken what the median one took: other work may have slowed some down."""
    epochs = [row["seconds"] for record in run.records for row in record.history]
    return statistics.median(epochs) * len(epochs) + run.seconds - sum(epochs)


def page(folder: Path) -> str:
    """The table as Markdown."""
    found = {
        (epochs, method): runs_of(folder / epochs, method) for epochs, methods in (OURS, RIVALS) for method in methods
    }
    check_same_images(*found.values())
    names = titles_of(method for _, method in found)
    right = {key: right_of(runs) for key, runs in found.items()}
    seconds = {key: statistics.mean(map(seconds_of, runs.values())) for key, runs in found.items()}
    best = {
        epochs: max(((epochs, method) for method in methods), key=lambda key: percent(right[key]))
        for epochs, methods in (OURS, RIVALS)
    }
    ours, rival = best[OURS[0]], best[RIVALS[0]]
    tasks = [*right[ours]]
    lines = [
        "# Half of the time",
        "",
        *commands_of(__doc__),
        "",
        "DeiT-tiny at 96 px, float32, 800 images a task to train on, scored on the 200 of val; one seed, two settings",
        "of each method, no test part read: two-stage at 0.02 without stochastic depth, and as `dp1` with 0.1; LoRA at",
        "0.01, and at 0.005. Seconds are those of training on one core, scoring the channels included, had every epoch",
        "of a run taken what its median one took (other work ran beside some); mean over the tasks. The last block is",
        "computed for fewer tokens since then, with every method. What LoRA reaches in eight epochs was not",
        "measured. Parameters without head.",
        "",
        f"| method | epochs | parameters | seconds | {' | '.join(tasks)} | mean |",
        "|---|---:|---:|---:|" + "---:|" * (len(tasks) + 1),
    ]
    for (epochs, method), answers in right.items():
        parameters = max(run.parameters for run in found[epochs, method].values())
        shown = f"{names[method]} | {epochs} | {parameters:,} | {seconds[epochs, method]:.0f}"
        lines.append(f"| {shown} | {cells(answers)} |")
    gain, share = said(difference(right[ours], right[rival])), seconds[ours] / seconds[rival]
    lines += [
        "",
        f"The better two-stage setting minus the better one of LoRA: {gain} points (95 %, paired bootstrap over",
        f"images with the tasks fixed), in {share:.2f} of its time.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    page_of(page, __doc__)
