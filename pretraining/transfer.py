"""How well backbones transfer: linear probe and maps on the val parts of four real tasks.

    python pretraining/transfer.py --tasks DIR --deit FILE --supervised FILE --distilled FILE
    python pretraining/transfer.py                 # writes the page from the results

DIR holds one folder a task, each with an index.csv. Trained on train, scored on val at the last epoch; no test part is
read. Each result is one line of docs/results/embedded.jsonl, appended as it comes; what stands there is skipped.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ttctune.adapted import Adapted
from ttctune.backbone.embedded import NAME, ttctune_vit_patch8_64
from ttctune.bench.methods import METHODS, recipe_for
from ttctune.run import prepare
from ttctune.training.device import find_device
from ttctune.training.progress import Reporter

TASKS = ("caltech101", "gtsrb43", "rsscn7", "coil100_azimuth18")
DEIT, EPOCHS, SEED = "deit_tiny_patch16_224", 10, 0
COMPARED = ("linear", "ttc-maps")
RESULTS, PAGE = Path("docs/results/embedded.jsonl"), Path("docs/results/embedded.md")

#: Backbone -> title and side of its pictures.
BACKBONES = {
    "random": ("random weights", 64),
    "supervised": ("supervised", 64),
    "distilled": ("distilled", 64),
    "deit": ("DeiT-tiny (5.5 M parameters)", 96),
}


def train(backbone: str, task: str, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    _, pixels = BACKBONES[backbone]
    weights = getattr(arguments, backbone, None)
    torch.manual_seed(SEED)
    model = ttctune_vit_patch8_64() if backbone == "random" else DEIT if backbone == "deit" else NAME
    recipe = recipe_for(METHODS[method], EPOCHS, image_size=pixels, seed=SEED, precision="fp32", drop_path=0.0)
    data = str(arguments.tasks / task)
    run = prepare(model, data, recipe, weights, find_device("cpu", arguments.threads), Reporter(quiet=True), None)
    start = time.perf_counter()
    METHODS[method].train(run)
    seconds = time.perf_counter() - start
    adapted = Adapted(run.attachment, run.images.classes, run.trainer.description, recipe)
    if run.images.val is None:
        raise SystemExit(f"{task} has no val part")
    accuracy = adapted.evaluate_images(run.images.val, "val").accuracy
    digest = run.attachment.backbone.digest[:12]
    return {
        "backbone": backbone,
        "digest": digest,
        "task": task,
        "method": method,
        "accuracy": accuracy,
        "seconds": round(seconds),
    }


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def page(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# The embedded backbone against others",
        "",
        "`python pretraining/transfer.py --tasks DIR --deit FILE --supervised FILE --distilled FILE` (results: "
        "`embedded.jsonl`)",
        "",
        f"Accuracy in % on the 200 images of val after {EPOCHS} epochs in all on the 800 of train, batch 32, float32, "
        f"learning rate 1e-2, no augmentation or stochastic depth, seed {SEED}, last epoch; no test part was "
        "read, nothing searched. The standard error of one accuracy is about 3 points.",
        "",
        "| backbone | pixels | method | " + " | ".join(TASKS) + " | mean |",
        "|---|---|---|" + "---|" * (len(TASKS) + 1),
    ]
    for backbone, (title, pixels) in BACKBONES.items():
        for method in COMPARED:
            mine = {r["task"]: r["accuracy"] for r in rows if (r["backbone"], r["method"]) == (backbone, method)}
            if set(mine) == set(TASKS):
                cells = " | ".join(f"{100 * mine[task]:.1f}" for task in TASKS)
                mean = 100 * statistics.mean(mine.values())
                lines.append(f"| {title} | {pixels} | {METHODS[method].title} | {cells} | {mean:.1f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, help="folder that holds a folder for each task")
    for backbone in ("deit", "supervised", "distilled"):
        parser.add_argument(f"--{backbone}", type=Path, metavar="FILE", help="its weights")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.tasks is not None:
        done = {(r["backbone"], r["task"], r["method"]) for r in read()}
        wanted = [(b, t, m) for m in reversed(COMPARED) for b in BACKBONES for t in TASKS]
        for job in wanted:
            given = job[0] == "random" or getattr(arguments, job[0]) is not None
            if job not in done and given:
                with RESULTS.open("a") as file:
                    file.write(json.dumps(train(*job, arguments)) + "\n")
    PAGE.write_text(page(read()))


if __name__ == "__main__":
    main()
