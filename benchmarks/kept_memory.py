"""What it gains to keep freed memory for the next activation, on a CPU and glibc.

    python benchmarks/kept_memory.py --models deit_tiny_patch16_224 --turns 1    # prints the table

The same model, batch and images, with and without `freed_memory_kept`, by turns in one process: a stage-2 step of the
default recipe (forward and backward) and a batch of inference. Weights are random; speed does not depend on them. A
turn is one step to fill the memory and two that are measured; a row is the fastest of all turns. Peak memory is read in
fresh processes.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import ttctune.torchvision_operators  # noqa: F401  (before timm)

import timm  # isort: skip
import torch
from speed import cpu_name

from ttctune.evaluation import outputs_of
from ttctune.recipe import Recipe
from ttctune.run import prepare
from ttctune.training.kept_memory import freed_memory_kept
from ttctune.training.memory import peak_memory
from ttctune.training.precision import by_hand
from ttctune.training.progress import Reporter
from ttctune.training.stage import stages_of
from ttctune.two_stage import select

MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224")
BATCH, CLASSES = 32, 10
CPU = torch.device("cpu")
WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "given back": nullcontext,
    "kept": lambda: freed_memory_kept(CPU),
}


def work(model: str, format: str) -> dict[str, Callable[[], object]]:
    """A step of stage 2, and a batch of inference."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8)
    labels = torch.arange(BATCH) % CLASSES
    recipe = Recipe(val_fraction=0, batch_size=BATCH)
    run = prepare(timm.create_model(model), (images, labels), recipe, None, CPU, Reporter(quiet=True), None)
    scores = {site.name: torch.rand(site.width) for site in run.sites}
    run.attachment.tune(run.sites, select(scores, run.sites, recipe), recipe.form, recipe.gates)
    groups = stages_of(recipe)[-1].groups(run.attachment, recipe.weight_decay)
    precision = by_hand(format, CPU)
    return {
        "training": lambda: run.trainer.probe(groups, precision),
        "inference": lambda: [*outputs_of(run.trainer.model, [images], run.trainer.description, precision)],
    }


def fastest(step: Callable[[], object], turns: int) -> dict[str, float]:
    """Seconds of a step each way, by turns."""
    seconds = dict.fromkeys(WAYS, float("inf"))
    for _ in range(turns):
        for way, entered in WAYS.items():
            with entered():
                step()
                for _ in range(2):
                    start = time.perf_counter()
                    step()
                    seconds[way] = min(seconds[way], time.perf_counter() - start)
    return seconds


def peak_of(model: str, format: str, what: str, way: str) -> float:
    """MB at the peak of a fresh process that does three steps."""
    command = [sys.executable, __file__, "--peak-of", model, format, what, way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(model: str, format: str, what: str, way: str) -> None:
    with WAYS[way]():
        step = work(model, format)[what]
        for _ in range(3):
            step()
    print(peak_memory(CPU) / 1e6)


def report(models: list[str], turns: int) -> str:
    lines = [
        f"224 px, batches of {BATCH}, {torch.get_num_threads()} threads; {cpu_name()}; torch {torch.__version__}. A",
        "step of stage 2 (default recipe, forward and backward) and a batch of inference; the fastest of",
        f"{2 * turns} measured, by turns in one process. Peak memory is that of a fresh process.",
        "",
        "| model | what | format | given back, ms | kept, ms | ratio | peak, given back, MB | peak, kept, MB |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for model in models:
        for format in ("fp32", "bf16"):
            for what, step in work(model, format).items():
                before, after = fastest(step, turns).values()
                peaks = [peak_of(model, format, what, way) for way in WAYS]
                lines.append(
                    f"| {model} | {what} | {format} | {1000 * before:.0f} | {1000 * after:.0f} | {after / before:.2f} "
                    f"| {peaks[0]:.0f} | {peaks[1]:.0f} |"
                )
                print(lines[-1], file=sys.stderr)
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="timm names")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peak-of", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print_peak(*arguments.peak_of)
        return
    print(report(arguments.models, arguments.turns))


if __name__ == "__main__":
    main()
