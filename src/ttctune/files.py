"""Files that are written whole or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ttctune.errors import FolderError, TtcError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write beside `path`, flush to the disk, then take its place in one step.

    Raises:
        FolderError: The disk is full or the folder cannot be written; `path` is as it was.
    """
    with replaced(path) as file:
        file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of `path` in one step, or vanishes where anything fails.

    Raises:
        FolderError: The disk is full or the folder cannot be written; `path` is as it was.
    """
    beside = path.with_name(path.name + ".part")
    try:
        file = _owned(beside, path)
    except OSError as error:
        raise error if isinstance(error, TtcError) else cannot_write(path, error) from error
    with file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(beside, path)
            sync_folder(path.parent)
        except BaseException as error:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            with suppress(OSError):  # which would try again what has just failed, and hide it
                file.close()
            if isinstance(error, OSError) and not isinstance(error, TtcError):
                raise cannot_write(path, error) from error
            raise


def _owned(beside: Path, path: Path) -> BinaryIO:
    """The empty file `beside`, which nobody else writes into until it is closed."""
    file = open(beside, "w+b", opener=lambda name, flags: os.open(name, flags & ~os.O_TRUNC, 0o666))  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owned = os.path.samestat(os.fstat(file.fileno()), os.stat(beside))
    except (BlockingIOError, FileNotFoundError):
        owned = False
    except OSError:  # a file system without locks
        owned = True
    if not owned:
        file.close()
        given = f"{path} is being written by another process"
        raise FolderError(given, "a file of one's own", "wait, or choose another -o")
    file.truncate(0)
    return file


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file directly inside a folder, and its entries, to the disk.

    Raises:
        OSError: The disk is full, or fails.
    """
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def cannot_write(path: Path, error: OSError) -> FolderError:
    """The error for a file or folder that could not be written."""
    reason = (error.strerror or str(error)).lower()
    return FolderError(f"cannot write {path}: {reason}", "a folder with room that can be written", "choose another -o")
