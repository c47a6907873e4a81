"""`ttctune evaluate`: how good an adapted model is on labelled images."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from ttctune.cli.options import (
    Adapter,
    Device,
    FormatOption,
    Json,
    Model,
    Quiet,
    Seed,
    Threads,
    Weights,
    Workers,
    probability,
    start,
    workers_of,
)

EXAMPLE = "ttctune evaluate runs/flowers --data flowers/"


def command(
    folder: Adapter,
    data: Annotated[Path, typer.Option(help="Folder of images, with an index.csv, or of .tar shards.", metavar="DIR")],
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, and count them.")] = False,
    abstain: Annotated[
        str | None,
        typer.Option(
            help="Measure this threshold too: below it, no answer. Default: those chosen on val.", metavar="P"
        ),
    ] = None,
    model: Model = None,
    weights: Weights = None,
    device: Device = "auto",
    precision: FormatOption = "auto",
    threads: Threads = None,
    workers: Workers = None,
    seed: Seed = "0",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure on the test part of the data; without one on val, else on all images; says which."""
    threshold = probability("--abstain", abstain)
    number_format, decoders = start(precision, threads, seed), workers_of(workers)
    from ttctune.cli import printing
    from ttctune.loading import load

    adapted = load(folder, model, weights, device=device)
    evaluation = adapted.evaluate(data, precision=number_format, skip_bad=skip_bad, abstain=threshold, workers=decoders)
    if as_json:
        print(json.dumps(dataclasses.asdict(evaluation)))
    else:
        printing.evaluation(evaluation, adapted.classes, brief=quiet)
