"""Results for people: tables on stdout, hints on stderr."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from ttctune.adapted import Adapted
from ttctune.adapter_folder import Record
from ttctune.calibration import Calibration
from ttctune.cli.tables import fits, hint, pairs_table, show, table_of
from ttctune.evaluation import Evaluation
from ttctune.plan import Plan
from ttctune.warm_start import about

#: Classes up to which a confusion matrix is a table, if it fits; larger ones are listed by their worst pairs.
LARGEST_MATRIX = 12
WORST_PAIRS = 10
#: Characters of a file's name that a narrow terminal still shows in one piece.
WIDEST_NAME = 45


def result(line: str) -> None:
    """One line on stdout."""
    print(line)


def plan(plan: Plan, as_json: bool) -> None:
    """What `fit --dry-run` found, and the settings it went by."""
    if as_json:
        print(json.dumps(dataclasses.asdict(plan) | {"recipe": plan.recipe.model_dump(mode="json")}))
        return
    counts = plan.parameters
    table = pairs_table()
    table.add_row("trained", _trained(counts))
    table.add_row("images", ", ".join(f"{n} {part}" for part, n in plan.images.items()) + f"; {plan.classes} classes")
    table.add_row("precision", f"{plan.precision.title} ({plan.precision.reason})")
    table.add_row("time", f"about {_duration(plan.seconds)}")
    table.add_row("memory", f"about {plan.memory / 1e6:,.0f} MB at the peak")
    show(table)
    print(f"\n{plan.recipe.to_toml()}", end="")


def fitted(adapted: Adapted, folder: Path, data: Path, weights: Path | None, *, show_recipe: bool) -> None:
    """What `fit` reached, the settings it went by where a file had a say in them, and the next commands to try."""
    counts, metrics = adapted.parameters, adapted.metrics
    table = pairs_table()
    if metrics:
        table.add_row("val accuracy", f"{metrics['accuracy']:.1%} on {metrics['images']} images")
        table.add_row("balanced", f"{metrics['balanced_accuracy']:.1%}")
        table.add_row("calibration", _calibration(metrics, adapted.calibration))
    table.add_row("trained", _trained(counts))
    table.add_row("saved", f"{folder} ({_size((folder / 'adapter.safetensors').stat().st_size)})")
    show(table)
    _show_thresholds(adapted.calibration)
    if show_recipe:
        print(f"\n{adapted.recipe.to_toml()}")
    tail = f" --weights {shlex.quote(str(weights))}" if weights else ""
    where = shlex.quote(str(folder))
    hint("next:")
    hint(f"  ttctune evaluate {where} --data {shlex.quote(str(data))}{tail}")
    hint(f"  ttctune predict {where} IMAGE.jpg{tail}")
    hint(f"  ttctune inspect {where} --picture channels.png")
    hint(f"  ttctune merge {where} -o merged/{tail}")


def evaluation(evaluation: Evaluation, classes: tuple[str, ...], brief: bool = False) -> None:
    """Summary, a row per class, confusion."""
    summary = pairs_table()
    summary.add_row("read", f"{evaluation.part}, {evaluation.images} images")
    if evaluation.skipped:
        summary.add_row("left out", f"{evaluation.skipped} unreadable images")
    summary.add_row("accuracy", f"{evaluation.accuracy:.1%}")
    summary.add_row("balanced", f"{evaluation.balanced_accuracy:.1%}")
    error = f"{evaluation.ece:.3f} expected error"
    if evaluation.temperature != 1:
        error += f" ({evaluation.ece_raw:.3f} without the temperature, {evaluation.temperature:.2f})"
        error += "; no clean figure if this is the val that it was fitted on" * (evaluation.part != "test")
    summary.add_row("calibration", error)
    show(summary)
    if evaluation.abstaining:
        show(_abstaining(evaluation))
    if brief:
        return
    table = table_of("class")
    for column in ("precision", "recall", "F1", "images"):
        table.add_column(column, justify="right")
    for row in evaluation.per_class:
        numbers = (f"{row[k]:.1%}" if row["images"] else "" for k in ("precision", "recall", "f1"))
        table.add_row(row["class"], *numbers, str(row["images"]))
    show(table)
    show(_confusion(evaluation.confusion, classes))


def predictions(rows: list[dict[str, Any]]) -> None:
    """A row per image, most probable class first; with the answer, where rows have one."""
    answers = any("answer" in row for row in rows)
    table = table_of()
    longest = max((len(row["file"]) for row in rows), default=0)
    table.add_column("image", overflow="fold", min_width=min(longest, WIDEST_NAME))
    if answers:
        table.add_column("answer", overflow="fold")
    table.add_column("classes", overflow="fold")
    for row in rows:
        answer = ["(abstains)" if row["answer"] is None else row["answer"]] if answers else []
        listed = ", ".join(f"{p['class']} {p['probability']:.1%}" for p in row["predictions"])
        table.add_row(row["file"], *answer, listed)
    show(table)


def record(record: Record, selection: Mapping[str, Tensor], importance: Mapping[str, Tensor]) -> None:
    """What an adapter folder holds."""
    counts, size = record.parameters, record.input
    table = pairs_table()
    table.add_row("backbone", f"{record.backbone.name} ({record.backbone.digest[:12]})")
    table.add_row(
        "classes",
        f"{len(record.classes)}: {', '.join(record.classes[:8])}{', ...' * (len(record.classes) > 8)}",
    )
    gates = record.recipe.get("gates")
    if selection and gates:
        table.add_row("gates", f"a scale and a shift of every channel at {', '.join(gates)}")
    table.add_row("input", f"{size['height']} x {size['width']} pixels, {size['resize']}, {size['interpolation']}")
    table.add_row("trained", _trained(counts))
    data = record.data
    table.add_row("images", f"{data.get('train_images')} train, {data.get('val_images')} val ({data.get('val_note')})")
    if record.metrics:
        table.add_row("val accuracy", f"{record.metrics['accuracy']:.1%} on {record.metrics['images']} images")
        table.add_row("calibration", _calibration(record.metrics, record.calibration))
    if "warm_start" in record.settled:
        for line in about(record.settled, record.recipe["align_epochs"] + record.recipe["tune_epochs"]):
            table.add_row("began with", line)
    table.add_row("computed in", f"{record.settled.get('precision')} on {record.settled.get('device')}")
    table.add_row("made with", ", ".join(f"{k} {v}" for k, v in record.versions.items()))
    show(table)
    _show_thresholds(record.calibration)
    if selection:
        channels = table_of("site")
        channels.add_column("K", justify="right")
        channels.add_column("share of importance", justify="right")
        channels.add_column("channels")
        for site, chosen in selection.items():
            listed = ", ".join(str(c) for c in chosen[:8].tolist()) + (", ..." if len(chosen) > 8 else "")
            channels.add_row(site, str(len(chosen)), _share(chosen, importance.get(site)), listed)
        show(channels)


def _trained(counts: Mapping[str, int]) -> str:
    return f"{counts['channels']:,} in channels, {counts['norms']:,} in norms, {counts['head']:,} in head"


def _calibration(metrics: Mapping[str, Any], calibration: Calibration) -> str:
    """The calibration error on val, and what the temperature, fitted on that very val, made of it."""
    if calibration.ece is None:
        return f"{metrics['ece']:.3f} expected error; no temperature fitted ({calibration.note})"
    before, after = calibration.ece
    return (
        f"{before:.3f} expected error, {after:.3f} at temperature {calibration.temperature:.2f} (fitted on these "
        f"{calibration.images} images, so no clean figure)"
    )


def _show_thresholds(calibration: Calibration) -> None:
    """Thresholds chosen on val, if there are any."""
    if not calibration.thresholds:
        return
    table = table_of("to be right", "predict with")
    for column in ("answers on val", "right on val"):
        table.add_column(column, justify="right")
    for t in calibration.thresholds:
        table.add_row(f"{t.target:.0%}", f"--abstain {t.abstain:g}", f"{t.coverage:.1%}", f"{t.accuracy:.1%}")
    show(table)


def _abstaining(evaluation: Evaluation) -> Table:
    """What thresholds, chosen on val or given, do on the images that were read."""
    table = table_of("to be right", "predict with")
    for column in ("answers on val", "right on val", "answers here", "right here"):
        table.add_column(column, justify="right")
    for row in evaluation.abstaining:
        chosen = [f"{row[k]:.1%}" if k in row else "" for k in ("val_coverage", "val_accuracy")]
        right = "" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
        target = f"{row['target']:.0%}" if "target" in row else ""
        table.add_row(target, f"--abstain {row['abstain']:g}", *chosen, f"{row['coverage']:.1%}", right)
    return table


def _share(chosen: Tensor, score: Tensor | None) -> str:
    """Part of the importance that the chosen channels hold; nothing where the scores do not say."""
    if score is None or int(chosen.max()) >= len(score) or score.min() < 0 or not score.sum():
        return ""
    return f"{float(score[chosen].sum() / score.sum()):.0%}"


def _confusion(confusion: list[list[int]], classes: tuple[str, ...]) -> Table:
    if len(classes) <= LARGEST_MATRIX:
        matrix = table_of("true \\ predicted")
        for name in classes:
            matrix.add_column(name, justify="right", no_wrap=True)
        for name, row in zip(classes, confusion, strict=True):
            matrix.add_row(name, *(str(n) if n else "." for n in row))
        if fits(matrix):
            return matrix
    pairs = [(n, classes[i], classes[j]) for i, row in enumerate(confusion) for j, n in enumerate(row) if n and i != j]
    table = table_of("true", "most often taken for")
    table.add_column("images", justify="right")
    for n, true, predicted in sorted(pairs, key=lambda p: -p[0])[:WORST_PAIRS]:
        table.add_row(true, predicted, str(n))
    return table


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
