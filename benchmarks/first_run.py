"""The first run on real images: linear probe, LayerNorm alone, full fine-tuning, two-stage.

    python benchmarks/first_run.py --tasks DIR --weights FILE     # runs what is missing, then writes the page
    python benchmarks/first_run.py                                # writes the page from the results

DIR holds one folder a task (caltech101, gtsrb43, coil100_azimuth18), each with an index.csv. DeiT-tiny at 96 px,
20 epochs in all for every method, trained on train, scored on val at the last epoch; the test part is not read.
Each result is one line of docs/results/first-run.jsonl, appended as it comes; runs that stand there are skipped.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ttctune.adapted import Adapted
from ttctune.bench.methods import METHODS, recipe_for
from ttctune.run import prepare, settle
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.device import find_device
from ttctune.training.progress import Reporter

MODEL, SIZE, EPOCHS = "deit_tiny_patch16_224", 96, 20
TASKS = ("caltech101", "gtsrb43", "coil100_azimuth18")
SEEDS = (0, 1, 2)
RESULTS, PAGE = Path("docs/results/first-run.jsonl"), Path("docs/results/first-run.md")


#: Method -> learning rates; the first is the one that was fixed beforehand.
RATES: dict[str, tuple[float, ...]] = {
    "linear": (1e-2, 3e-3, 3e-2),
    "norm": (1e-2, 3e-3, 3e-2),
    "full": (1e-4, 3e-5, 3e-4),
    "paper": (1e-2, 3e-3, 3e-2),
    "ttc": (1e-2, 3e-3, 3e-2),
}


def jobs() -> list[tuple[str, str, float, int]]:
    """Task, method, learning rate, seed: first every method at its fixed rate, then the other rates, one seed."""
    fixed = [(t, m, RATES[m][0], s) for s in SEEDS for t in TASKS for m in RATES]
    others = [(t, m, rate, 0) for m in RATES for rate in RATES[m][1:] for t in TASKS]
    return fixed + others


def settings_of(method: str) -> dict[str, Any]:
    """What the method's recipe is made of, as rows tell it: a row that tells otherwise is of another method."""
    recipe = recipe_for(METHODS[method], EPOCHS)
    return recipe.model_dump(mode="json", include={"channels", "drop_path", "form", "gates", "sites"})


def train(task: str, method: str, rate: float, seed: int, tasks: Path, weights: Path) -> dict[str, Any]:
    recipe = recipe_for(METHODS[method], EPOCHS, image_size=SIZE, learning_rate=rate, seed=seed, precision="fp32")
    run = prepare(MODEL, str(tasks / task), recipe, weights, find_device("cpu"), Reporter(quiet=True), None)
    settle(run, Checkpoint())
    start = time.perf_counter()
    parameters = METHODS[method].train(run)
    seconds = time.perf_counter() - start
    adapted = Adapted(run.attachment, run.images.classes, run.trainer.description, recipe)
    if run.images.val is None:
        raise SystemExit(f"{task} has no val part")
    result = adapted.evaluate_images(run.images.val, "val")
    return {
        "task": task,
        "method": method,
        "learning_rate": rate,
        "seed": seed,
        "accuracy": result.accuracy,
        "parameters": parameters,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "settings": settings_of(method),
        "protocol": "train800, val200, last epoch, fp32, 96 px, 20 epochs, batch 32",
    }


def read() -> list[dict[str, Any]]:
    """The rows of the methods as they are now."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    return [row for row in rows if row["settings"] == settings_of(row["method"])]


def page(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# First run on real images",
        "",
        "`python benchmarks/first_run.py --tasks DIR --weights FILE` (results: `first-run.jsonl`)",
        "",
        "DeiT-tiny, 96 px, 20 epochs in all for every method, batch 32, float32, no augmentation, label smoothing "
        "0.1, stochastic depth 0.1 (but for the linear probe), AdamW, cosine with an epoch of warm-up; the head at "
        "half of the rate (linear probe: at the rate; full: at 5e-3). Trained on the 800 images of train, scored "
        "on the 200 of val at the last epoch; no test part was read. Accuracy in %, mean ± standard deviation over "
        "the seeds; parameters without head. The standard error of one accuracy on 200 images is about 3 points, "
        "so smaller differences, within one task, say little. The form of the default recipe was chosen on these very "
        "images (`forms.md`), so its row may be too good.",
        "",
        "## At the learning rate fixed beforehand",
        "",
        "| method | parameters | learning rate | seeds | " + " | ".join(TASKS) + " | mean | seconds a run |",
        "|---|---|---|---|" + "---|" * (len(TASKS) + 2),
    ]
    for method, rates in RATES.items():
        mine = [r for r in rows if r["method"] == method and r["learning_rate"] == rates[0]]
        seeds = [s for s in SEEDS if {r["task"] for r in mine if r["seed"] == s} == set(TASKS)]
        mine = [r for r in mine if r["seed"] in seeds]
        if not mine:
            continue
        cells = [summary([r["accuracy"] for r in mine if r["task"] == task]) for task in TASKS]
        means = [statistics.mean(r["accuracy"] for r in mine if r["seed"] == s) for s in seeds]
        seconds = statistics.median(r["seconds"] for r in mine)
        title = METHODS[method].title
        lines.append(
            f"| {title} | {mine[0]['parameters']:,} | {rates[0]:g} | {len(seeds)} | {' | '.join(cells)} "
            f"| {summary(means)} | {seconds:.0f} |"
        )
    lines += [
        "",
        "No method's rate was searched for this table. Seconds are medians of runs that shared the machine with other "
        "work, on the number of threads that each line of the results names; `speed.md` has times that can be "
        "compared.",
    ]
    lines += other_rates(rows)
    return "\n".join([*lines, ""])


def other_rates(rows: list[dict[str, Any]]) -> list[str]:
    """A table of every rate tried with seed 0, as soon as a method has more than one."""
    lines = []
    tried = 0
    for method, rates in RATES.items():
        for rate in rates:
            mine = {
                r["task"]: r["accuracy"]
                for r in rows
                if (r["method"], r["learning_rate"], r["seed"]) == (method, rate, 0)
            }
            if set(mine) == set(TASKS):
                tried += rate != rates[0]
                cells = " | ".join(f"{100 * mine[t]:.1f}" for t in TASKS)
                lines.append(
                    f"| {METHODS[method].title} | {rate:g} | {cells} | {100 * statistics.mean(mine.values()):.1f} |"
                )
    if not tried:
        return []
    head = [
        "",
        "## Other learning rates",
        "",
        "Seed 0 at every rate tried; the first of each method is the fixed one above. Nothing was chosen by these "
        "figures: they show how far each method depends on its rate.",
        "",
        "| method | learning rate | " + " | ".join(TASKS) + " | mean |",
        "|---|---|" + "---|" * (len(TASKS) + 1),
    ]
    return head + lines


def summary(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, help="folder that holds a folder for each task")
    parser.add_argument("--weights", type=Path, help="DeiT-tiny's weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", default=",".join(RATES), help="train these alone, to divide the work")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.tasks is not None:
        done = {(r["task"], r["method"], r["learning_rate"], r["seed"]) for r in read()}
        for job in jobs():
            if job not in done and job[1] in arguments.methods.split(","):
                row = train(*job, arguments.tasks, arguments.weights)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    PAGE.write_text(page(read()))


if __name__ == "__main__":
    main()
