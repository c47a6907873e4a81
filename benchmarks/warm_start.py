"""Warm start against a start from the pre-trained model, when classes are added.

    python benchmarks/warm_start.py --data DIR --weights FILE --runs DIR      # runs what is missing, writes the page

DIR is caltech101 as a folder with an index.csv (train and val parts). An adapter is made on every second class, then
all classes come: once from the pre-trained model, once from that adapter. DeiT-tiny at 96 px; accuracy on val after
every epoch, the test part is not read. The adapters stay in --runs (`benchmarks/calibration.py` reads them); each
curve is one line of docs/results/warm-start.jsonl.
"""

import argparse
import csv
import json
import os
from pathlib import Path
from typing import Any

import torch

from ttctune.adapted import Adapted
from ttctune.bench.methods import METHODS
from ttctune.loading import load
from ttctune.recipe import Recipe
from ttctune.run import prepare, settle
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.device import find_device
from ttctune.training.progress import Reporter
from ttctune.two_stage import two_stage
from ttctune.warm_start import WarmStart, first_state

MODEL = "deit_tiny_patch16_224"
SEEDS = (0, 1)
MAPS_ALONE = {**METHODS["ttc-maps"].settings, "drop_path": 0.0}
COLD = {"align_epochs": 1, "tune_epochs": 5}
WARM = {"tune_epochs": 2}
EPOCHS = sum(COLD.values())
RESULTS, PAGE = Path("docs/results/warm-start.jsonl"), Path("docs/results/warm-start.md")
TITLES = {"half": "half of the classes", "cold": "all, from the pre-trained model", "warm": "all, warm start from half"}


def half_of(data: Path, folder: Path) -> Path:
    """A data folder with every second class, its files linked."""
    with (data / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["class"] for row in rows})[::2]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split", "label", "class"])
        for row in (row for row in rows if row["class"] in names):
            target = folder / row["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.link(data / row["file"], target)
            writer.writerow([row["file"], row["split"], names.index(row["class"]), row["class"]])
    return folder


def train(data: Path, recipe: Recipe, weights: Path, earlier: Path | None, out: Path) -> list[float]:
    """Adapt, write the adapter, and return the accuracy on val after every epoch."""
    start = None if earlier is None else WarmStart(earlier, MODEL, weights)
    model, recipe = start.settings(recipe) if start else (MODEL, recipe)
    run = prepare(model, data, recipe, weights, find_device("cpu"), Reporter(quiet=True), None)
    state = first_state(start, run.attachment, run.images, recipe) if start else Checkpoint()
    state = settle(run, state)
    adapted = Adapted(run.attachment, run.images.classes, run.trainer.description, recipe, state.settled)
    curve: list[float] = []

    def measure(state: Checkpoint) -> None:
        if len(state.history) > len(curve) and run.images.val is not None:
            curve.append(adapted.evaluate_images(run.images.val, "val").accuracy)

    two_stage(run.attachment, run.sites, run.trainer, recipe, state, measure)
    adapted.save(out)
    return curve


def job(kind: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    runs = arguments.runs
    recipe = Recipe(image_size=96, precision="fp32", seed=seed, **MAPS_ALONE, **COLD)
    data = half_of(arguments.data, runs / f"data-{seed}") if kind == "half" else arguments.data
    earlier = runs / f"half-{seed}" if kind == "warm" else None
    if kind == "warm":
        recipe = Recipe(**WARM)
    curve = train(data, recipe, arguments.weights, earlier, runs / f"{kind}-{seed}")
    used = load(runs / f"{kind}-{seed}", MODEL, arguments.weights).recipe
    return {
        "kind": kind,
        "seed": seed,
        "align_epochs": used.align_epochs,
        "tune_epochs": used.tune_epochs,
        "val_accuracy": curve,
    }


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def page(rows: list[dict[str, Any]]) -> str:
    curves = {(row["kind"], row["seed"]): row["val_accuracy"] for row in rows}
    lines = [
        "# Warm start when classes are added",
        "",
        "`python benchmarks/warm_start.py --data DIR --weights FILE --runs DIR` (results: `warm-start.jsonl`)",
        "",
        "caltech101: an adapter is made on every second class (51 of 102, 400 training images), then all 102 "
        "classes (800 training images) are there. DeiT-tiny, 96 px, float32, maps of a quarter of the channels "
        "without gates or stochastic depth, 1 + 5 epochs; the warm start keeps the selection and tunes for 2. "
        "Accuracy in % on the 200 val images after every epoch of 800 images (half: of 400); no test part was "
        "read. The standard error of one accuracy is about 3 points.",
        "",
        "| training | seed | " + " | ".join(str(n) for n in range(1, EPOCHS + 1)) + " |",
        "|---|---|" + "---|" * EPOCHS,
    ]
    for (kind, seed), curve in sorted(curves.items()):
        cells = [f"{100 * value:.1f}" for value in curve] + [""] * (EPOCHS - len(curve))
        lines.append(f"| {TITLES[kind]} | {seed} | {' | '.join(cells)} |")
    lines.append("")
    for seed in SEEDS:
        if {("warm", seed), ("cold", seed)} <= curves.keys():
            warm, cold = curves["warm", seed], curves["cold", seed]
            for epoch, reached in enumerate(warm, 1):
                later = next((n for n, value in enumerate(cold, 1) if value >= reached), None)
                said = f"epoch {later}" if later else f"none of {len(cold)} epochs"
                lines.append(
                    f"- Seed {seed}: {100 * reached:.1f} % after epoch {epoch} of the warm start; cold: {said}."
                )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--kinds", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    done = {(row["kind"], row["seed"]) for row in read()}
    for seed in arguments.seeds:
        for kind in arguments.kinds:
            if (kind, seed) not in done:
                row = job(kind, seed, arguments)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    PAGE.write_text(page(read()))


if __name__ == "__main__":
    main()
