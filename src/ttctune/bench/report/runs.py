"""Runs: the records of a results folder, a seed's folds joined, apart by protocol."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttctune.bench.record import Record, damaged, protocol_key, unpacked, unpacked_names
from ttctune.bench.results_folder import Header, read_header, read_records
from ttctune.errors import RecordError

#: Name and label of an image; without a name, its place among all labels.
Image = tuple[str | tuple[int, bytes], int]
#: What two runs of one table may differ in; all else is a difference of protocol.
MAY_DIFFER = {"threads", "device", "versions", "data_digest"}


@dataclass(frozen=True)
class Run:
    """One method on one task with one seed: the records of its folds, or its only record, all finished."""

    records: tuple[Record, ...]

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.records[0].task

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.records[0].method

    @property
    def seed(self) -> int:
        """Of everything random."""
        return self.records[0].seed

    @property
    def parameters(self) -> int:
        """Trained ones, head left out; the most of any fold."""
        return max(record.parameters or 0 for record in self.records)

    @property
    def seconds(self) -> float:
        """Of training, over all folds."""
        return sum(record.seconds or 0.0 for record in self.records)

    @property
    def accuracy(self) -> float:
        """Share of right answers over all scored images."""
        return float(self.right.mean())

    @cached_property
    def key(self) -> str:
        """What must be equal for two runs to share a table: the protocol, whatever the task."""
        return "+".join(sorted({protocol_key(record) for record in self.records}))

    @property
    def data(self) -> frozenset[str]:
        """Digests of the task's images; one, as all folds have the same, unless the images were changed in between."""
        return frozenset(record.protocol.data_digest for record in self.records if record.protocol)

    @cached_property
    def files(self) -> tuple[str, ...] | None:
        """Names of the scored images, sorted; None where they have none or share them."""
        names = [name for record in self.records if record.files for name in unpacked_names(record.files)]
        return tuple(sorted(names)) if len(set(names)) == len(names) == len(self._read("labels")) else None

    @cached_property
    def images(self) -> tuple[Image, ...]:
        """What tells each scored image from every other one of the task: its name, else its place; and its label."""
        all_labels = self.labels.tobytes()
        names = self.files or [(k, all_labels) for k in range(len(self.labels))]
        return tuple(zip(names, self.labels.tolist(), strict=True))

    @cached_property
    def labels(self) -> NDArray[np.int16]:
        """Of the scored images, in the order of `files`, else in the order of the folds."""
        return self._ordered(self._read("labels"))

    @cached_property
    def predictions(self) -> NDArray[np.int16]:
        """Of the scored images, in the order of `labels`."""
        return self._ordered(self._read("predictions"))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images were answered rightly."""
        right: NDArray[np.bool_] = self.labels == self.predictions
        return right

    def _read(self, name: str) -> NDArray[np.int16]:
        return np.concatenate([unpacked(getattr(record, name)) for record in self.records])

    def _ordered(self, values: NDArray[np.int16]) -> NDArray[np.int16]:
        if self.files is None:
            return values
        names = [name for record in self.records for name in unpacked_names(record.files or "")]
        return values[np.argsort(names, kind="stable")]


@dataclass(frozen=True)
class Missing:
    """A job or run without a result, and why."""

    task: str
    method: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Results:
    """What a results folder holds.

    Attributes:
        header: What all of it has in common.
        tables: The runs, apart by protocol, the largest table first.
        missing: What failed, or is not finished.
        groups: Task -> group.
    """

    header: Header
    tables: tuple[tuple[Run, ...], ...]
    missing: tuple[Missing, ...]
    groups: dict[str, str]

    @property
    def chosen_on_scored(self) -> bool:
        """Whether settings were chosen on images that are scored here: those of val."""
        searched = any(record.trials for run in self.runs for record in run.records)
        return searched and self.header.split in ("val", "cv")

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of all tables."""
        return tuple(run for table in self.tables for run in table)


def read_results(folder: Path) -> Results:
    """Read a results folder.

    Raises:
        RecordError: It is none, holds no finished job, or a file of it is damaged.
    """
    header = read_header(folder)
    records = read_records(folder)
    for record in records:
        if record.failed is None:
            _check_consistent(folder, record)
    runs, missing = _joined(records)
    if not runs:
        reason = f"; the first: {missing[0].reason}" if missing else ""
        advice = "run `ttctune bench` with -o and this folder first"
        raise RecordError(f"{folder} has no finished job{reason}", "one at least", advice)
    return Results(header, _by_protocol(runs), missing, _groups(folder, records))


def _groups(folder: Path, records: Iterable[Record]) -> dict[str, str]:
    """The group of each task.

    Raises:
        RecordError: Two records say different ones.
    """
    first: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: record.failed is not None):
        before = first.setdefault(record.task, record)
        if record.group != before.group and record.failed is None:
            given = f"{folder / record.path} says that {record.task} is of the group {record.group!r}"
            raise RecordError(given, f"{before.group!r}, as {before.path} says", 'correct the "group" of one')
    return {task: record.group for task, record in first.items()}


def _check_consistent(folder: Path, record: Record) -> None:
    """Refuse a record whose parts contradict each other.

    Raises:
        RecordError: It is damaged.
    """
    try:
        labels, predictions = (unpacked(text or "") for text in (record.labels, record.predictions))
        numbers = np.concatenate([labels, predictions])
        if numbers.min() < 0 or numbers.max() >= len(record.classes):
            raise ValueError(f"classes {numbers.min()} to {numbers.max()} of {len(record.classes)}")
        share = float((labels == predictions).mean())
        if abs(share - (record.accuracy or 0.0)) > 0.5 / len(labels):
            raise ValueError(f"accuracy {record.accuracy}, but {share:.4f} of its answers are right")
        if record.files and len(names := unpacked_names(record.files)) != len(labels):
            raise ValueError(f"{len(names)} files and {len(labels)} labels")
        widths = {site: len(unpacked(text, "<f2")) for site, text in (record.importance or {}).items()}
        for site, chosen in (record.selection or {}).items():
            if any(not 0 <= channel < widths.get(site, channel + 1) for channel in chosen):
                raise ValueError(f"a channel chosen at {site} that it does not have")
        for site in {*widths, *(record.selection or {})}:
            block, _, kind = site.partition(".")
            if not (block.isdecimal() and kind):
                raise ValueError(f"site {site}")
    except ValueError as error:
        raise damaged(folder / record.path, str(error)) from None


def _joined(records: Sequence[Record]) -> tuple[list[Run], tuple[Missing, ...]]:
    """Runs with every fold that another method has with that seed, and what is missing of the others."""
    folds: dict[tuple[str, int], set[int | None]] = defaultdict(set)
    by_run: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        folds[record.task, record.seed].add(record.fold)
        by_run[record.task, record.method, record.seed].append(record)
    runs, missing = [], []
    for (task, method, seed), own in by_run.items():
        failed = [f"{_fold(record.fold)}{record.failed}" for record in own if record.failed is not None]
        absent = folds[task, seed] - {record.fold for record in own}
        if absent:
            failed.append(f"not finished: fold {', '.join(str(fold) for fold in sorted(absent, key=str))}")
        missing += [Missing(task, method, seed, reason) for reason in failed]
        if not failed:
            runs.append(Run(tuple(sorted(own, key=lambda record: record.fold or 0))))
    return runs, tuple(missing)


def _fold(fold: int | None) -> str:
    return "" if fold is None else f"fold {fold}: "


def _by_protocol(runs: Iterable[Run]) -> tuple[tuple[Run, ...], ...]:
    """Apart by protocol; within one, runs on other images of a task than most stand in a table of their own."""
    by_key: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_key[run.key].append(run)
    tables: list[tuple[Run, ...]] = []
    for own in by_key.values():
        rest = own
        while rest:
            usual = {
                task: Counter(r.data for r in rest if r.task == task).most_common(1)[0][0] for task in _tasks(rest)
            }
            tables.append(tuple(run for run in rest if run.data == usual[run.task]))
            rest = [run for run in rest if run.data != usual[run.task]]
    return tuple(sorted(tables, key=len, reverse=True))


def _tasks(runs: Iterable[Run]) -> list[str]:
    return list(dict.fromkeys(run.task for run in runs))


def protocol_of(table: Sequence[Run]) -> dict[str, Any]:
    """What the runs of a table share: name -> value, for people."""
    record = table[0].records[0]
    shared = {} if record.protocol is None else record.protocol.model_dump(mode="json", exclude=MAY_DIFFER)
    return {"suite": record.suite, "split": record.split, "epochs": record.epochs} | shared


def differences(table: Sequence[Run], first: Sequence[Run]) -> list[str]:
    """How the protocol of a table differs from that of the first, one phrase each."""
    mine, usual = protocol_of(table), protocol_of(first)
    found = [
        f"{name.replace('_', ' ')} {said(mine[name])}, not {said(usual[name])}"
        for name in mine
        if mine[name] != usual[name]
    ]
    if any(run.data != other.data for run in table for other in first if run.task == other.task):
        found.append("other images")
    return found


def said(value: Any) -> str:
    """A value of a protocol as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {said(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return (
            " x ".join(map(str, value)) if all(isinstance(v, int) for v in value) else "/".join(f"{v:g}" for v in value)
        )
    text = str(value)
    return text[:12] if len(text) == 64 else text
