"""One folder in the place of another, in one step; and out of the way."""

import ctypes
import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from ttctune.files import cannot_write, sync_folder
from ttctune.output_folder.contents import beside, state_of
from ttctune.output_folder.ownership import locked

_RENAME_EXCHANGE = 2  # of renameat2, Linux
_RENAME_SWAP = 2  # of renamex_np, macOS
_AT_FDCWD = -100


def publish(made: Path, folder: Path) -> None:
    """Put the whole folder `made` in the place of `folder`, in one step; what was there is removed.

    Raises:
        FolderError: The file system refuses.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            _exchange(made, folder)
            shutil.rmtree(made, ignore_errors=True)
        else:
            os.replace(made, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise cannot_write(folder, error) from error


def discard(part: Path, folder: Path) -> None:
    """Take a folder out of `folder` in one step, then remove it; where it cannot be moved, remove it in its place."""
    gone = beside(folder)
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        os.replace(part, gone)
    for left_over in (gone, part):
        shutil.rmtree(left_over, ignore_errors=True)


def put_back(folder: Path) -> None:
    """Put back the old folder of an exchange in three steps that a process did not live to end.

    Raises:
        FolderError: Another process is in the middle of it.
    """
    if _aside(folder).is_dir() and not folder.exists():
        with locked(beside(folder)):  # which whoever exchanges the two owns
            os.replace(_aside(folder), folder)


def clear_beside(folder: Path) -> None:
    """Remove what a process that died has left beside `folder`, unless it is a run that can be resumed.

    Raises:
        FolderError: Another process works there.
    """
    put_back(folder)
    place = beside(folder)
    if place.is_dir() and state_of(place) != "unfinished":
        with locked(place):
            shutil.rmtree(place, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders in one step where the system can (Linux, macOS), else in three."""
    paths, library = (os.fsencode(one), os.fsencode(other)), ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(*paths, _RENAME_SWAP)
    else:
        failed = None
    if failed == 0:
        return
    if failed and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    aside = _aside(other)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(other, aside)
    os.replace(one, other)
    os.replace(aside, one)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.ttctune-old")
