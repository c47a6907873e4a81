"""Is a copy of VTAB-1k what it should be: 19 findings, from its lists first, then from looks at its images."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ttctune.bench.suites.copies import describe_copy, encoding_of
from ttctune.bench.suites.doubles import doubled_files, doubled_pictures
from ttctune.bench.suites.splits import data_of
from ttctune.bench.suites.task import Task
from ttctune.bench.suites.vtab import BOTH, LISTS, VTAB, VtabTask, folder_of, folders_in, where_to_get
from ttctune.errors import DataError
from ttctune.images import PartSource, decode_whole, picture_name
from ttctune.images.sources.vtab_lists import read_list, read_vtab_lists

#: Images of each part that are opened without `thorough`.
SAMPLES = 8

State = Literal["ok", "wrong", "missing"]


@dataclass
class Finding:
    """What was found of one task.

    Attributes:
        task: Its name.
        group: natural, specialised or structured.
        state: "ok"; "wrong", with problems; or "missing", with where to get it.
        folder: Where it lies.
        images: Part -> number of images listed; a list that cannot be read is left out.
        expected: Part -> number of images that VTAB-1k has.
        classes: How many different labels were seen.
        expected_classes: How many there are.
        source: Where the data set is described.
        digest: SHA-256 over labels and file names of the lists, to compare copies by.
        data_digest: The digest that records of the split `test` bear, over labels and contents of files; only a
            thorough look takes it.
        copy: How the images are stored, in words.
        lossy: Whether the copy lost something by that.
        problems: What is wrong, a line each.
        notes: What is worth knowing and not wrong.
    """

    task: str
    group: str
    state: State
    expected: dict[str, int]
    expected_classes: int
    source: str
    folder: str | None = None
    images: dict[str, int] = field(default_factory=dict)
    classes: int = 0
    digest: str | None = None
    data_digest: str | None = None
    copy: str | None = None
    lossy: bool | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_vtab(
    root: Path, *, thorough: bool = False, progress: Callable[[str], None] | None = None
) -> tuple[Finding, ...]:
    """Look at a copy of VTAB-1k in the community's layout.

    Lists are read whole, listed files have to be there, and files of equal size in two parts are compared. Of each part
    a few images are opened.

    Args:
        root: The folder around the 19.
        thorough: Decode every image, compare pixels instead of files, and take the digest over all contents.
        progress: Called with the name of each task before it is looked at.

    Returns:
        A finding for each of the 19, in the order of the benchmark's tables.

    Raises:
        DataError: `root` is no folder.
    """
    folders_in(root)
    findings = []
    for row in VTAB.values():
        if progress is not None:
            progress(row.name)
        findings.append(_check(row, root, thorough))
    return tuple(findings)


def foreign_folders(root: Path) -> list[str]:
    """Names of folders below `root` that are none of the 19, nor an alias."""
    known = {name for row in VTAB.values() for name in (row.name, *row.aliases)}
    return [path.name for path in folders_in(root) if path.name.lower() not in known]


def _check(row: VtabTask, root: Path, thorough: bool) -> Finding:
    found = Finding(row.name, row.group, "ok", row.sizes, row.classes, row.page)
    try:
        folder = folder_of(row, root)
    except DataError as error:
        found.state, found.problems = "wrong", [str(error)]
        return found
    if folder is None:
        found.state, found.problems = "missing", [f"missing; {where_to_get(row, root)} writes it"]
        return found
    found.folder = str(folder)
    parts = _check_lists(found, row, folder)
    _check_images(found, row, folder, parts, thorough)
    found.state = "wrong" if found.problems else "ok"
    return found


def _check_lists(found: Finding, row: VtabTask, folder: Path) -> dict[str, PartSource]:
    """What every list holds; of each, the first thing that is wrong."""
    names = tuple(str(label) for label in range(row.classes))
    parts: dict[str, PartSource] = {}
    for part, name in LISTS.items():
        if not (folder / f"{name}.txt").is_file():
            found.problems.append(f"{name}.txt is missing")
            continue
        try:
            parts |= read_vtab_lists(folder, names, frozenset({part}))[0]
        except DataError as error:
            found.problems.append(str(error))
    found.images = {part: len(images) for part, images in parts.items()}
    if wrong := [part for part, number in found.images.items() if number != row.sizes[part]]:
        listed = ", ".join(f"{found.images[part]:,} {part}" for part in wrong)
        found.problems.append(f"{listed} images, not {', '.join(f'{row.sizes[part]:,}' for part in wrong)}")
    labels = {label for images in parts.values() for label in images.labels}
    found.classes = len(labels)
    if parts.keys() == LISTS.keys():
        if len(labels) < row.classes:
            found.problems.append(f"{len(labels)} of {row.classes} classes occur")
        if (both := folder / f"{BOTH}.txt").is_file():
            found.problems += _check_both(both, parts)
        else:
            found.notes.append(f"{both.name} is missing, which other programs read")
        found.digest = _digest_of_lists(folder, parts)
    return parts


def _check_both(path: Path, parts: dict[str, PartSource]) -> Iterator[str]:
    """The list of train and val together is for other programs; it may be in another order, or name copies."""
    try:
        listed = Counter(label for _, _, label in read_list(path))
    except DataError as error:
        yield str(error)
        return
    if listed != Counter(parts["train"].labels + parts["val"].labels):
        yield f"{path.name} does not list the labels of {LISTS['train']}.txt and {LISTS['val']}.txt"


def _digest_of_lists(folder: Path, parts: dict[str, PartSource]) -> str:
    digest = hashlib.sha256()
    for part, images in parts.items():
        for index, label in enumerate(images.labels):
            name = picture_name(images.pictures, index).removeprefix(f"{folder}/")
            digest.update(f"{part} {label} {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _check_images(found: Finding, row: VtabTask, folder: Path, parts: dict[str, PartSource], thorough: bool) -> None:
    files = {part: [picture_name(p.pictures, i) for i in range(len(p))] for part, p in parts.items()}
    looked_at = [file for some in files.values() for file in (some if thorough else _spread(some))]
    encodings = {encoding for file in looked_at if (encoding := encoding_of(file))}
    if encodings:
        found.copy, found.lossy = describe_copy(encodings, row.original)
    try:
        if not thorough:
            for file in looked_at:
                decode_whole(Path(file), file)
        pictures = {part: images.pictures for part, images in parts.items()}
        doubles = list((doubled_pictures if thorough else doubled_files)(pictures))
        (found.notes if row.repeats else found.problems).extend(doubles)
        if thorough and parts.keys() == LISTS.keys():
            found.data_digest = data_of(Task(row.name, row.group, row.classes, folder), "test").digest
    except DataError as error:
        found.problems.append(str(error))
    except OSError as error:
        found.problems.append(f"{error.filename or folder}: {error.strerror or error}")


def _spread(files: list[str]) -> list[str]:
    """A few of them, from the first to the last."""
    step = max(1, len(files) // SAMPLES)
    return files[::step][:SAMPLES]
