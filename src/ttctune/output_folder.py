"""Who may write into an output folder, and how a finished one is replaced: one owner, old or new, never half."""

import ctypes
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import safetensors

from ttctune.errors import FolderError
from ttctune.files import cannot_write, sync_folder, write_atomically

CHECKPOINT = "checkpoint"
RUN = f"{CHECKPOINT}/run.json"
#: File -> key that shows a finished folder to be ours: an adapter, or a merged model.
MARKS = {"adapter.json": "ttctune_format", "config.json": "merged_by_ttctune"}

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def state_of(folder: Path) -> str:
    """The state: "empty" (or absent), "unfinished" or "finished" (ours), or "foreign"."""
    if not folder.exists():
        return "empty"
    if not folder.is_dir():
        return "foreign"
    if (folder / RUN).is_file():
        return "unfinished"
    if any(_has_mark(folder / name, mark) for name, mark in MARKS.items()):
        return "finished"
    return (
        "empty" if _holds_only(folder, CHECKPOINT) and _holds_only(folder / CHECKPOINT, "run.json.part") else "foreign"
    )


@contextmanager
def claimed(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Own the folder in which a run may work: `folder`, or one beside it that will replace it.

    Args:
        folder: Made where it is absent.
        resume: Take the unfinished run that is there.
        overwrite: Work beside what ttctune wrote there.

    Raises:
        FolderError: Another process owns it; or it is not ours, is finished (without `overwrite`), or is unfinished
            (without `resume`); or it cannot be made.
    """
    if not folder.is_dir():
        _working_folder(folder, resume, overwrite)  # what is refused is refused before a folder is made
    with ExitStack() as stack:
        stack.enter_context(locked(folder))
        working = _working_folder(folder, resume, overwrite)
        if working != folder:
            stack.enter_context(locked(working))
        yield working


def _working_folder(folder: Path, resume: bool, overwrite: bool) -> Path:
    state = state_of(folder)
    if state == "foreign":
        raise _not_ours(folder)
    beside = folder.with_name(f".{folder.name}.new")
    if resume:
        for working in (folder, beside):
            if state_of(working) == "unfinished":
                return working
        raise FolderError(f"{folder} holds no unfinished run", "one to resume", "leave --resume out")
    if state == "empty":
        return folder
    if overwrite:
        if state_of(beside) == "foreign":
            raise FolderError(f"{beside} is not ttctune's", "nothing in this place", "remove it")
        return beside
    if state == "finished":
        raise FolderError(f"{folder} is finished", "an absent or empty folder", "use --overwrite or another -o")
    raise FolderError(
        f"{folder} holds an unfinished run",
        "an absent or empty folder",
        "add --resume to go on, or --overwrite",
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own a folder until this process leaves or dies; made where it is absent.

    Raises:
        FolderError: Another process owns it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderError(
                f"{folder} is in use by another run", "a folder of one's own", "wait, or choose another -o"
            ) from error
        except OSError as error:
            raise cannot_write(folder, error) from error
        yield
    finally:
        os.close(handle)


def begin(folder: Path, run: dict[str, Any]) -> None:
    """Empty a folder that `claimed` gave, and mark it as an unfinished run.

    Raises:
        FolderError: It cannot be written.
    """
    try:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (folder / CHECKPOINT).mkdir()
    except OSError as error:
        raise cannot_write(folder, error) from error
    write_atomically(folder / RUN, json.dumps(run, indent=2, sort_keys=True) + "\n")


def read_run(folder: Path) -> dict[str, Any]:
    """What `begin` wrote.

    Raises:
        FolderError: It is damaged.
    """
    try:
        run = json.loads((folder / RUN).read_text())
        if not isinstance(run, dict):
            raise ValueError("not a mapping")
    except (ValueError, OSError) as error:
        raise FolderError(f"{folder / RUN} is damaged ({error})", "a whole file", "use --overwrite") from error
    return run


def finish(working: Path, folder: Path) -> None:
    """Put the folder in its place, then take the checkpoint away: a run killed in between is still resumable.

    Raises:
        FolderError: The file system refuses.
    """
    if working != folder:
        publish(working, folder)
    try:
        (folder / RUN).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def publish(made: Path, folder: Path) -> None:
    """Put the whole folder `made` in the place of `folder`, in one step; what was there is removed.

    Raises:
        FolderError: The file system refuses.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            _exchange(made, folder)
            shutil.rmtree(made)
        else:
            os.replace(made, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise cannot_write(folder, error) from error


@contextmanager
def written_whole(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder to write into, which becomes `folder` at the end, or vanishes where anything fails.

    Raises:
        FolderError: `folder` is not ours, or holds something of ours and `overwrite` is not given.
    """
    folder = folder.resolve()
    state = state_of(folder)
    if state == "foreign":
        raise _not_ours(folder)
    if state == "unfinished":
        raise FolderError(f"{folder} holds an unfinished run", "an absent or empty folder", "choose another -o")
    if state == "finished" and not overwrite:
        raise FolderError(f"{folder} is taken", "an absent or empty folder", "use --overwrite or another -o")
    made = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield made
        publish(made, folder)
    except safetensors.SafetensorError as error:
        raise cannot_write(folder, OSError(str(error))) from error
    except OSError as error:
        raise error if isinstance(error, FolderError) else cannot_write(folder, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _not_ours(folder: Path) -> FolderError:
    return FolderError(f"{folder} is not ttctune's", "an absent or empty folder", "choose another -o")


def _holds_only(folder: Path, name: str) -> bool:
    return not folder.is_dir() or all(path.name == name for path in folder.iterdir())


def _has_mark(file: Path, mark: str) -> bool:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and mark in values


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders in one step where the system can (Linux), else in two."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if not rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    aside = other.with_name(f".{other.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(other, aside)
    os.replace(one, other)
    os.replace(aside, one)
