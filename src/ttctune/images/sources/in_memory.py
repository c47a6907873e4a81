"""Arrays, lists and data sets, alone or as a mapping of parts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ttctune.errors import DataError
from ttctune.images.pictures import Picture
from ttctune.images.sources.arrays import read_pair
from ttctune.images.sources.datasets import is_map_style, read_dataset
from ttctune.images.sources.labels import classes_of, named, number_names, numbered
from ttctune.images.sources.source import PARTS, Parts, PartSource

#: What may be handed over as data, for messages.
KINDS = "a folder, a pair (images, labels), a torch data set, or a mapping of train, val and test to these two"


class _Unnumbered(NamedTuple):
    pictures: Sequence[Picture]
    labels: list[int] | list[str]
    class_names: tuple[str, ...] | None
    one_thread: bool


def parts_of_mapping(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the parts that a mapping has; None counts as absent.

    Raises:
        DataError: A key that is no part, or no part at all.
    """
    unknown = [key for key in data if key not in PARTS]
    if unknown:
        raise DataError(f"the data has the key {unknown[0]!r}", "train, val or test", "rename it")
    present = tuple(part for part in PARTS if data.get(part) is not None)
    if not present:
        raise DataError("the data is an empty mapping", "train, and perhaps val and test", "add a part")
    return present


def read_in_memory(data: Any, classes: tuple[str, ...] | None, wanted: frozenset[str]) -> Parts:
    """Read a pair, a data set, or a mapping of parts to these.

    Args:
        data: `(images, labels)`, a map-style data set, or a mapping with keys from "train", "val" and "test".
        classes: Class names in label order; None takes them from the train part.
        wanted: Parts to read; others are not touched.

    Returns:
        The parts and the class names.

    Raises:
        DataError: Something else was given, or labels do not fit the classes.
    """
    if isinstance(data, Mapping):
        present = parts_of_mapping(data)
        read = {part: _read(data[part], f"the {part} part") for part in present if part in wanted}
        if classes is None and "train" not in read:
            first = "train" if "train" in present else present[0]
            classes = _classes(_read(data[first], f"the {first} part"), first)
    else:
        read = {"train": _read(data, "the data")}
    if classes is None:
        classes = _classes(read["train"], "train")
    parts = {
        part: PartSource(one.pictures, _numbers(one, classes, f"the {part} part"), one.one_thread)
        for part, one in read.items()
        if part in wanted
    }
    return parts, classes


def _classes(part: _Unnumbered, name: str) -> tuple[str, ...]:
    return part.class_names or classes_of(part.labels, f"the labels of the {name} part")


def _numbers(part: _Unnumbered, classes: tuple[str, ...], name: str) -> list[int]:
    """Labels as positions in `classes`; those of a data set that names its classes count its own, maybe others."""
    own, unnamed = part.class_names, classes == number_names(len(classes))
    if own is None or (unnamed and set(own).isdisjoint(classes)):
        return numbered(part.labels, classes, name)
    return numbered(named(part.labels, own, name), classes, name)


def _read(data: Any, name: str) -> _Unnumbered:
    if isinstance(data, tuple) and len(data) == 2:
        pictures, labels = read_pair((data[0], data[1]), name)
        return _Unnumbered(pictures, labels, None, False)
    if isinstance(data, (np.ndarray, torch.Tensor, list, tuple)):
        advice = "give a pair (images, labels)"
        raise DataError(f"{name} is a {type(data).__name__} without labels", KINDS, advice)
    if isinstance(data, (str, bytes, Mapping)) or not is_map_style(data):
        advice = "of a loader, hand over loader.dataset" if hasattr(data, "dataset") else "convert it"
        raise DataError(f"{name} is of type {type(data).__name__}", KINDS, advice)
    pictures, labels, class_names = read_dataset(data, name)
    return _Unnumbered(pictures, labels, class_names, True)
