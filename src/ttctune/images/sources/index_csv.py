"""A folder whose index.csv lists every image with its split, label and class."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ttctune.errors import DataError
from ttctune.images.pictures import FilePictures
from ttctune.images.sources.image_files import ListedFiles, read_lines
from ttctune.images.sources.labels import check_complete, check_listed_once, multi_label_error, unknown_class_error
from ttctune.images.sources.source import PARTS, Parts, PartSource

INDEX = "index.csv"
HEADER = ["file", "split", "label", "class"]


class Row(NamedTuple):
    """One line of an index; `line` counts from 1."""

    line: int
    file: str
    split: str
    label: int
    class_name: str


def index_parts(folder: Path) -> set[str]:
    """Names of the parts that index.csv lists; no file of theirs is looked for.

    Raises:
        DataError: A line that is wrong.
    """
    return {row.split for row in _rows(folder / INDEX)} or {"train"}


def read_index_csv(folder: Path, classes: tuple[str, ...] | None, wanted: frozenset[str]) -> Parts:
    """Read index.csv; the order of its rows is kept.

    Args:
        folder: The folder that holds index.csv; its paths are relative to this folder.
        classes: Class names in label order, to which rows are matched by name; None takes the file's own
            order.
        wanted: Parts to keep; whether the files of others exist is not looked at.

    Returns:
        The parts and the class names.

    Raises:
        DataError: A line that is wrong, a file that is missing, outside or listed twice, labels that are not 0..n-1.
    """
    path = folder / INDEX
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path} lists no images", f"lines of {','.join(HEADER)}", "add a line per image")
    names = _names(path, rows)
    if classes is None:
        check_complete(names, str(path))
        classes = tuple(names[label] for label in range(len(names)))
    position = {name: i for i, name in enumerate(classes)}
    check_listed_once([(path, ((row.line, row.file, row.label) for row in rows))])
    files = ListedFiles(folder, INDEX)
    pictures: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    for row in rows:
        if row.split not in wanted:
            continue
        if row.class_name not in position:
            raise unknown_class_error(row.class_name, classes, f"{path} line {row.line}")
        pictures.setdefault(row.split, []).append(files.find(row.file, row.line))
        labels.setdefault(row.split, []).append(position[row.class_name])
    return {part: PartSource(FilePictures(pictures[part]), labels[part]) for part in PARTS if part in pictures}, classes


def _rows(path: Path) -> Iterator[Row]:
    reader = csv.reader(read_lines(path))
    try:
        header = next(reader, [])
        if header != HEADER:
            given = f"{path} begins with {','.join(header)[:80]!r}"
            raise DataError(given, f"the header {','.join(HEADER)!r}", "correct the first line")
        for fields in reader:
            if fields:
                yield _row(fields, path, reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: {error}", "comma-separated text", "correct it") from None


def _row(fields: list[str], path: Path, line: int) -> Row:
    where = f"{path} line {line}"
    if len(fields) != len(HEADER):
        raise DataError(f"{where} has {len(fields)} fields", f"{len(HEADER)}: {','.join(HEADER)}", "correct the line")
    file, split, label, class_name = (field.strip() for field in fields)
    if split not in PARTS:
        raise DataError(f"{where} has the split {split!r}", "train, val or test", "correct the line")
    if re.fullmatch(r"\d+(\s*[;|,\s]\s*\d+)+", label):
        raise multi_label_error(f"{where} has the labels {label!r}")
    if not re.fullmatch(r"-?[0-9]{1,18}", label):
        raise DataError(f"{where} has the label {label!r}", "an integer", "correct the line")
    if not class_name or not file:
        raise DataError(f"{where} has no {'file' if class_name else 'class name'}", "a name", "correct the line")
    return Row(line, file, split, int(label), class_name)


def _names(path: Path, rows: list[Row]) -> dict[int, str]:
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for row in rows:
        name = names.setdefault(row.label, row.class_name)
        number = numbers.setdefault(row.class_name, row.label)
        if (name, number) != (row.class_name, row.label):
            given = f"{path} line {row.line} pairs label {row.label} with class {row.class_name!r}"
            other = f"label {row.label} is {name!r}" if name != row.class_name else f"{name!r} is label {number}"
            raise DataError(f"{given}, but above {other}", "one label per class and one class per label", "correct it")
    return names
