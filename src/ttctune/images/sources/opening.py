"""Which kind of data is this, and does it hold what training needs."""

from collections.abc import Callable, Collection, Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ttctune.errors import DataError
from ttctune.images.pictures import Picture, picture_name
from ttctune.images.sources.folder_tree import part_folders, read_folder_tree
from ttctune.images.sources.hold_out import hold_out
from ttctune.images.sources.image_files import image_files
from ttctune.images.sources.in_memory import parts_of_mapping, read_in_memory
from ttctune.images.sources.index_csv import INDEX, index_parts, read_index_csv
from ttctune.images.sources.shards import read_shards, shard_files
from ttctune.images.sources.source import PARTS, Parts, Source
from ttctune.images.sources.vtab_lists import list_files, read_vtab_lists


def open_source(
    data: Any,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    parts: Collection[str] = PARTS,
    classes: tuple[str, ...] | None = None,
) -> Source:
    """Find pictures and labels; open none of them.

    A folder is read by its index.csv; else by VTAB's lists; else as shards; else as train, val and test folders
    with a folder per class; else as a folder per class. Where there is no val part, a share of train is held out,
    unless only the test part and val are asked for.

    Args:
        data: A folder, a shard, a pattern of shards, a pair (images, labels), a map-style torch data set, a
            mapping of "train", "val" and "test" to pairs or data sets, or a source whose parts are settled: of that
            nothing is held out.
        val_fraction: Share of train to hold out where there is no val part, in [0, 1); 0 holds out nothing.
        seed: Decides which images are held out.
        parts: The parts wanted; the pictures of others are not looked at.
        classes: Class names in label order, as an adapter knows them; None finds them in the data.

    Returns:
        The wanted parts that exist.

    Raises:
        DataError: The data is not as expected.
    """
    if not 0.0 <= val_fraction < 1.0:
        advice = "0.2 holds out a fifth; 0 holds out nothing"
        raise DataError(f"val_fraction is {val_fraction!r}", "0 or more and less than 1", advice)
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise DataError(f"the parts asked for are {list(parts)}", "some of train, val and test", "correct them")
    asked = frozenset(parts)
    settled = isinstance(data, Source)
    may_hold_out = not settled and val_fraction > 0 and ("train" in asked or asked == {"val"})
    wanted = asked | {"train", "val"} if may_hold_out else asked
    found, names = _read(data, classes, wanted)
    strict = classes is None
    if strict and len(names) < 2:
        raise DataError(f"{_name(data)} has one class, {names[0]!r}", "at least two", "add images of another class")
    val_note = "val part of the data" if "val" in found else "no val part"
    held_out = False
    if may_hold_out and "val" not in found and "train" in found:
        found["train"], val = hold_out(found["train"], names, val_fraction, seed, strict=strict)
        if len(val):
            found["val"] = val
            held_out = True
            val_note = f"{100 * val_fraction:g} % of train, held out"
    kept = {part: found[part] for part in PARTS if part in found and part in asked}
    if "train" in asked and "train" not in kept:
        raise DataError(f"{_name(data)} has no train part", "one", "add it")
    if not kept:
        given = f"{_name(data)} has no {' and no '.join(part for part in PARTS if part in asked)} part"
        raise DataError(given, "at least one of them", "add it, or ask for another part")
    return Source(kept, names, val_note, held_out)


def present_parts(data: Any) -> tuple[str, ...]:
    """Names of the parts that the data has of its own, before anything is held out; no part is read.

    Raises:
        DataError: The data is not as expected.
    """
    if isinstance(data, Source):
        return tuple(part for part in PARTS if part in data.parts)
    if isinstance(data, Mapping):
        return parts_of_mapping(data)
    if isinstance(data, (str, Path)):
        found = _layout(Path(data)).parts(Path(data))
        return tuple(part for part in PARTS if part in found)
    return ("train",)


class Layout(NamedTuple):
    """A way in which images lie on a disk.

    Attributes:
        is_here: Whether the data is laid out so.
        parts: The names of the parts it has, from a look at as little as possible.
        read: Pictures and labels of the parts wanted, and the classes.
    """

    is_here: Callable[[Path], object]
    parts: Callable[[Path], Container[str]]
    read: Callable[[Path, tuple[str, ...] | None, frozenset[str]], Parts]


#: The first that is there counts.
LAYOUTS = (
    Layout(lambda data: (data / INDEX).is_file(), index_parts, read_index_csv),
    Layout(list_files, list_files, read_vtab_lists),
    Layout(shard_files, shard_files, read_shards),
    Layout(Path.is_dir, part_folders, read_folder_tree),
)


def holds_data(folder: Path) -> bool:
    """Whether a folder has a list, shards or images in it; whether they can be read is another question.

    Raises:
        DataError: Shards that are compressed, or a folder that cannot be read.
    """
    return any(layout.is_here(folder) for layout in LAYOUTS[:-1]) or bool(image_files(folder))


def _layout(data: Path) -> Layout:
    found = next((layout for layout in LAYOUTS if layout.is_here(data)), None)
    if found is None and data.exists():
        advice = "unpack it, or give the folder around it"
        raise DataError(f"data {data} is a file", "a folder of images, or a .tar shard", advice)
    if found is None:
        raise DataError(f"data folder {data} does not exist", "a folder of images", "check the path")
    return found


def pictures_with_classes(data: Path) -> tuple[list[Picture], list[dict[str, str]]]:
    """Every picture of a data folder (or of shards), and of each its name, its part and the name of its class.

    Returns:
        Pictures, and rows with the keys file, part and class.

    Raises:
        DataError: The data is not as expected.
    """
    source = open_source(data, val_fraction=0.0, parts=present_parts(data))
    pictures: list[Picture] = []
    rows = []
    for part, images in source.parts.items():
        pictures += images.pictures
        rows += [
            {"file": picture_name(images.pictures, i), "part": part, "class": source.classes[label]}
            for i, label in enumerate(images.labels)
        ]
    return pictures, rows


def _read(data: Any, classes: tuple[str, ...] | None, wanted: frozenset[str]) -> Parts:
    if isinstance(data, Source):
        if classes not in (None, data.classes):
            raise DataError("a source with other classes", "those that were asked for", "open its data with them")
        return {part: images for part, images in data.parts.items() if part in wanted}, data.classes
    if not isinstance(data, (str, Path)):
        return read_in_memory(data, classes, wanted)
    return _layout(Path(data)).read(Path(data), classes, wanted)


def _name(data: Any) -> str:
    return f"data folder {data}" if isinstance(data, (str, Path)) else "the data"
