"""A folder per class, with or without train, val and test folders above."""

from pathlib import Path

from ttctune.errors import DataError
from ttctune.images.pictures import FilePictures
from ttctune.images.sources.image_files import data_folders, image_files
from ttctune.images.sources.labels import unknown_class_error
from ttctune.images.sources.source import Parts, PartSource

#: Words, in lower case, that name a part, alone or in the name of a shard.
PART_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
#: What a part's folder may be called.
PART_FOLDERS = {**PART_WORDS, "training": "train", "testing": "test"}

_LAYOUT = "train/<class>/, val/<class>/, test/<class>/ or <class>/ with images inside"


def read_folder_tree(folder: Path, classes: tuple[str, ...] | None, wanted: frozenset[str]) -> Parts:
    """Read a tree of class folders; a tree without part folders is all train.

    Args:
        folder: An existing folder.
        classes: Class names in label order; None takes the names of train's folders, sorted.
        wanted: Parts to list; the files of others are not looked at.

    Returns:
        The parts and the class names.

    Raises:
        DataError: No class folders, no images, an unknown class, or two folders for one part.
    """
    folders = part_folders(folder)
    if "train" not in folders and classes is None:
        raise DataError(f"{folder} has no train folder", _LAYOUT, "add train/ with a folder per class")
    names = classes or tuple(_class_folders(folders["train"]))
    parts = {
        part: _read_part(path, names, every_class=part == "train" and classes is None)
        for part, path in folders.items()
        if part in wanted
    }
    return parts, names


def part_folders(folder: Path) -> dict[str, Path]:
    """Folders of parts; a tree that has none is all train, so that a class may be called "train" too.

    Raises:
        DataError: Two folders for one part, or one that holds classes that lie beside it too.
    """
    inside = data_folders(folder)
    named = [path for path in inside if path.name.lower() in PART_FOLDERS]
    train = any(path.name.lower() == "train" and data_folders(path) for path in named)
    if not train and len(named) < len(inside):  # "training" beside classes may well be one
        _check_no_part(folder, named, {path.name for path in inside})
        return {"train": folder}
    found: dict[str, Path] = {}
    for path in named:
        part = PART_FOLDERS[path.name.lower()]
        if part in found:
            given = f"{folder} has two folders for the {part} part, {found[part].name} and {path.name}"
            raise DataError(given, "one", "keep one of them")
        found[part] = path
    return found or {"train": folder}


def _check_no_part(folder: Path, named: list[Path], beside: set[str]) -> None:
    """Refuse to take a part for a class: it holds the folders of classes that lie beside it."""
    for path in named:
        if both := sorted(beside & {inner.name for inner in data_folders(path)}):
            given = f"{folder} has the class {both[0]} beside {path.name}, and in it"
            raise DataError(given, _LAYOUT, "put what is to be trained on into train/, or rename the folder")


def _class_folders(folder: Path) -> list[str]:
    names = [path.name for path in data_folders(folder)]
    if not names:
        loose = "images but no class folders" if image_files(folder) else "no images"
        raise DataError(f"{folder} holds {loose}", _LAYOUT, "put the images of each class in a folder of its own")
    return names


def _read_part(folder: Path, classes: tuple[str, ...], every_class: bool) -> PartSource:
    position = {name: i for i, name in enumerate(classes)}
    pictures: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    for name in _class_folders(folder):
        files = image_files(folder / name)
        if files and name not in position:
            raise unknown_class_error(name, classes, str(folder))
        if not files:
            empty.append(name)
            continue
        pictures += map(str, files)
        labels += [position[name]] * len(files)
    if not pictures:
        raise DataError(f"{folder} holds no images", _LAYOUT, "add images (.jpg, .png, ...)")
    if every_class and empty:
        given = f"class folder {folder / empty[0]} holds no images"
        raise DataError(given, "at least one image per class", "add images or remove the folder")
    return PartSource(FilePictures(pictures), labels)
