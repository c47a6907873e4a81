"""A benchmark, from its arguments to what became of every job."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ttctune.backbone.model import Backbone
from ttctune.bench.chosen import check_variants, read_chosen
from ttctune.bench.engine import Engine
from ttctune.bench.engine_local import LocalEngine
from ttctune.bench.engine_ray import RayEngine
from ttctune.bench.grid import Conditions, Job, check_methods, jobs_of
from ttctune.bench.legacy import LEGACY
from ttctune.bench.progress import Progress
from ttctune.bench.record import SplitName, SuiteName
from ttctune.bench.results_folder import Header, results_folder
from ttctune.bench.run_job import opened
from ttctune.bench.runner import Outcome, run_grid
from ttctune.bench.search import Search
from ttctune.bench.suites import FOLDS, tasks_of
from ttctune.bench.suites.doubles import doubled_files
from ttctune.errors import DataError, RecipeError
from ttctune.machine import usable_cores
from ttctune.method.attachment import attach
from ttctune.training.device import find_device
from ttctune.wording import counted

#: Beside the results, for the jobs of this machine; may be removed at any time.
FEATURES = ".features"


def benchmark(
    suite: SuiteName,
    root: Path,
    methods: Iterable[str],
    model: str,
    folder: Path,
    *,
    weights: Path | None = None,
    seeds: int = 1,
    split: SplitName = "val",
    folds: int | None = None,
    epochs: int = 20,
    image_size: int | None = None,
    precision: str = "fp32",
    trials: int = 0,
    shots: int | None = None,
    legacy: str | None = None,
    settings: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    address: str | None = None,
    gpus: float = 0.0,
    quiet: bool = False,
) -> Outcome:
    """Do every job of tasks x methods x seeds (x folds) that has no result yet; each leaves one file in `folder`.

    Args:
        suite: "vtab", or "folder": any folders of tasks.
        root: Where the tasks are.
        methods: Keys of `METHODS`, or variants of them whose settings stand in `settings`.
        model: timm name or local-dir:FOLDER.
        folder: Of results: absent, empty, or with results of the same suite, split, model, ... to go on with.
        weights: A weights file for the model, instead of timm's hub.
        seeds: How many, from 0.
        split: "val" (train on train), "test" (train on train and val, read test once) or "cv" (folds of train and val).
        folds: With split "cv", how many of the five each seed is scored on, seed s from fold s on; None for all.
        epochs: In all, the same for every method.
        image_size: Side of the pictures in pixels; None takes the model's own.
        precision: "fp32", "bf16", "fp16" or "auto".
        trials: Settings that are tried for each method on each task, on val; 0 takes the recipe's.
        shots: Images of each class to train on, drawn by the seed; None takes all.
        legacy: An old protocol to imitate, a key of `LEGACY`, with split "test" alone; None for ours.
        settings: TOML file of settings that were chosen beforehand, with a table for each method.
        engine: "local": processes of this machine; "ray": a Ray cluster.
        jobs: How many run at the same time; None is 1 locally, and as many as there is room for on Ray.
        threads: Of each job; None shares the cores of this machine among the jobs (on Ray: 1).
        device: "auto", "cpu", "cuda" or "mps".
        address: Of the Ray cluster; None starts one on this machine.
        gpus: Share of a GPU that each job asks Ray for.
        quiet: Show no progress.

    Raises:
        TtcError: With one line, before anything is done, where no job could be done.
    """
    local = engine == "local"
    if local and (address or gpus):
        given = f"--address {address}" if address else f"--gpus {gpus:g}"
        raise RecipeError(f"{given} with --engine local", "--engine ray", "add --engine ray, or leave it out")
    if trials and settings:
        raise RecipeError(f"--trials {trials} with --settings", "one of them", "leave the other out")
    _check_legacy(legacy, split)
    _check_folds(folds, split)
    tasks, methods = tasks_of(suite, root), check_methods(methods)
    threads = threads or (max(1, usable_cores() // (jobs or 1)) if local else 1)
    features = folder / FEATURES if local else None
    conditions = Conditions(
        suite, model, weights, epochs, image_size, precision, device, threads, features, legacy, shots
    )
    chosen = read_chosen(settings, methods) if settings else {}
    check_variants(methods, chosen)
    grid = jobs_of(tasks, methods, seeds, split, chosen, folds or FOLDS)
    backbone = _checked(grid, conditions)
    header = Header(
        suite=suite,
        split=split,
        model=backbone.name,
        backbone_digest=backbone.digest,
        epochs=epochs,
        image_size=image_size,
        precision=precision,
        trials=trials,
        legacy=legacy,
        shots=shots,
    )
    progress = Progress(quiet)
    with results_folder(folder, header):
        search = Search(folder, trials, conditions) if trials else None
        with _engine(local, conditions, jobs, address, gpus) as where:
            size = f"{counted(len(tasks), 'task')} x {counted(len(methods), 'method')}: {counted(len(grid), 'job')}"
            progress.say(f"{size}; {where.title}")
            for line in _doubled(grid, conditions):
                progress.say(line)
            return run_grid(grid, conditions, folder, where, progress, search)


def _doubled(grid: Iterable[Job], conditions: Conditions) -> Iterator[str]:
    """A line for each two parts of a task with files of equal content; VTAB's has a check of its own."""
    for job in {job.task: job for job in grid if conditions.suite == "folder"}.values():
        with suppress(DataError, OSError):  # what cannot be read fails the jobs of its task, with that reason
            parts = conditions.data(job).parts
            for line in doubled_files({name: part.pictures for name, part in parts.items()}):
                yield f"{job.task.name}: {line}"


def _check_legacy(legacy: str | None, split: SplitName) -> None:
    if legacy is not None and legacy not in LEGACY:
        raise RecipeError(f"--legacy {legacy[:100]}", " or ".join(LEGACY), "choose one of these, or leave it out")
    if legacy is not None and split != "test":
        raise RecipeError(f"--legacy {legacy} with --split {split}", "--split test", "add --split test")


def _check_folds(folds: int | None, split: SplitName) -> None:
    if folds is not None and split != "cv":
        raise RecipeError(f"--folds {folds} with --split {split}", "--split cv", "add --split cv, or leave it out")
    if folds is not None and not 1 <= folds <= FOLDS:
        raise RecipeError(f"--folds {folds}", f"1 to {FOLDS}", "change --folds")


def _engine(local: bool, conditions: Conditions, jobs: int | None, address: str | None, gpus: float) -> Engine:
    return LocalEngine(conditions, jobs or 1) if local else RayEngine(conditions, jobs, address, gpus)


def _checked(grid: Iterable[Job], conditions: Conditions) -> Backbone:
    """The backbone, once it is known that it opens, takes pictures of that size, and that the recipes are sound."""
    find_device(conditions.device)
    for job in {job.method: job for job in grid}.values():
        conditions.recipe(job)
    backbone = opened(conditions.model, conditions.weights)
    if conditions.legacy:
        LEGACY[conditions.legacy].applied(backbone)
    if conditions.image_size:
        attach(backbone, 2, image_size=(conditions.image_size, conditions.image_size))
    return backbone
