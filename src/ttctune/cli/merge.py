"""`ttctune merge`: fold an adapter into a plain model that timm opens."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ttctune.cli.options import Adapter, Device, FormatOption, Json, Model, Quiet, Seed, Threads, Weights, start

EXAMPLE = "ttctune merge runs/flowers -o merged/"


def command(
    folder: Adapter,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write, absent or empty.", metavar="DIR")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a merged model there.")] = False,
    model: Model = None,
    weights: Weights = None,
    device: Device = "auto",
    precision: FormatOption = "auto",
    threads: Threads = None,
    seed: Seed = "0",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the merged model: equal outputs, nothing left to pay, no ttctune needed to use it.

    Merging is exact arithmetic in float32 on the CPU; --device, --precision and --seed change nothing here.
    """
    start(precision, threads, seed)
    from ttctune.backbone.opening import local_folders
    from ttctune.backbone.saving import write_timm_folder
    from ttctune.cli import printing
    from ttctune.loading import load
    from ttctune.output_folder import MERGED, check_apart, check_replaceable, written_whole

    check_replaceable(out.resolve(), overwrite, MERGED)
    adapted = load(folder, model, weights)
    check_apart(out, [folder, *local_folders(adapted.attachment.backbone.name), *([weights] if weights else [])])
    with written_whole(out, overwrite=overwrite, replaces=MERGED) as made:
        write_timm_folder(made, adapted.merge(), adapted.input, adapted.classes)
    if as_json:
        print(json.dumps({"folder": str(out)}))
    elif not quiet:
        printing.result(f"wrote {out}")
        printing.hint(f'next: timm.create_model("local-dir:{out}", pretrained=True)')
