"""`ttctune bench`: compare methods on a suite of tasks."""

import json
from pathlib import Path
from typing import Annotated, get_args

import typer

from ttctune.cli.options import Device, Json, Quiet, Weights, number_up_to, threads_of, whole_number
from ttctune.cli.tables import hint, show, table_of
from ttctune.errors import RecipeError

EXAMPLE = (
    "ttctune bench --suite folder --root tasks/ --methods linear,norm,ttc --model deit_tiny_patch16_224 -o results"
)


def command(
    suite: Annotated[str, typer.Option(help="vtab, or folder: any folders of tasks.", metavar="NAME")],
    root: Annotated[Path, typer.Option(help="Folder that holds a folder for each task.", metavar="DIR")],
    methods: Annotated[str, typer.Option(help="Methods to compare, such as linear,norm,lora,ttc.", metavar="NAME,...")],
    model: Annotated[str, typer.Option(help="timm name, or local-dir:FOLDER.", metavar="NAME")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder of results; goes on with what is there.", metavar="DIR")
    ],
    weights: Weights = None,
    seeds: Annotated[str, typer.Option(help="How many, from 0.", metavar="N")] = "1",
    split: Annotated[
        str,
        typer.Option(
            help="val: train on train, score on val. test: train on train and val, read test once. "
            "cv: folds of train and val.",
            metavar="NAME",
        ),
    ] = "val",
    folds: Annotated[
        str | None,
        typer.Option(
            help="With cv: folds of the 5 that each seed is scored on; seed 1 begins with the second. Default: all.",
            metavar="N",
        ),
    ] = None,
    epochs: Annotated[str, typer.Option(help="In all, the same for every method.", metavar="N")] = "20",
    image_size: Annotated[
        str | None, typer.Option(help="Side of the pictures in pixels; default: the model's own.", metavar="N")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, fp16, or auto: measured, which may differ from job to job.", metavar="NAME")
    ] = "fp32",
    trials: Annotated[
        str,
        typer.Option(help="Settings to try for each method on each task, on val alone; 0: the recipe's.", metavar="N"),
    ] = "0",
    shots: Annotated[
        str | None,
        typer.Option(help="Images of each class to train on, drawn anew by every seed. Default: all.", metavar="N"),
    ] = None,
    legacy: Annotated[
        str | None,
        typer.Option(
            help="Imitate an old protocol, to reproduce old numbers: imagenet-colours, unchanged-colours, or "
            "best-test-epoch, which chooses on test. Labelled in every record and table.",
            metavar="NAME",
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of settings chosen beforehand: tables [METHOD] with learning_rate = X, trials = N, ...",
            metavar="FILE",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local: processes of this machine. ray: a Ray cluster.", metavar="NAME")
    ] = "local",
    jobs: Annotated[
        str | None,
        typer.Option(help="Jobs at a time. Default: 1; on Ray as many as there is room for.", metavar="N"),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(help="Threads of each job. Default: the cores divided by --jobs; on Ray 1.", metavar="N"),
    ] = None,
    device: Device = "auto",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster. Default: one on this machine.", metavar="HOST:PORT")
    ] = None,
    gpus: Annotated[str, typer.Option(help="Share of a GPU that a job asks Ray for, such as 0.25.", metavar="X")] = "0",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare methods on a suite of tasks: each task, method and seed is a job, and leaves one file of results.

    The same command goes on after an interruption, and adds methods or seeds; jobs that failed are done again.
    """
    from ttctune.bench.benchmark import benchmark
    from ttctune.bench.record import SplitName, SuiteName

    outcome = benchmark(
        _one_of("--suite", suite, get_args(SuiteName)),  # type: ignore[arg-type]
        root,
        [name.strip() for name in methods.split(",") if name.strip()],
        model,
        out,
        weights=weights,
        seeds=whole_number("--seeds", seeds),
        split=_one_of("--split", split, get_args(SplitName)),  # type: ignore[arg-type]
        folds=None if folds is None else whole_number("--folds", folds),
        epochs=whole_number("--epochs", epochs),
        image_size=None if image_size is None else whole_number("--image-size", image_size),
        precision=precision,
        trials=whole_number("--trials", trials, least=0),
        shots=None if shots is None else whole_number("--shots", shots),
        legacy=legacy,
        settings=settings,
        engine=_one_of("--engine", engine, ("local", "ray")),  # type: ignore[arg-type]
        jobs=None if jobs is None else whole_number("--jobs", jobs),
        threads=threads_of(threads),
        device=device,
        address=address,
        gpus=number_up_to(64, "--gpus", gpus, "a share of a GPU, or a number of them"),
        quiet=quiet,
    )
    if as_json:
        keys = {"task", "method", "seed", "fold", "failed"}
        failed = [record.model_dump(include=keys) for record in outcome.failed]
        done = len(outcome.records) - len(failed)
        print(json.dumps({"folder": str(out), "done": done, "done_before": len(outcome.before), "failed": failed}))
    elif outcome.failed:
        table = table_of("failed", "reason")
        for record in outcome.failed:
            table.add_row(str(record.path.with_suffix("")), record.failed)
        show(table)
    if not quiet:
        done, failed_jobs = len(outcome.records) - len(outcome.failed), len(outcome.failed)
        hint(f"{done} jobs done, {len(outcome.before)} done before, {failed_jobs} failed; ttctune report {out}")
    if outcome.failed:
        raise typer.Exit(1)


def _one_of(flag: str, text: str, words: tuple[str, ...]) -> str:
    if text not in words:
        raise RecipeError(f"{flag} {text}", " or ".join(words), f"change {flag}")
    return text
