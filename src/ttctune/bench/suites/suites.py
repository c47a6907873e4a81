"""The suites: which tasks they have, and where those lie."""

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ttctune.bench.suites.task import Task, check_unicode
from ttctune.bench.suites.vtab import BOTH, LISTS, VTAB, VtabTask, folder_of, folders_in
from ttctune.errors import DataError
from ttctune.images import holds_data
from ttctune.images.sources.image_files import read_lines
from ttctune.images.sources.vtab_lists import list_files, read_list

#: Beside the tasks of a folder suite, it may say which group each is of.
INDEX = "index.csv"
HEADER = ["task", "group"]


def tasks_of(suite: str, root: Path) -> tuple[Task, ...]:
    """The tasks of a suite.

    Args:
        suite: "vtab", the 19 tasks in the community's layout; or "folder", every sub-folder that holds data.
        root: The folder around the tasks.

    Raises:
        DataError: An unknown suite; a root that is no folder; a task of VTAB that is missing; no task at all.
    """
    if suite not in SUITES:
        raise DataError(f"suite {suite!r}", " or ".join(SUITES), "choose one of them")
    return SUITES[suite](root)


def vtab_tasks(root: Path) -> tuple[Task, ...]:
    """The 19 tasks of VTAB, in the order of its tables; all have to be there.

    Raises:
        DataError: Tasks are missing, a list has more or fewer images than VTAB's, or `root` is no folder.
    """
    folders = {name: folder_of(row, root) for name, row in VTAB.items()}
    missing = [name for name, folder in folders.items() if folder is None]
    if missing:
        given = f"{root} lacks {len(missing)} of the {len(VTAB)} tasks of VTAB: {', '.join(missing)}"
        advice = f"`ttctune vtab check {root}` says where to get them; the suite `folder` takes what is there"
        raise DataError(given, "a folder for each", advice)
    found = {name: folder for name, folder in folders.items() if folder}
    if wrong := [line for name, folder in found.items() for line in _wrong_counts(VTAB[name], folder)]:
        more = f", and {len(wrong) - 1} more lists" if len(wrong) > 1 else ""
        advice = f"`ttctune vtab check {root}` names all; the suite `folder` takes what is there"
        raise DataError(f"{wrong[0][0]}{more}", wrong[0][1], advice)
    return tuple(Task(name, VTAB[name].group, VTAB[name].classes, folder) for name, folder in found.items())


def folder_tasks(root: Path) -> tuple[Task, ...]:
    """Every sub-folder that holds images, shards or a list of them, by name.

    Raises:
        DataError: There is none, `root` is no folder, or its index is damaged or names a task that is not there.
    """
    folders = [folder for folder in folders_in(root) if holds_data(folder)]
    if not folders:
        raise DataError(f"{root} has no folders with images", "a folder for each task", "give the folder around them")
    for folder in folders:
        check_unicode(folder.name, f"{root} has a task")
    groups = _groups(root / INDEX)
    if unknown := [name for name in groups if name not in {folder.name for folder in folders}]:
        raise DataError(f"{root / INDEX} names the task {unknown[0]!r}", "tasks that are there", "remove the line")
    return tuple(Task(folder.name, groups.get(folder.name, "none"), None, folder) for folder in folders)


SUITES: Mapping[str, Callable[[Path], tuple[Task, ...]]] = {"vtab": vtab_tasks, "folder": folder_tasks}


def _wrong_counts(row: VtabTask, folder: Path) -> Iterator[tuple[str, str]]:
    """What a list has, and what it should have, for each that differs; a list that is not there may not be needed."""
    expected = {LISTS[part]: number for part, number in row.sizes.items()}
    expected[BOTH] = row.sizes["train"] + row.sizes["val"]
    for path in list_files(folder).values():
        if (number := len(read_list(path))) != expected[path.stem]:
            yield f"{path} has {number:,} images", f"{expected[path.stem]:,}"


def _groups(index: Path) -> dict[str, str]:
    if not index.is_file():
        return {}
    try:
        rows = [[field.strip() for field in row] for row in csv.reader(read_lines(index))]
    except csv.Error as error:
        raise DataError(f"{index}: {error}", "comma-separated text", "correct it") from None
    header = rows[0] if rows else []
    groups: dict[str, str] = {}
    for number, fields in enumerate(rows[1:], start=2):
        if not fields:
            continue
        if header != HEADER or len(fields) != len(HEADER) or not all(fields) or fields[0] in groups:
            given = f"{index} line {number} reads {','.join(fields)[:80]!r} below {','.join(header)[:80]!r}"
            raise DataError(given, f"a line per task below the header {','.join(HEADER)!r}", "correct it")
        groups[fields[0]] = fields[1]
    return groups
