r"""What a run of the usual length loses to one of three times as many epochs, at 224 px.

    for n in 20 60; do
        ttctune bench --suite folder --root DIR --split test --seeds 1 --epochs $n --image-size 224 --precision bf16 \
            --methods ttc --jobs 2 --threads 1 --model deit_tiny_patch16_224 --weights FILE -o results/long/$n
    done
    python benchmarks/long_schedule.py results/long --page docs/results/long-schedule.md

The first makes the records; the last reads them.
"""

from pathlib import Path
from textwrap import fill

from page_of import commands_of, page_of
from paired import cells, check_same_images, difference, right_of, runs_of, said

USUAL, LONG = "20", "60"


def page(folder: Path) -> str:
    """The table as Markdown."""
    found = {epochs: runs_of(folder / epochs, "ttc") for epochs in (USUAL, LONG)}
    check_same_images(*found.values())
    right = {epochs: right_of(runs) for epochs, runs in found.items()}
    tasks = [*right[USUAL]]
    lines = [
        "# Is the usual schedule long enough?",
        "",
        *commands_of(__doc__),
        "",
        "DIR holds two of the design tasks, 1,000 images each to train on (train and val), scored on their test parts.",
        "What `ttctune fit` does without a flag, but in bfloat16: 20 epochs at 224 px, 2 of them alignment; beside it",
        "three times as many of both. One seed. Nothing was chosen by it.",
        "",
        f"| epochs | {' | '.join(tasks)} | mean |",
        "|---:|" + "---:|" * (len(tasks) + 1),
    ]
    for epochs, answers in right.items():
        lines.append(f"| {epochs} | {cells(answers)} |")
    single = "; ".join(
        f"{task} {said(difference({task: right[LONG][task]}, {task: right[USUAL][task]}))}" for task in tasks
    )
    conclusion = (
        f"{LONG} epochs minus {USUAL}: {said(difference(right[LONG], right[USUAL]))} points of the mean; {single} "
        "(95 %, paired bootstrap over images with the tasks fixed; one seed, so what another changes is not in it)."
    )
    return "\n".join([*lines, "", fill(conclusion, 120), ""])


if __name__ == "__main__":
    page_of(page, __doc__)
