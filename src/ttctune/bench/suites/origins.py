"""Where `export` takes a task from: a folder, a data set of Hugging Face, or one of TensorFlow Datasets.

The two libraries are imported only here, and only when they are asked for.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ttctune.bench.suites.tfds_labels import LABELS, PIXELS, plain_label
from ttctune.bench.suites.vtab import VtabTask
from ttctune.errors import DataError
from ttctune.images import PartSource, decode_whole, open_source, picture_name, present_parts

#: A picture, in mode L or RGB, with its label.
Labelled = tuple[Image.Image, int]

#: Other names of splits, in lower case.
_SPLITS = {"val": "validation", "valid": "validation", "dev": "validation", "val200": "validation", "train800": "train"}


@dataclass(frozen=True)
class Origin:
    """Labelled pictures by split.

    Attributes:
        name: What it is, for the record.
        sizes: Split (train, validation, test) -> number of pictures.
        read: The pictures at some positions of a split, in that order.
        classes: Names in label order, where it has them.
        is_benchmarks: Its order, and so its choice of 800 and 200, is that of VTAB-1k.
    """

    name: str
    sizes: Mapping[str, int]
    read: Callable[[str, Sequence[int]], Iterator[Labelled]]
    classes: tuple[str, ...] | None = None
    is_benchmarks: bool = False


def from_folder(folder: Path) -> Origin:
    """A folder that ttctune reads: index.csv, VTAB's lists, shards, part folders, or a folder per class.

    Raises:
        DataError: It cannot be read as such.
    """
    source = open_source(folder, val_fraction=0.0, parts=present_parts(folder))
    parts = {_SPLITS.get(name, name): part for name, part in source.parts.items()}
    number, classes = _numbers(source.classes)

    def read(split: str, positions: Sequence[int]) -> Iterator[Labelled]:
        part: PartSource = parts[split]
        for index in positions:
            picture = decode_whole(part.pictures[index], picture_name(part.pictures, index))
            yield picture, number[part.labels[index]]

    return Origin(str(folder), {name: len(part) for name, part in parts.items()}, read, classes)


def _numbers(classes: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """The number of each class, and the names in that order: folders "0" to "n-1", sorted as text, keep theirs."""
    if set(classes) != {str(number) for number in range(len(classes))}:
        return [*range(len(classes))], tuple(classes)
    return [int(name) for name in classes], tuple(sorted(classes, key=int))


def from_hugging_face(
    name: str, config: str | None = None, image: str | None = None, label: str | None = None
) -> Origin:
    """A data set of the Hugging Face hub, or a local one that `datasets.load_dataset` opens.

    Args:
        name: As `load_dataset` takes it.
        config: The data set's configuration, where it has several.
        image: The column of the pictures; None takes the only one of that kind.
        label: The column of the labels; None takes the only one of that kind.

    Raises:
        DataError: `datasets` is not installed, or fails; a column is not there or cannot be told.
    """
    datasets = _optional("datasets", "hf", "datasets")
    found = _told(lambda: datasets.load_dataset(name, config), f"data set {name}")
    if not hasattr(found, "keys"):
        raise DataError(f"data set {name} has no splits", "train, and maybe validation and test", "give all of it")
    splits = {_SPLITS.get(split.lower(), split.lower()): found[split] for split in found}
    if not splits:
        raise DataError(f"data set {name} is empty", "a split called train", "give another")
    features = next(iter(splits.values())).features
    image = _column(image, features, "Image", "--image", name)
    label = _column(label, features, "ClassLabel", "--label", name)
    names = getattr(features[label], "names", None)

    def read(split: str, positions: Sequence[int]) -> Iterator[Labelled]:
        for index in positions:
            where = f"{split} {index} of {name}"
            row = _told(lambda index=index: splits[split][int(index)], where)  # type: ignore[misc]
            yield _picture(row[image], where), plain_label(row[label], where)

    sizes = {split: len(rows) for split, rows in splits.items()}
    return Origin(f"{name}{f' ({config})' if config else ''}", sizes, read, tuple(names) if names else None)


def from_tfds(row: VtabTask, folder: str | None = None) -> Origin:
    """The benchmark's own source: TFDS fetches and prepares what is not there yet.

    Args:
        row: The task.
        folder: Where TFDS keeps its data; None is its own default.

    Raises:
        DataError: `tensorflow_datasets` is not installed, or fails.
    """
    tfds = _optional("tensorflow_datasets", "tfds", "tensorflow tensorflow-datasets")

    def prepared() -> Any:
        builder = tfds.builder(row.tfds, data_dir=folder)
        builder.download_and_prepare()
        return builder

    builder = _told(prepared, f"TFDS's {row.tfds}")
    label_of, pixels_of = LABELS.get(row.name, LABELS["label"]), PIXELS.get(row.name, PIXELS["image"])

    def read(split: str, positions: Sequence[int]) -> Iterator[Labelled]:
        if not isinstance(positions, range):
            raise TypeError("TFDS gives ranges alone")
        asked = f"{split}[{positions.start}:{positions.stop}]"
        examples = iter(_told(lambda: tfds.as_numpy(builder.as_dataset(split=asked)), f"{asked} of TFDS's {row.tfds}"))
        for index in positions:
            where = f"{split} {index} of TFDS's {row.tfds}"
            example = _told(lambda: next(examples), where)
            yield _picture(pixels_of(example), where), label_of(example)

    sizes = {name: int(split.num_examples) for name, split in builder.info.splits.items()}
    return Origin(f"TFDS {builder.info.full_name}", sizes, read, is_benchmarks=True)


def _picture(thing: Any, name: str) -> Image.Image:
    if isinstance(thing, np.ndarray) and thing.ndim == 3 and thing.shape[2] == 1:
        thing = thing[..., 0]
    if not isinstance(thing, (Image.Image, np.ndarray)):
        raise DataError(f"{name} is of type {type(thing).__name__}", "a picture", "name the column of the pictures")
    return decode_whole(thing, name)


def _column(given: str | None, features: Mapping[str, Any], kind: str, flag: str, name: str) -> str:
    if given is not None and given in features:
        return given
    fitting = [column for column, feature in features.items() if type(feature).__name__ == kind]
    if given is None and len(fitting) == 1:
        return fitting[0]
    problem = f"column {given!r}" if given is not None else f"{len(fitting)} columns of type {kind}"
    raise DataError(f"{problem} in {name}", f"one of {', '.join(fitting or features)}", f"name it with {flag}")


def _optional(module: str, origin: str, packages: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        given = f"--from {origin} needs the package {module} ({error})"
        raise DataError(given, "it installed", f"pip install {packages}") from None


def _told(call: Callable[[], Any], what: str) -> Any:
    """What a foreign library returns, or its error in one line: they raise of every kind."""
    try:
        return call()
    except StopIteration:
        raise DataError(f"{what} is missing", "as many as it says it has", "prepare it again") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{what}: {type(error).__name__}: {reason}", "data that can be opened", "check it") from error
