"""A task of a suite, and its images as a way of scoring divides them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from ttctune.errors import DataError
from ttctune.images import PartSource, Source, picture_bytes, picture_name

#: "val": train on train, score on val. "test": train on train and val, score on test. "cv": train on all folds of
#: train and val but one, score on that one; test stays closed.
Split = Literal["val", "test", "cv"]
SPLITS: tuple[Split, ...] = ("val", "test", "cv")


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: Of the task; unique in its suite.
        group: Such as "natural"; "none" where nobody says.
        classes: How many, where the suite knows; labels are then 0 to classes - 1, also where train lacks one.
        path: A folder that `open_images` reads.
    """

    name: str
    group: str
    classes: int | None
    path: Path


@dataclass(frozen=True, eq=False)
class TaskData:
    """The images of one job; none is decoded yet, and those that the split does not name are not opened.

    Attributes:
        data: What to train on, for `run.prepare`: a train part, from which nothing will be held out.
        scored: What to score on: a test part, to open with `open_images(..., parts=("test",))`.
        parts: Part of the task -> its images: all that the split touches, the same ones for every fold.
        root: The task's folder.
    """

    data: Source
    scored: Source
    parts: Mapping[str, PartSource] = field(repr=False)
    root: Path

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.data.classes

    @property
    def labels(self) -> list[int]:
        """Of the scored images, in their order."""
        return self.scored.parts["test"].labels

    @property
    def names(self) -> tuple[str, ...]:
        """Files of the scored images, relative to the task's folder where they lie in it."""
        pictures = self.scored.parts["test"].pictures
        around = f"{self.root}/"
        return tuple(picture_name(pictures, index).removeprefix(around) for index in range(len(pictures)))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the classes, and over part, label and file content of every image that the split touches.

        Names of files do not count, their order does. Every file is read once.

        Raises:
            DataError: A file cannot be read.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for name, part in self.parts.items():
            for index, label in enumerate(part.labels):
                digest.update(f"\n{name} {label} ".encode())
                digest.update(content_digest(part, index))
        return digest.hexdigest()


def check_unicode(name: str, what: str) -> None:
    """Refuse the name of a folder that no record can hold.

    Raises:
        DataError: It is no Unicode.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{what} {name!r}", "names that are Unicode", "rename its folder") from None


def content_digest(part: PartSource, index: int) -> bytes:
    """SHA-256 of one picture's file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return hashlib.sha256(picture_bytes(part.pictures[index])).digest()
    except OSError as error:
        given = f"{picture_name(part.pictures, index)} cannot be read ({error.strerror or error})"
        raise DataError(given, "a readable image", "check it") from None
