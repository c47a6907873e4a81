"""`ttctune report`: the results of a benchmark as one page, as Markdown, and as rows."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ttctune.cli.options import Json, Quiet
from ttctune.cli.tables import hint

EXAMPLE = "ttctune report results/vtab -o report.html"


def command(
    results: Annotated[Path, typer.Argument(help="Folder made by `ttctune bench`.", metavar="RESULTS")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Page to write or replace, .html; beside it the same as .md. Default: report.html, none with --json.",
            metavar="FILE",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Compare the others with this method; default: ttc, else the best.", metavar="METHOD"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="The --root of the benchmark, to show images that were mistaken.", metavar="DIR"),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Whether images go into the page; they need --images.")
    ] = True,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write one page about a benchmark that needs no network: tables with intervals, drawings, what failed.

    --json prints a list of runs instead: task, method, seed, accuracy (0 to 1), parameters, seconds, protocol.
    """
    from ttctune.bench.report import read_results, rows_of, write_report

    found = read_results(results)
    if as_json:
        print(json.dumps(rows_of(found)))
    if as_json and out is None:
        return
    page = out or Path("report.html")
    markdown = write_report(found, page, reference, images if pictures else None)
    if not quiet:
        hint(f"wrote {page} and {markdown}")
        if pictures and images is None:
            hint("add --images DIR, the --root of the benchmark, to show images that were mistaken")
