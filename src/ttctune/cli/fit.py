"""`ttctune fit`: adapt a model to a folder of images."""

import json
import re
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from ttctune.cli.options import Device, Json, Quiet, Threads, Weights, Workers, threads_of, with_recipe, workers_of
from ttctune.launcher import launch
from ttctune.recipe import Recipe

EXAMPLE = "ttctune fit --data flowers/ --model vit_base_patch16_224.augreg_in21k -o runs/flowers"

#: Where runs go when nobody says.
RUNS = Path("runs")


@with_recipe
def command(
    data: Annotated[Path, typer.Option(help="Folder of images, with an index.csv, or of .tar shards.", metavar="DIR")],
    recipe: Recipe,
    from_file: bool,
    model: Annotated[
        str | None,
        typer.Option(help="timm name, or local-dir:FOLDER; with --warm-start, its backbone.", metavar="NAME"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder to write; default: a new one in runs/.", metavar="DIR"),
    ] = None,
    warm_start: Annotated[
        Path | None,
        typer.Option(
            help="Go on from this finished run, with images or classes added: keeps its settings and selection, "
            "and tunes for 6 epochs; with --align-epochs N it selects channels anew.",
            metavar="FOLDER",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what ttctune wrote there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, for how long, and every setting.")
    ] = False,
    weights: Weights = None,
    device: Device = "auto",
    threads: Threads = None,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Adapt a pre-trained model to your images: align, score the channels, tune those that matter."""
    from ttctune.cli import printing
    from ttctune.output_folder import new_folder, unfinished
    from ttctune.plan import plan
    from ttctune.run import adapt
    from ttctune.training.device import find_device
    from ttctune.training.processes import join

    if model is None and warm_start is None:
        raise typer.BadParameter("Missing option '--model' (or '--warm-start').")
    use: dict[str, Any] = {
        "warm_start": warm_start,
        "device": device,
        "threads": threads_of(threads),
        "workers": workers_of(workers),
        "quiet": quiet,
    }
    if dry_run:
        planned = plan(model, data, recipe, weights, **use)
        if launch().main:
            printing.plan(planned, as_json)
        return
    processes = join(find_device(device))
    with ExitStack() as stack:
        with processes.together():
            new = new_folder(RUNS, _name_of_run(model or str(warm_start), data))
            folder = processes.decide(lambda: out or (_only_unfinished(RUNS) if resume else stack.enter_context(new)))
        try:
            adapted = adapt(model, data, recipe, weights, folder, **use, resume=resume, overwrite=overwrite)
        except BaseException as error:
            stopped = not isinstance(error, Exception)
            if stopped and processes.main and not quiet and unfinished(folder.resolve()):
                printing.hint(f"stopped; the same command with -o {shlex.quote(str(folder))} --resume goes on")
            raise
    if not processes.main:
        return
    if as_json:
        result = {"folder": str(folder), "parameters": adapted.parameters, "metrics": dict(adapted.metrics)}
        found = {
            "settled": dict(adapted.settled),
            "calibration": adapted.calibration.model_dump(mode="json"),
            "recipe": adapted.recipe.model_dump(mode="json"),
        }
        print(json.dumps(result | found))
    elif not quiet:
        printing.fitted(adapted, folder, data, weights, show_recipe=from_file)


def _name_of_run(model: str, data: Path) -> str:
    local = model.startswith("local-dir:")
    short = Path(model.removeprefix("local-dir:")).resolve().name if local else Path(model).name.partition(".")[0]
    images = re.sub(r"[*?\[\]]", "", data.resolve().name).removesuffix(".tar")
    return f"{images}-{short}"


def _only_unfinished(parent: Path) -> Path:
    from ttctune.errors import FolderError
    from ttctune.output_folder import unfinished

    found = sorted(folder for folder in parent.glob("[!.]*") if unfinished(folder))
    if len(found) != 1:
        raise FolderError(
            f"{len(found)} unfinished runs in {parent}/",
            "exactly one, or a folder to resume",
            "name it with -o",
        )
    return found[0]
