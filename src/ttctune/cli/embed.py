"""`ttctune embed`: features of images, as the adapted model sees them."""

import json
from collections.abc import Iterator
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
)
from ttctune.errors import DataError

EXAMPLE = "ttctune embed runs/flowers --data flowers/ -o features.npz"


def command(
    folder: Adapter,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Images, or folders of images.", metavar="[IMAGE...]")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Instead: a folder as for fit; part and class are written too.", metavar="DIR"),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="File to write or replace: .npz or .csv.", metavar="FILE")
    ] = Path("features.npz"),
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
    """Write the features that the head reads, float32, one row an image: for search, clustering, other classifiers.

    An .npz holds `features` (N x D) and `file`, with --data also `part` and `class`; a .csv has the same columns.
    """
    number_format = start(precision, threads, seed)
    from ttctune.cli import printing
    from ttctune.feature_file import Row, write_features
    from ttctune.images import pictures_in, pictures_with_classes
    from ttctune.loading import load

    if images and data is None:
        files: list[Any] = list(pictures_in(images))
        known = [{"file": str(file)} for file in files]
    elif data is not None and not images:
        files, known = pictures_with_classes(data)
    else:
        raise DataError("both images and --data" if images else "no images", "images or --data DIR", "give one")
    adapted = load(folder, model, weights, device=device)

    def rows() -> Iterator[Row]:
        for position, features in adapted.embed_files(files, number_format, skip_bad=skip_bad):
            yield known[position], features

    count, width = write_features(out, rows())
    left_out = len(files) - count
    if as_json:
        print(json.dumps({"file": str(out), "images": count, "features": width, "skipped": left_out}))
    elif not quiet:
        printing.result(f"wrote {out}: {count} images x {width} features")
    if left_out and not quiet:
        printing.hint(f"left out {left_out} unreadable images")
