"""New folders, and one owner at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from ttctune.errors import FolderError
from ttctune.files import cannot_write


@contextmanager
def nothing_left_empty(folder: Path) -> Iterator[None]:
    """Take a folder and its parents away again, as far as they were made inside and hold nothing."""
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in absent:
            remove_empty(path)


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder NAME, or NAME-2, ..., that is new and so nobody else's; gone at the end where it is still empty.

    Raises:
        FolderError: It cannot be made.
    """
    with nothing_left_empty(parent):
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            given = f"{parent} is a {'link to nothing' if parent.is_symlink() else 'file'}"
            raise FolderError(given, "a folder, or nothing", "remove it, or choose another -o") from error
        except OSError as error:
            raise cannot_write(parent, error) from error
        for number in count(1):
            folder = parent / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
            except OSError as error:
                raise cannot_write(folder, error) from error
        try:
            yield folder
        finally:
            remove_empty(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own a folder until this process leaves or dies; made where it is absent.

    Raises:
        FolderError: Another process owns it, or it cannot be made.
    """
    absent = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise in_use(folder) from error
        except OSError as error:
            if absent:
                remove_empty(folder)
            raise cannot_write(folder, error) from error
        if not _is_at(handle, folder):
            raise in_use(folder)  # its owner put another folder in this place and left
        yield
    finally:
        os.close(handle)


def in_use(folder: Path) -> FolderError:
    """The error of a second owner."""
    return FolderError(f"{folder} is in use by another run", "a folder of one's own", "wait, or choose another -o")


def remove_empty(folder: Path) -> None:
    """Take a folder away where nothing lies in it."""
    with suppress(OSError):
        folder.rmdir()


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(folder))
    except OSError:
        return False
