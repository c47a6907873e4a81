"""`ttctune predict`: class probabilities of images without labels."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

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
    probability,
    start,
    whole_number,
)
from ttctune.errors import DataError

EXAMPLE = "ttctune predict runs/flowers image.jpg more/ --top 3 --json"


def command(
    folder: Adapter,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="IMAGE...")],
    top: Annotated[str, typer.Option(help="Classes to show for each image.", metavar="N")] = "5",
    abstain: Annotated[
        str | None,
        typer.Option(
            help="Answer only where the first class is at least this probable; `ttctune inspect` shows which "
            "thresholds val suggests.",
            metavar="P",
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print rows of file, rank, class, probability.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, and count them.")] = False,
    model: Model = None,
    weights: Weights = None,
    device: Device = "auto",
    precision: FormatOption = "auto",
    threads: Threads = None,
    seed: Seed = "0",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Predict the classes of images, most probable first.

    Probabilities are at the temperature that was fitted on val. With --abstain each image also gets an answer: the
    first class, or none (empty in CSV, null in JSON).
    """
    shown, threshold = whole_number("--top", top), probability("--abstain", abstain)
    number_format = start(precision, threads, seed)
    from ttctune.cli import printing
    from ttctune.images import pictures_in
    from ttctune.loading import load

    files = pictures_in(images)
    adapted = load(folder, model, weights, device=device)
    rows: list[dict[str, Any]] = []
    for position, probabilities in adapted.predict_files(files, number_format, skip_bad=skip_bad):
        best = probabilities.argsort()[::-1][:shown]
        predictions = [{"class": adapted.classes[i], "probability": float(probabilities[i])} for i in best]
        row: dict[str, Any] = {"file": str(files[position]), "predictions": predictions}
        if threshold is not None:
            row["answer"] = predictions[0]["class"] if predictions[0]["probability"] >= threshold else None
        rows.append(row)
    if files and not rows:
        raise DataError(f"none of the {len(files)} images can be read", "at least one good image", "check the files")
    if len(rows) < len(files) and not quiet:
        printing.hint(f"left out {len(files) - len(rows)} unreadable images")
    if as_json:
        print(json.dumps(rows))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["file", "rank", "class", "probability"] + ["answer"] * (threshold is not None))
        for row in rows:
            answer = [row["answer"] or ""] if threshold is not None else []
            for rank, p in enumerate(row["predictions"], 1):
                writer.writerow([row["file"], rank, p["class"], f"{p['probability']:.6f}", *answer])
    else:
        printing.predictions(rows)
    if threshold is not None and not quiet:
        silent = sum(row["answer"] is None for row in rows)
        printing.hint(f"answered {len(rows) - silent} of {len(rows)} images, abstained from {silent}")
