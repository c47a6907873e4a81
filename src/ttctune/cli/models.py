"""`ttctune models`: which pre-trained models can be adapted."""

import dataclasses
import json
import textwrap
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated

import typer

from ttctune.backbone.recommended import RECOMMENDED, Architecture
from ttctune.cli.options import Json, Quiet
from ttctune.cli.tables import fits, hint, show, table_of

EXAMPLE = "ttctune models 'vit_small*'"

#: Looking at more models than this takes long enough to say so.
QUICK = 10
NUMBERS = ("pixels", "parameters", "width", "blocks")


def command(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Part of a name, or a pattern such as 'vit_*_224'.", metavar="PATTERN", show_default=False),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show models to begin with, or all that match a pattern: sizes, sites, licences. Nothing is fetched."""
    if pattern is None:
        if as_json:
            print(
                json.dumps([_to_json(row.model, machine=row.machine, trained_on=row.trained_on) for row in RECOMMENDED])
            )
            return
        _show(
            [row.model for row in RECOMMENDED],
            {row.model.name: f"{row.machine}; {row.trained_on}" for row in RECOMMENDED},
        )
        if not quiet:
            hint("`ttctune models PATTERN` shows all that match; the licence is that of the weights, as timm states it")
        return
    from ttctune.catalogue import candidates, supported

    names = candidates(pattern)
    if len(names) > QUICK and not quiet:
        hint(f"looking at {len(names)} models, up to a second each")
    found = list(supported(names))
    if as_json:
        print(json.dumps([_to_json(model) for model in found]))
    else:
        _show(found, {})


def _to_json(model: Architecture, **more: str) -> dict[str, object]:
    return dataclasses.asdict(model) | more


def _show(models: list[Architecture], notes: Mapping[str, str]) -> None:
    """A row a model; on a narrow terminal a few lines each."""
    rows = [_row(model, notes.get(model.name)) for model in models]
    table = table_of()
    for name in rows[0]:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    if fits(table):
        show(table)
        return
    for row in rows:
        print(row.pop("model"))
        print(textwrap.indent(textwrap.fill(", ".join(f"{key} {text}" for key, text in row.items()), 76), "    "))


def _row(model: Architecture, note: str | None) -> dict[str, str]:
    height, width = model.pixels
    row = {
        "model": model.name,
        "pixels": f"{height}" if height == width else f"{height}x{width}",
        "parameters": f"{model.parameters / 1e6:.1f} M",
        "width": "-".join(str(width) for width in dict.fromkeys((model.widths[0], model.widths[-1]))),
        "blocks": str(model.blocks),
        "sites": ",".join(model.sites),
        "weights": _tags(model.weights),
    }
    return row | ({"good for": note} if note else {})


def _tags(weights: Mapping[str, str]) -> str:
    """Tags by licence: `a, b (apache-2.0); c (mit)`."""
    by_licence: dict[str, list[str]] = defaultdict(list)
    for tag, licence in weights.items():
        by_licence[licence or "licence unknown"].append(tag)
    return "; ".join(f"{', '.join(tags)} ({licence})" for licence, tags in by_licence.items()) or "none: give --weights"
