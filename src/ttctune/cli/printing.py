"""Results for people: tables on stdout, hints on stderr."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ttctune.adapted import Adapted
from ttctune.adapter_folder import Record
from ttctune.evaluation import Evaluation
from ttctune.run import Plan

#: Classes up to which a confusion matrix is a table; larger ones are listed by their worst pairs.
LARGEST_MATRIX = 12
WORST_PAIRS = 10


def hint(line: str) -> None:
    """One line on stderr."""
    _console(stderr=True).print(line, markup=False)


def result(line: str) -> None:
    """One line on stdout."""
    _console().print(line, markup=False)


def plan(plan: Plan, as_json: bool) -> None:
    """What `fit --dry-run` found."""
    if as_json:
        print(json.dumps(dataclasses.asdict(plan)))
        return
    counts = plan.parameters
    table = _pairs()
    table.add_row(
        "trained",
        f"{counts['channels']:,} in channels, {counts['norms']:,} in norms, {counts['head']:,} in head",
    )
    table.add_row("images", ", ".join(f"{n} {part}" for part, n in plan.images.items()) + f"; {plan.classes} classes")
    table.add_row("precision", f"{plan.precision.title} ({plan.precision.reason})")
    table.add_row("time", f"about {_duration(plan.seconds)}")
    table.add_row("memory", f"about {plan.memory / 1e6:,.0f} MB at the peak")
    _console().print(table)


def fitted(adapted: Adapted, folder: Path, data: Path, weights: Path | None) -> None:
    """What `fit` reached, and the next commands to try."""
    counts, metrics = adapted.parameters, adapted.metrics
    table = _pairs()
    if metrics:
        table.add_row("val accuracy", f"{metrics['accuracy']:.1%} on {metrics['images']} images")
        table.add_row("balanced", f"{metrics['balanced_accuracy']:.1%}")
        table.add_row("calibration", f"{metrics['ece']:.3f} expected error")
    table.add_row(
        "trained",
        f"{counts['channels']:,} in channels, {counts['norms']:,} in norms, {counts['head']:,} in head",
    )
    table.add_row("saved", f"{folder} ({(folder / 'adapter.safetensors').stat().st_size / 1e6:.2f} MB)")
    _console().print(table)
    tail = f" --weights {shlex.quote(str(weights))}" if weights else ""
    where = shlex.quote(str(folder))
    hint("next:")
    hint(f"  ttctune evaluate {where} --data {shlex.quote(str(data))}{tail}")
    hint(f"  ttctune predict {where} IMAGE.jpg{tail}")
    hint(f"  ttctune inspect {where} --picture channels.png")
    hint(f"  ttctune merge {where} -o merged/{tail}")


def evaluation(evaluation: Evaluation, classes: tuple[str, ...], brief: bool = False) -> None:
    """Summary, a row per class, confusion."""
    console = _console()
    summary = _pairs()
    summary.add_row("read", f"{evaluation.part}, {evaluation.images} images")
    if evaluation.skipped:
        summary.add_row("left out", f"{evaluation.skipped} unreadable images")
    summary.add_row("accuracy", f"{evaluation.accuracy:.1%}")
    summary.add_row("balanced", f"{evaluation.balanced_accuracy:.1%}")
    summary.add_row("calibration", f"{evaluation.ece:.3f} expected error")
    console.print(summary)
    if brief:
        return
    table = Table("class", box=box.SIMPLE)
    for column in ("precision", "recall", "F1", "images"):
        table.add_column(column, justify="right")
    for row in evaluation.per_class:
        numbers = (f"{row[k]:.1%}" if row["images"] else "" for k in ("precision", "recall", "f1"))
        table.add_row(row["class"], *numbers, str(row["images"]))
    console.print(table)
    console.print(_confusion(evaluation.confusion, classes))


def predictions(rows: list[dict[str, Any]]) -> None:
    """A row per image, most probable class first."""
    table = Table("image", "classes", box=box.SIMPLE)
    for row in rows:
        table.add_row(row["file"], ", ".join(f"{p['class']} {p['probability']:.1%}" for p in row["predictions"]))
    _console().print(table)


def record(record: Record, selection: Mapping[str, Tensor], importance: Mapping[str, Tensor]) -> None:
    """What an adapter folder holds."""
    console, counts, size = _console(), record.parameters, record.input
    table = _pairs()
    table.add_row("backbone", f"{record.backbone.name} ({record.backbone.digest[:12]})")
    table.add_row(
        "classes",
        f"{len(record.classes)}: {', '.join(record.classes[:8])}{', ...' * (len(record.classes) > 8)}",
    )
    table.add_row("input", f"{size['height']} x {size['width']} pixels, {size['resize']}, {size['interpolation']}")
    table.add_row(
        "trained",
        f"{counts['channels']:,} in channels, {counts['norms']:,} in norms, {counts['head']:,} in head",
    )
    table.add_row("images", f"{record.data.get('train_images')} to train on; val: {record.data.get('val_note')}")
    if record.metrics:
        table.add_row("val accuracy", f"{record.metrics['accuracy']:.1%} on {record.metrics['images']} images")
    table.add_row("computed in", f"{record.settled.get('precision')} on {record.settled.get('device')}")
    table.add_row("made with", ", ".join(f"{k} {v}" for k, v in record.versions.items()))
    console.print(table)
    if selection:
        channels = Table("site", "K", "share of importance", "channels", box=box.SIMPLE)
        for site, chosen in selection.items():
            listed = ", ".join(str(c) for c in chosen[:8].tolist()) + (", ..." if len(chosen) > 8 else "")
            score = importance.get(site)
            share = f"{float(score[chosen].sum() / score.sum()):.0%}" if score is not None and score.min() >= 0 else ""
            channels.add_row(site, str(len(chosen)), share, listed)
        console.print(channels)


def _confusion(confusion: list[list[int]], classes: tuple[str, ...]) -> Table:
    if len(classes) <= LARGEST_MATRIX:
        table = Table("true \\ predicted", title="confusion", box=box.SIMPLE)
        for name in classes:
            table.add_column(name, justify="right")
        for name, row in zip(classes, confusion, strict=True):
            table.add_row(name, *(str(n) if n else "." for n in row))
        return table
    pairs = [(n, classes[i], classes[j]) for i, row in enumerate(confusion) for j, n in enumerate(row) if n and i != j]
    table = Table("true", "taken for", "images", title="most frequent confusions", box=box.SIMPLE)
    for n, true, predicted in sorted(pairs, key=lambda p: -p[0])[:WORST_PAIRS]:
        table.add_row(true, predicted, str(n))
    return table


def _pairs() -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    return table


def _console(stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
