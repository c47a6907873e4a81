"""The comparison of the demo: every method on every task, one process a core."""

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from ttctune.adapted import Adapted
from ttctune.backbone.embedded import NAME
from ttctune.bench.methods import METHODS, recipe_for
from ttctune.demo.tasks import TASKS
from ttctune.machine import usable_cores
from ttctune.run import adapt, prepare
from ttctune.training.device import find_device
from ttctune.training.progress import Reporter

COMPARED = ("linear", "norm", "full", "ttc")


@dataclass(frozen=True)
class Size:
    """How much of each task.

    Attributes:
        train: Images to train on.
        val: Images to score on.
        epochs: In all, the same for every method.
        pixels: Side of the pictures that the model sees.
    """

    train: int
    val: int
    epochs: int
    pixels: int


#: What two cores finish in two minutes, and what the documentation shows.
SMALL = Size(train=240, val=240, epochs=8, pixels=48)
FULL = Size(train=300, val=500, epochs=20, pixels=64)


@dataclass(frozen=True)
class Job:
    """One method on one task with one seed."""

    task: str
    method: str
    seed: int


@dataclass(frozen=True)
class Result:
    """What a job reached: accuracy in [0, 1], and parameters without head."""

    job: Job
    accuracy: float
    parameters: int


def work(job: Job, size: Size, out: Path) -> Result:
    """Do one job in a process of its own; the two-stage model becomes an adapter folder."""
    torch.set_num_threads(1)
    method = METHODS[job.method]
    data = TASKS[job.task](size.train, size.val, job.seed)
    recipe = recipe_for(method, size.epochs, image_size=size.pixels, seed=job.seed, precision="fp32")
    if job.method == "ttc":
        adapted = adapt(NAME, data, recipe, out=folder_of(job, out), device="cpu", quiet=True, overwrite=True)
        parameters = adapted.parameters["channels"] + adapted.parameters["norms"]
    else:
        run = prepare(NAME, data, recipe, None, find_device("cpu"), Reporter(quiet=True), None)
        parameters = method.train(run)
        adapted = Adapted(run.attachment, run.images.classes, run.trainer.description, recipe)
    return Result(job, adapted.evaluate(data["val"]).accuracy, parameters)


def folder_of(job: Job, out: Path) -> Path:
    """Where the adapter of a two-stage job goes."""
    return out / (job.task if job.seed == 0 else f"{job.task}-seed{job.seed}")


def results_of(jobs: Iterable[Job], size: Size, out: Path) -> Iterator[Result]:
    """Do the jobs, one process a core, and yield each result as it comes."""
    with ProcessPoolExecutor(usable_cores(), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(work, job, size, out) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
