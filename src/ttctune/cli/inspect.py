"""`ttctune inspect`: what an adapter folder holds, and which channels were chosen, as a picture too."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ttctune.cli.options import Adapter, Device, FormatOption, Json, Quiet, Seed, Threads, start

EXAMPLE = "ttctune inspect runs/flowers --picture channels.png"


def command(
    folder: Adapter,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write the map of blocks x channels here (.png or .svg); default: none.", metavar="FILE"),
    ] = None,
    device: Device = "auto",
    precision: FormatOption = "auto",
    threads: Threads = None,
    seed: Seed = "0",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show an adapter: settings, results, and the channels chosen in each block. Needs no backbone.

    Nothing is computed; --device, --precision, --threads and --seed change nothing here.
    """
    start(precision, threads, seed)
    from ttctune import adapter_folder
    from ttctune.channel_map import draw
    from ttctune.cli import printing

    record = adapter_folder.read_record(folder)
    tensors = adapter_folder.read_tensors(folder, record)
    selection = adapter_folder.selection_of(tensors)
    importance = adapter_folder.read_importance(folder, record)
    if picture is not None:
        draw(picture, selection, importance, title=record.backbone.name)
    if as_json:
        chosen = {site: channels.tolist() for site, channels in selection.items()}
        print(json.dumps(record.model_dump(mode="json") | {"selection": chosen}))
    elif not quiet:
        printing.record(record, selection, importance)
        printing.hint(f"wrote {picture}" if picture else "add --picture channels.png for a map of blocks x channels")
