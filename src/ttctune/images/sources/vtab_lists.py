"""A folder with the lists of VTAB-1k: train800.txt, val200.txt, train800val200.txt, test.txt."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from ttctune.errors import DataError
from ttctune.images.pictures import FilePictures
from ttctune.images.sources.image_files import IMAGE_ENDINGS, ListedFiles, read_lines
from ttctune.images.sources.labels import check_listed_once, multi_label_error, number_names, numbered
from ttctune.images.sources.source import Parts, PartSource

#: Number of the line, file and label.
Lines: TypeAlias = list[tuple[int, str, int]]

_ENDINGS = "|".join(re.escape(ending) for ending in IMAGE_ENDINGS)
_LINE = re.compile(rf"(?P<file>.+(?:{_ENDINGS}))\s+(?P<label>\S.*)", re.IGNORECASE)


def list_files(folder: Path) -> dict[str, Path]:
    """Which list belongs to which part; empty when the folder has no such lists."""
    found = {
        "train": folder / "train800.txt",
        "val": folder / "val200.txt",
        "test": folder / "test.txt",
    }
    if not found["train"].is_file():
        found = {"train": folder / "train800val200.txt", "test": folder / "test.txt"}
    return {part: path for part, path in found.items() if path.is_file()}


def read_vtab_lists(folder: Path, classes: tuple[str, ...] | None, wanted: frozenset[str]) -> Parts:
    """Read VTAB's lists; each line is a path relative to the folder and a label.

    Args:
        folder: The folder that holds the lists.
        classes: Class names in label order; None names them "0" to the largest label of all lists.
        wanted: Parts to keep; whether the files of others exist is not looked at, and where `classes` are known
            their lists are not opened.

    Returns:
        The parts and the class names.

    Raises:
        DataError: A line that is wrong; a file that is missing, outside, or listed twice in the lists that are read; a
            label outside the classes, or so large that most of those below it do not occur; classes that have names;
            no train list and no classes either.
    """
    lists = list_files(folder)
    if "train" not in lists and classes is None:
        advice = "add it, or take test.txt out where there is a folder per class"
        raise DataError(f"{folder} has test.txt but no train list", "train800.txt", advice)
    if classes is not None and classes != number_names(len(classes)):
        given = f"{next(iter(lists.values()))} numbers its classes, and those that are known have names"
        raise DataError(given, "a folder per class, named as they are", "take the list out")
    lines = {part: read_list(path) for part, path in lists.items() if part in wanted or classes is None}
    check_listed_once((lists[part], rows) for part, rows in lines.items())
    if classes is None:
        classes = _classes({lists[part]: rows for part, rows in lines.items()})
    parts = {}
    for part in lists:
        if part in wanted:
            files = ListedFiles(folder, lists[part].name)
            pictures = FilePictures([files.find(file, line) for line, file, _ in lines[part]])
            labels = [label for _, _, label in lines[part]]
            parts[part] = PartSource(pictures, numbered(labels, classes, str(lists[part])))
    return parts, classes


def _classes(lists: Mapping[Path, Lines]) -> tuple[str, ...]:
    """The numbers up to the largest label: 1,000 images may lack a class, but hardly every second one."""
    present = {label for rows in lists.values() for _, _, label in rows}
    largest = max(present)
    if 2 * len(present) <= largest:
        path, line = next((path, line) for path, rows in lists.items() for line, _, label in rows if label == largest)
        raise DataError(
            f"{path} line {line} has the label {largest}, and only {len(present)} of the labels 0 to {largest} occur",
            "half of them or more",
            "correct the label, or number the classes from 0 without gaps",
        )
    return number_names(largest + 1)


def read_list(path: Path) -> Lines:
    """The lines of one list: number of the line, file as the list names it, label; no file is looked for.

    Raises:
        DataError: A line that is wrong, a file listed twice, or no line at all.
    """
    rows = []
    for number, text in enumerate(read_lines(path), start=1):
        text = text.strip()
        if not text:
            continue
        where = f"{path} line {number}"
        match = _LINE.fullmatch(text)
        file, label = (match["file"], match["label"]) if match else text.rpartition(" ")[::2]
        if re.fullmatch(r"\d+([\s;|,]+\d+)+", label):
            raise multi_label_error(f"{where} has the labels {label!r}")
        if not file.strip() or not re.fullmatch(r"[0-9]{1,5}", label):
            raise DataError(f"{where} reads {text[:80]!r}", "a path and a label, 0 to 99999", "correct the line")
        rows.append((number, file.strip(), int(label)))
    check_listed_once([(path, rows)])
    if not rows:
        raise DataError(f"{path} lists no images", "lines like 'images/train800/000000.jpg 3'", "add a line per image")
    return rows
