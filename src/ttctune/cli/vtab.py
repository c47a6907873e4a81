"""`ttctune vtab`: is a copy of VTAB-1k right, and writing one."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttctune.cli.options import Json, Quiet, seed_of
from ttctune.cli.tables import fits, hint, show, table_of
from ttctune.errors import DataError
from ttctune.launcher import launch

if TYPE_CHECKING:
    from ttctune.bench.suites.check import Finding
    from ttctune.bench.suites.origins import Origin
    from ttctune.bench.suites.vtab import VtabTask

EXAMPLE = "ttctune vtab check data/vtab-1k"
CHECK_EXAMPLE = "ttctune vtab check data/vtab-1k --thorough"
EXPORT_EXAMPLE = "ttctune vtab export --from tfds --task cifar -o data/vtab-1k"
ORIGINS = ("hf", "tfds", "folder")
#: Characters of a digest that a table shows.
SHORT = 12
NUMBERS = ("train", "val", "test", "classes")

app = typer.Typer(help="Check a copy of VTAB-1k, or write one.", no_args_is_help=True)


@app.command("check", epilog=CHECK_EXAMPLE)
def check(
    folder: Annotated[Path, typer.Argument(help="The folder around the 19 tasks.", metavar="DIR")],
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Decode every image, compare pixels, digest all contents.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check a copy of VTAB-1k in the community's layout: a row for each of the 19 tasks, and what is wrong below.

    Of each task the lists are read whole, and a few images opened; equal images in two parts are found by the content
    of their files. Exit code 1 where something is missing or wrong, else 0. With --quiet only that is shown.
    """
    if not launch().main:
        return
    from ttctune.bench.suites.check import check_vtab, foreign_folders

    say = None if quiet or not thorough else lambda task: hint(f"looking at {task}")
    findings = check_vtab(folder, thorough=thorough, progress=say)
    shown = [finding for finding in findings if not quiet or finding.state != "ok"]
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in shown]))
    elif shown:
        _show(shown)
    if not quiet and (foreign := foreign_folders(folder)):
        hint(f"not looked at, for they are none of the 19: {', '.join(foreign)}")
    if any(finding.state != "ok" for finding in findings):
        raise typer.Exit(1)


@app.command("export", epilog=EXPORT_EXAMPLE)
def export(
    origin: Annotated[str, typer.Option("--from", help="hf, tfds or folder.", metavar="ORIGIN", show_default=False)],
    task: Annotated[str, typer.Option(help="Which of the 19.", metavar="NAME", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder around the tasks.", metavar="DIR")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="hf: the data set's name; folder: the folder; tfds: where TFDS keeps its data, if not at its default.",
            metavar="SOURCE",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="hf: the data set's configuration.", metavar="NAME", show_default=False)
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="hf: column of the pictures.", metavar="NAME", show_default=False)
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="hf: column of the labels.", metavar="NAME", show_default=False)
    ] = None,
    seed: Annotated[str, typer.Option(help="hf, folder: of the shuffle before the cut.", metavar="N")] = "0",
    keep_order: Annotated[bool, typer.Option("--keep-order", help="hf, folder: do not shuffle.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was exported there before.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write one task of VTAB-1k in the community's layout: three lists, and the images as PNG, which loses nothing.

    TFDS is the benchmark's own source: the result has its very images. From elsewhere the same rule cuts out 800, 200
    and test, but other images, unless the source is divided so already. Nothing is left behind where it fails.
    """
    if not launch().main:
        return
    from ttctune.bench.suites.export import export as write
    from ttctune.bench.suites.vtab import row_of
    from ttctune.training.progress import Reporter

    row, number = row_of(task), seed_of(seed)
    opened = _opened(origin, source, row, config, image, label)
    progress = Reporter(quiet or as_json).decoding
    done = write(row, opened, out, seed=number, keep_order=keep_order, overwrite=overwrite, progress=progress)
    if as_json:
        print(json.dumps(dataclasses.asdict(done)))
    elif not quiet:
        counts = ", ".join(f"{count:,} {part}" for part, count in done.images.items())
        print(f"wrote {done.folder}: {counts} ({done.rule})")
    if not quiet:
        for note in done.notes:
            hint(f"note: {note}")


def _opened(
    origin: str, source: str | None, row: "VtabTask", config: str | None, image: str | None, label: str | None
) -> "Origin":
    from ttctune.bench.suites.origins import from_folder, from_hugging_face, from_tfds

    if origin not in ORIGINS:
        raise DataError(f"--from {origin}", ", ".join(ORIGINS), "change --from")
    if origin == "tfds":
        return from_tfds(row, source)
    if source is None:
        wanted = "a folder of images" if origin == "folder" else "the name of a data set"
        raise DataError(f"--from {origin} without a source", wanted, "give it")
    return from_folder(Path(source)) if origin == "folder" else from_hugging_face(source, config, image, label)


def _show(findings: "list[Finding]") -> None:
    """A row a task, then what there is to say of some; on a narrow terminal without the columns that need most room."""
    digest = "digest of the images" if any(one.data_digest for one in findings) else "digest of the lists"
    rows = [_row(one, digest) for one in findings]
    for columns in (list(rows[0]), list(rows[0])[:-2]):
        table = table_of()
        for name in columns:
            table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(row[name] for name in columns))
        if fits(table):
            break
    show(table)
    remarks = [f"{one.task}: {line}" for one in findings for line in one.problems]
    remarks += [f"{one.task}: {line}, as is the nature of this data set" for one in findings for line in one.notes]
    if remarks:
        print()
    for line in remarks:
        print(line)


def _row(one: "Finding", digest: str) -> dict[str, str]:
    row = {"task": one.task, "state": one.state}
    row |= {part: _number(one.images.get(part), number) for part, number in one.expected.items()}
    row["classes"] = _number(one.classes or None, one.expected_classes)
    return row | {"images": one.copy or "", digest: (one.data_digest or one.digest or "")[:SHORT]}


def _number(found: int | None, expected: int) -> str:
    if found is None:
        return ""
    return f"{found:,}" if found == expected else f"{found:,} of {expected:,}"
