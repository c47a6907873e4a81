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
    start,
    whole_number,
)
from ttctune.errors import DataError

EXAMPLE = "ttctune predict runs/flowers image.jpg more/ --top 3 --json"


def command(
    folder: Adapter,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="IMAGE...")],
    top: Annotated[str, typer.Option(help="Classes to show for each image.", metavar="N")] = "5",
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
    """Predict the classes of images, most probable first."""
    shown = whole_number("--top", top)
    number_format = start(precision, threads, seed)
    from ttctune.adapted import load
    from ttctune.cli import printing
    from ttctune.images import pictures_in

    files = pictures_in(images)
    adapted = load(folder, model, weights, device=device)
    rows: list[dict[str, Any]] = []
    for file, probabilities in adapted.predict_files(files, number_format, skip_bad=skip_bad):
        best = probabilities.argsort()[::-1][:shown]
        predictions = [{"class": adapted.classes[i], "probability": float(probabilities[i])} for i in best]
        rows.append({"file": str(file), "predictions": predictions})
    if files and not rows:
        raise DataError(f"none of the {len(files)} images can be read", "at least one good image", "check the files")
    if len(rows) < len(files) and not quiet:
        printing.hint(f"left out {len(files) - len(rows)} unreadable images")
    if as_json:
        print(json.dumps(rows))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["file", "rank", "class", "probability"])
        for row in rows:
            for rank, p in enumerate(row["predictions"], 1):
                writer.writerow([row["file"], rank, p["class"], f"{p['probability']:.6f}"])
    else:
        printing.predictions(rows)
