"""Files that are written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from ttctune.errors import FolderError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write beside `path`, flush to the disk, then take its place in one step.

    Raises:
        FolderError: The disk is full or the folder cannot be written; `path` is as it was.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


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
