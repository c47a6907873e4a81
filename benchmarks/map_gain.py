"""How much of what a map could gain, to first order, do the selected channels hold?

    python benchmarks/map_gain.py --data DIR --weights FILE --page docs/results/map-gain.md

DIR holds a folder of images for each task. DeiT-tiny is aligned to its train part, every channel is scored, and the
gradient G of the mean loss is taken for a map of all channels behind each site.
"""

import argparse
from pathlib import Path
from statistics import mean

import torch
from page_of import give
from torch import Tensor

from ttctune.recipe import IMPORTANCES, Recipe
from ttctune.run import Run, prepare, settle
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.device import find_device
from ttctune.training.progress import Reporter
from ttctune.two_stage import importance_of, select, two_stage

MODEL, SIDE = "deit_tiny_patch16_224", 96
RECIPE = Recipe(align_epochs=2, tune_epochs=0, image_size=SIDE, precision="fp32")
ABOUT = """\
# How much of a map's gain do the selected channels hold?

`python benchmarks/map_gain.py --data DIR --weights FILE --page docs/results/map-gain.md`

DeiT-tiny at 96 px after two epochs of alignment to the train part of each task. G is the gradient of the mean
loss over these images for a map of all channels of a site. A map on the channels S can lower the loss, to first
order and for its size, by |G[S,S]|; the table has the share of |G|^2 that lies there, where S is the eighth of the
channels that a score selects: mean over the sites `attn` and `mlp` of all blocks.

"""


def aligned(task: Path, weights: Path, threads: int) -> Run:
    """The model after stage 1 on a task's train part."""
    run = prepare(MODEL, task, RECIPE, weights, find_device("cpu", threads), Reporter(quiet=True), None)
    two_stage(run.attachment, run.sites, run.trainer, run.recipe, settle(run, Checkpoint()), lambda state: None)
    return run


def gradients(run: Run) -> dict[str, Tensor]:
    """Site -> dL/dM at M = 0 for a map of all channels, C x C; leaves these maps attached."""
    attachment, trainer = run.attachment, run.trainer
    attachment.tune(run.sites, {site.name: torch.arange(site.width) for site in run.sites}, "map", ())
    attachment.model.eval()
    for images, labels in trainer.scoring_batches():
        trainer.loss(attachment.model(images), labels).sum().backward()
    return {site.name: tuning.matrix.grad for site, tuning in attachment.tunings.items()}


def shares(task: Path, weights: Path, threads: int) -> dict[str, float]:
    """Score -> share of |G|^2 that lies between the channels it selects, mean over sites."""
    run = aligned(task, weights, threads)
    chosen = {
        name: select(importance_of(run.trainer, run.sites, run.recipe.change(importance=name)), run.sites, run.recipe)
        for name in IMPORTANCES
    }
    squares = {name: gradient.square() for name, gradient in gradients(run).items()}
    return {
        name: mean(float(squares[site][s][:, s].sum() / squares[site].sum()) for site, s in selection.items())
        for name, selection in chosen.items()
    }


def page(found: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    means = {name: mean(own[name] for own in found.values()) for name in IMPORTANCES}
    rows = [
        f"| `{name}` | {overall:.1%} | " + " | ".join(f"{own[name]:.1%}" for own in found.values()) + " |"
        for name, overall in sorted(means.items(), key=lambda item: -item[1])
    ]
    head = f"| score | mean | {' | '.join(found)} |\n|---|---:|" + "---:|" * len(found)
    return "\n".join([ABOUT, head, *rows, ""])


def main() -> None:
    """Measure every task, and print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder of images for each task")
    parser.add_argument("--weights", type=Path, required=True, help=f"weights of {MODEL}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--page", type=Path, help="Markdown to write; else it is printed")
    arguments = parser.parse_args()
    tasks = sorted(task for task in arguments.data.iterdir() if task.is_dir())
    give(page({task.name: shares(task, arguments.weights, arguments.threads) for task in tasks}), arguments.page)


if __name__ == "__main__":
    main()
