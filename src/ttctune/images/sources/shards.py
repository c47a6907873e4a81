"""Shards as WebDataset writes them: tar files whose members KEY.jpg and KEY.cls (or KEY.json) are one sample."""

import glob
import json
import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from ttctune.errors import DataError
from ttctune.images.pictures import FileSlice, LazyPictures, Picture
from ttctune.images.sources.folder_tree import PART_FOLDERS, PART_WORDS
from ttctune.images.sources.image_files import IMAGE_ENDINGS, data_folders, files_in, read_lines
from ttctune.images.sources.labels import classes_of, multi_label_error, named, numbered, plain_labels
from ttctune.images.sources.source import Parts, PartSource
from ttctune.images.sources.tar_members import Member, Tar

LARGEST_LABEL = 1 << 20
_TAR = ".tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_LABELS = (".cls", ".json")
_SAMPLE = "a picture and a .cls or .json of the same name, next to each other"
_CLASS_LISTS = ("classes.txt", "classes.json")


class ShardPictures(LazyPictures):
    """Pictures inside shards: of each, the place where its bytes lie."""

    def __init__(self) -> None:
        self._shards: list[Path] = []
        self._shard, self._offset, self._size = array("l"), array("q"), array("q")
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def add(self, shard: Path, member: Member) -> None:
        """Append a picture of this shard."""
        if not self._shards or self._shards[-1] != shard:
            self._shards.append(shard)
        self._shard.append(len(self._shards) - 1)
        self._offset.append(member.offset)
        self._size.append(member.size)
        self._names.append(member.name)

    def picture(self, index: int) -> Picture:
        """Where its bytes lie."""
        return FileSlice(self._shards[self._shard[index]], self._offset[index], self._size[index])

    def name(self, index: int) -> str:
        """The shard, and the member in it."""
        return f"{self._shards[self._shard[index]]}: {self._names[index]}"


def shard_files(data: Path) -> dict[str, list[Path]]:
    """Which shards belong to which part; empty where the data is no shards.

    Args:
        data: A folder of shards alone; a folder of part folders with shards in them; one shard; or a pattern of shards
            (with *, ? or [...]). Outside of part folders, a part's name in the name of a shard says where it belongs
            (`train-000000.tar`); shards without one are train.

    Raises:
        DataError: The shards are compressed, or the name of one has two parts in it.
    """
    if data.is_dir():
        inside = data_folders(data)
        if not inside:
            return _by_name(_tars(files_in(data)))
        if all(path.name.lower() in PART_FOLDERS and not data_folders(path) for path in inside):
            found = {PART_FOLDERS[path.name.lower()]: _tars(files_in(path)) for path in inside}
            return {part: files for part, files in found.items() if files}
        return {}
    if data.is_file():
        return _by_name(_tars([data]))
    return _by_name(_tars(path for name in sorted(glob.glob(str(data))) if (path := Path(name)).is_file()))


def read_shards(data: Path, classes: tuple[str, ...] | None, wanted: frozenset[str]) -> Parts:
    """Read the headers and the labels of shards, once; their pictures stay where they are.

    Members are in the order of the shards' names, then in that of each shard. Labels are whole numbers or class names;
    `classes.txt` (a name a line) or `classes.json` (a list of names) beside the shards, or above the part folders,
    gives numbers their names.

    Args:
        data: As in `shard_files`.
        classes: Class names in label order; None takes those of the list, or of train's labels: names sorted, numbers
            as they are.
        wanted: Parts to read; the shards of others are not opened.

    Returns:
        The parts and the class names.

    Raises:
        DataError: A shard is compressed, cut short or damaged; a key lacks its picture or its label; a label is wrong.
    """
    shards = shard_files(data)
    if "train" not in shards and classes is None:
        raise DataError(f"{data} has no train shards", "some, such as train-000000.tar", "add them")
    listed = _listed_classes(data if data.is_dir() else data.parent)
    needed = wanted | {"train"} if classes is None and listed is None else wanted
    read = {part: _read_part(files, f"the {part} shards of {data}") for part, files in shards.items() if part in needed}
    if listed is not None:
        read = {part: (pictures, named(labels, listed, str(data))) for part, (pictures, labels) in read.items()}
    if classes is None:
        classes = listed or classes_of(read["train"][1], f"the train shards of {data}")
    parts = {
        part: PartSource(pictures, numbered(labels, classes, f"the {part} shards of {data}"))
        for part, (pictures, labels) in read.items()
        if part in wanted
    }
    return parts, classes


def _tars(files: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in files:
        if path.name.lower().endswith(_COMPRESSED):
            advice = "unpack it with gunzip, unxz or the like; pictures are compressed already"
            raise DataError(f"shard {path} is compressed", "an uncompressed .tar", advice)
        if path.suffix.lower() == _TAR:
            found.append(path)
    return found


def _by_name(files: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in files:
        words = re.findall(r"[a-z]+", path.stem.lower())
        parts = {PART_WORDS[word] for word in words if word in PART_WORDS} or {"train"}
        if len(parts) > 1:
            raise DataError(f"the name of shard {path} says {' and '.join(sorted(parts))}", "one part", "rename it")
        found.setdefault(parts.pop(), []).append(path)
    return found


def _read_part(files: list[Path], name: str) -> tuple[ShardPictures, list[int] | list[str]]:
    pictures = ShardPictures()
    labels: list[int | str] = []
    for path in files:
        with Tar(path) as tar:
            for picture, label in _samples(tar):
                pictures.add(path, picture)
                labels.append(label)
    if not labels:
        raise DataError(f"{name} hold no images", _SAMPLE, "add samples")
    return pictures, plain_labels(labels, f"the labels of {name}")


def _samples(tar: Tar) -> Iterator[tuple[Member, int | str]]:
    visible = (member for member in tar.members() if not member.name.rpartition("/")[2].startswith("."))
    for key, members in groupby(visible, lambda member: _key_and_field(member.name)[0]):
        fields: dict[str, Member] = {}
        for member in members:
            field = _key_and_field(member.name)[1]
            if field in fields:
                raise DataError(f"shard {tar.path} holds {member.name!r} twice", _SAMPLE, "write it again")
            fields[field] = member
        images = [field for field in fields if field in IMAGE_ENDINGS]
        labels = [field for field in _LABELS if field in fields]
        if not images and not labels:
            _check_no_picture(tar, key, fields)
            continue
        if len(images) != 1 or not labels:
            problem = "no label" if images and not labels else "no picture" if not images else f"{len(images)} pictures"
            advice = "correct the sample, or write the shard again with the files of a key next to each other"
            raise DataError(f"key {key!r} in shard {tar.path} has {problem}", _SAMPLE, advice)
        yield fields[images[0]], _label(tar, fields[labels[0]])


def _check_no_picture(tar: Tar, key: str, fields: Iterable[str]) -> None:
    """Refuse to pass over pictures whose names hold a dot too many."""
    for field in fields:
        if field.endswith(IMAGE_ENDINGS):
            given = f"shard {tar.path} holds {key + field!r}, whose key ends at its first dot: {key!r}"
            raise DataError(given, _SAMPLE, "write it again, without dots in the keys")


def _key_and_field(name: str) -> tuple[str, str]:
    """As WebDataset splits: at the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return folder + slash + stem, dot + ending.lower()


def _label(tar: Tar, member: Member) -> int | str:
    where = f"{member.name!r} in shard {tar.path}"
    if member.size > LARGEST_LABEL:
        raise DataError(f"{where} is {member.size} bytes long", f"at most {LARGEST_LABEL}", "write a label there")
    try:
        text = tar.content(member).decode("utf-8-sig").strip()
        value = json.loads(text) if member.name.lower().endswith(".json") else text
    except (ValueError, RecursionError):
        raise DataError(f"{where} is neither text nor JSON", "a label in UTF-8", "write it again") from None
    if isinstance(value, dict):
        value = value.get("label", value.get("class"))
    return _plain(value, where)


def _plain(value: Any, where: str) -> int | str:
    if isinstance(value, list) or (isinstance(value, str) and re.fullmatch(r"-?\d+([\s;|,]+-?\d+)+", value)):
        raise multi_label_error(f"{where} holds {str(value)[:80]!r}")
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
        return int(value)
    if isinstance(value, str) and value.isprintable() and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9:
        return value
    expected = "a whole number, a class name, or in JSON an object with one of them as label or class"
    raise DataError(f"{where} holds {str(value)[:80]!r}", expected, "write the label there")


def _listed_classes(folder: Path) -> tuple[str, ...] | None:
    found = [folder / name for name in _CLASS_LISTS if (folder / name).is_file()]
    if not found:
        return None
    if len(found) > 1:
        raise DataError(f"{folder} has {' and '.join(_CLASS_LISTS)}", "one of them", "remove the other")
    text = "".join(read_lines(found[0])).strip()
    names: Any = text.split("\n")
    if found[0].suffix == ".json":
        try:
            names = json.loads(text)
        except (ValueError, RecursionError):
            names = []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        names = []
    names = [name.strip() for name in names]
    if not names or not all(names) or len(set(names)) < len(names):
        expected = "the names of the classes in label order, each once: one a line, or a JSON list"
        raise DataError(f"{found[0]} is no such list", expected, "correct it")
    return tuple(names)
