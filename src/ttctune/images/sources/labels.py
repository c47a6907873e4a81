"""Labels of any accepted form to numbers in class order."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttctune.errors import DataError


def multi_label_error(given: str) -> DataError:
    """The one refusal of data with several labels per image."""
    return DataError(f"{given}: multi-label data is not supported", "one label per image", "give each image one class")


def plain_labels(values: Any, name: str) -> list[int] | list[str]:
    """Labels as plain integers or plain strings.

    Args:
        values: Sequence, array or tensor of integers or of strings.
        name: What to call them in a message.

    Returns:
        All integers, or all strings.

    Raises:
        DataError: More than one label per image, or labels that are neither integers nor strings.
    """
    dimensions = getattr(values, "ndim", 1)
    if dimensions > 1:
        raise multi_label_error(f"{name} have {dimensions} dimensions")
    if isinstance(values, (str, bytes, dict)) or not hasattr(values, "__iter__"):
        given = f"{name} are of type {type(values).__name__}"
        raise DataError(given, "a sequence of integers or of class names", "give one label per image")
    items = list(values)
    plain = [_plain(item, f"label {i} of {name}") for i, item in enumerate(items)]
    strings = [item for item in plain if isinstance(item, str)]
    integers = [item for item in plain if isinstance(item, int)]
    if strings and integers:
        given = f"{name} mix class names and numbers"
        raise DataError(given, "all integers or all class names", "use one of the two")
    return strings or integers


def _plain(item: Any, name: str) -> int | str:
    if isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim == 0:
        item = item.item()
    if isinstance(item, (list, tuple, set, np.ndarray, torch.Tensor)):
        raise multi_label_error(f"{name} is a {type(item).__name__} of {len(item)}")
    if isinstance(item, str):
        return str(item)
    if isinstance(item, (int, np.integer, np.bool_)):
        return int(item)
    raise DataError(f"{name} is {item!r}", "an integer or a class name", "convert the labels")


def classes_of(labels: Sequence[int] | Sequence[str], name: str) -> tuple[str, ...]:
    """Class names in label order, found from the labels alone.

    Args:
        labels: All integers, which must be 0..n-1 without a gap, or all strings.
        name: What to call them in a message.

    Returns:
        The strings sorted, or the numbers as strings.

    Raises:
        DataError: Integers that are not 0..n-1.
    """
    names = {label for label in labels if isinstance(label, str)}
    if names:
        return tuple(sorted(names))
    numbers = {label for label in labels if isinstance(label, int)}
    check_complete(numbers, name)
    return number_names(len(numbers))


def number_names(classes: int) -> tuple[str, ...]:
    """The names of classes that have none: "0" to "n-1"."""
    return tuple(str(i) for i in range(classes))


def check_complete(labels: Iterable[int], name: str) -> None:
    """Refuse a set of labels that is not 0..n-1.

    Raises:
        DataError: A negative label, or a gap.
    """
    present = set(labels)
    wrong = sorted(label for label in present if not 0 <= label < len(present))
    if wrong:
        given = f"{name}: labels outside the range: {len(present)} different labels, one of them {wrong[0]}"
        raise DataError(given, f"every integer from 0 to {len(present) - 1}", "number the classes from 0 without gaps")


def numbered(labels: Sequence[int] | Sequence[str], classes: tuple[str, ...], name: str) -> list[int]:
    """Labels as positions in `classes`: strings by name, integers as they are.

    Raises:
        DataError: A name that is not among the classes, or a number outside them.
    """
    position = {class_name: i for i, class_name in enumerate(classes)}
    result: list[int] = []
    for label in labels:
        if isinstance(label, str):
            if label not in position:
                raise unknown_class_error(label, classes, name)
            result.append(position[label])
        elif 0 <= label < len(classes):
            result.append(label)
        else:
            given = f"{name}: labels outside the range: {label}"
            raise DataError(given, f"0 to {len(classes) - 1}, the {len(classes)} known classes", "correct the labels")
    return result


def named(labels: Sequence[int] | Sequence[str], classes: tuple[str, ...], name: str) -> list[str]:
    """Labels as names of classes: integers by position, strings as they are.

    Raises:
        DataError: A name that is not among the classes, or a number outside them.
    """
    return [classes[label] for label in numbered(labels, classes, name)]


def unknown_class_error(class_name: str, classes: tuple[str, ...], name: str) -> DataError:
    """The refusal of a class that training never saw."""
    some = ", ".join(repr(known) for known in classes[:5]) + (", ..." if len(classes) > 5 else "")
    given = f"class {class_name!r} in {name} is unknown"
    return DataError(given, f"one of the {len(classes)} known classes ({some})", "rename it or take it out")


def check_listed_once(lists: Iterable[tuple[Path, Iterable[tuple[int, str, int]]]]) -> None:
    """Lists of parts name each file once, however they spell it: no image has two labels or stands in two parts.

    Spellings that lead through linked folders are seen through; linked files are files of their own.

    Args:
        lists: Each list's path, for messages, and its rows: line number, file and label.

    Raises:
        DataError: A file stands in two lines.
    """
    first: dict[str, tuple[Path, int, int]] = {}
    parents: dict[str, str] = {}
    for path, rows in lists:
        for line, file, label in rows:
            place = _place_of(path.parent, file, parents)
            path_before, line_before, label_before = first.setdefault(place, (path, line, label))
            before = "" if path_before == path else f"{path_before.name} "
            if label != label_before:
                raise multi_label_error(
                    f"{path} line {line} gives {file} a second label, after {before}line {line_before}"
                )
            if (path, line) != (path_before, line_before):
                given = f"{path} line {line} lists {file} again, after {before}line {line_before}"
                raise DataError(given, "each file once, in one part", "remove a line")


def _place_of(folder: Path, file: str, parents: dict[str, str]) -> str:
    """Where a listed file lies; resolving is many system calls, and the files of a list share few `parents`."""
    parent, name = os.path.split(os.path.normpath(file))
    if parent not in parents:
        try:
            parents[parent] = os.path.realpath(folder / parent)
        except ValueError:  # a name that no file can have, which is refused where it is looked for
            parents[parent] = parent
    return os.path.join(parents[parent], name)
