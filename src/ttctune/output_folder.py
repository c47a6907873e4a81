"""Who may write into an output folder, and how a finished one is replaced: one owner, old or new, never half.

Whatever is not yet, or no longer, part of a folder stands in one place beside it, `.NAME.ttctune`: a run that will
replace it, a folder that is being written whole, and what is being removed. Folders only ever enter and leave by a
rename, so a process may die anywhere; unless an unfinished run stands there, the next one clears the place.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import safetensors

from ttctune.errors import FolderError
from ttctune.files import cannot_write, sync_folder, sync_tree, write_atomically

CHECKPOINT = "checkpoint"
RUN = f"{CHECKPOINT}/run.json"
ADAPTER, MERGED, EXPORTED = "an adapter", "a merged model", "an exported task"
#: Kind of a finished folder of ours -> file, and key in it, that show it.
MARKS = {
    ADAPTER: ("adapter.json", "ttctune_format"),
    MERGED: ("config.json", "merged_by_ttctune"),
    EXPORTED: ("export.json", "exported_by_ttctune"),
}
#: Kind -> what such a folder is made of, a run's that of its adapter; all else in it is a person's own. The images of
#: an exported task have no fixed names, and no other command replaces it.
OWN = {
    ADAPTER: {
        CHECKPOINT,
        "adapter.json",
        "adapter.safetensors",
        "importance.safetensors",
        "history.jsonl",
        "recipe.toml",
        "README.md",
    },
    MERGED: {"config.json", "model.safetensors"},
}
#: What a desktop leaves in any folder that it shows.
LEFT_BY_DESKTOPS = {".DS_Store"}
#: A marked file is text about one model; anything larger is not ours.
LARGEST_MARKED = 16 << 20

_RENAME_EXCHANGE = 2  # of renameat2, Linux
_RENAME_SWAP = 2  # of renamex_np, macOS
_AT_FDCWD = -100


def state_of(folder: Path) -> str:
    """The state: "empty" (or absent), "unfinished" or "finished" (ours), or "foreign"."""
    if not folder.exists():
        return "empty"
    if not folder.is_dir():
        return "foreign"
    if (folder / RUN).is_file():
        return "unfinished"
    if kinds_of(folder):
        return "finished"
    return (
        "empty" if _holds_only(folder, CHECKPOINT) and _holds_only(folder / CHECKPOINT, "run.json.part") else "foreign"
    )


def kinds_of(folder: Path) -> list[str]:
    """The kinds of finished folder that the marks in it show: none, or one of `MARKS` where nobody mixed them."""
    return [kind for kind, (name, mark) in MARKS.items() if _has_mark(folder / name, mark)]


def is_result(folder: Path) -> bool:
    """Whether a folder is an adapter, a merged model, or a run that is not finished."""
    return (folder / RUN).is_file() or bool({ADAPTER, MERGED} & set(kinds_of(folder)))


def beside(folder: Path) -> Path:
    """The one place outside of `folder` where ttctune works for it; whatever is there is ttctune's."""
    return folder.with_name(f".{folder.name}.ttctune")


def unfinished(folder: Path) -> Path | None:
    """Where a run that can be resumed stands: in `folder`, or beside it; of two the later; None where there is none."""
    places = [place for place in (folder, beside(folder)) if state_of(place) == "unfinished"]
    return max(places, key=_begun, default=None)


def _begun(folder: Path) -> int:
    """When a run was marked as begun; 0 where another process has just ended it."""
    try:
        return (folder / RUN).stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def nothing_left_empty(folder: Path) -> Iterator[None]:
    """Take a folder and its parents away again, as far as they were made inside and hold nothing."""
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in absent:
            _remove_empty(path)


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
            _remove_empty(folder)


@contextmanager
def claimed(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Own the folder in which a run may work: `folder`, or one beside it that will replace it.

    Args:
        folder: Made where it is absent, and gone again where nothing came to lie in it.
        resume: Take the unfinished run that is there.
        overwrite: Work beside what ttctune wrote there.

    Raises:
        FolderError: Another process owns it; or it is not ours, is finished (without `overwrite`), or is unfinished
            (without `resume`); or a person's own files lie there too, which `overwrite` would remove; or it cannot be
            made.
    """
    if not folder.is_dir():
        _working_folder(folder, resume, overwrite)  # what is refused is refused before a folder is made
    with ExitStack() as stack:
        stack.enter_context(nothing_left_empty(folder.parent))
        _put_back(folder)
        absent = not folder.exists()
        stack.enter_context(locked(folder))
        if absent:
            stack.callback(_remove_empty, folder)  # by its owner alone: to others it may look empty too soon
        clear_beside(folder)
        working = _working_folder(folder, resume, overwrite)
        if working != folder:
            stack.enter_context(locked(working))
        yield working


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def clear_beside(folder: Path) -> None:
    """Remove what a process that died has left beside `folder`, unless it is a run that can be resumed.

    Raises:
        FolderError: Another process works there.
    """
    _put_back(folder)
    place = beside(folder)
    if place.is_dir() and state_of(place) != "unfinished":
        with locked(place):
            shutil.rmtree(place, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Put back the old folder of an exchange in three steps that a process did not live to end.

    Raises:
        FolderError: Another process is in the middle of it.
    """
    if _aside(folder).is_dir() and not folder.exists():
        with locked(beside(folder)):  # which whoever exchanges the two owns
            os.replace(_aside(folder), folder)


def _working_folder(folder: Path, resume: bool, overwrite: bool) -> Path:
    state = state_of(folder)
    if state == "foreign":
        raise _not_ours(folder)
    if resume:
        if working := unfinished(folder):
            return working
        raise FolderError(f"{folder} holds no unfinished run", "one to resume", "leave --resume out")
    if state == "empty" and (overwrite or not unfinished(folder)):
        return folder
    if overwrite:
        if EXPORTED in kinds_of(folder):
            raise FolderError(f"{folder} is {EXPORTED}", "a run, an adapter or a merged model", "choose another -o")
        _check_all_ours(folder)
        _check_movable(folder)
        return beside(folder)
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
            raise _in_use(folder) from error
        except OSError as error:
            if absent:
                _remove_empty(folder)
            raise cannot_write(folder, error) from error
        if not _is_at(handle, folder):
            raise _in_use(folder)  # its owner put another folder in this place and left
        yield
    finally:
        os.close(handle)


def begin(folder: Path, run: dict[str, Any]) -> None:
    """Empty a folder that `claimed` gave, and mark it as an unfinished run.

    Raises:
        FolderError: It cannot be written.
    """
    try:
        (folder / RUN).unlink(missing_ok=True)  # first, so that a run half removed is none
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
        if not isinstance(run, dict) or not isinstance(run.get("recipe", {}), dict):
            raise ValueError("not a run and its recipe")
    except (ValueError, RecursionError, OSError) as error:
        raise FolderError(f"{folder / RUN} is damaged ({error})", "a whole file", "use --overwrite") from error
    return run


def read_unfinished(folder: Path) -> dict[str, Any]:
    """How the unfinished run in a folder began.

    Raises:
        FolderError: There is none, or its record is damaged.
    """
    return read_run(_working_folder(folder, resume=True, overwrite=False))


def finish(working: Path, folder: Path) -> None:
    """Put the folder in its place, then take the checkpoint away: a run killed in between is still resumable.

    Raises:
        FolderError: The file system refuses.
    """
    if working != folder:
        publish(working, folder)
    discard(folder / CHECKPOINT, folder)
    if (folder / RUN).exists():
        raise FolderError(f"{folder / CHECKPOINT} cannot be removed", "a folder that can be written", "remove it")


def discard(part: Path, folder: Path) -> None:
    """Take a folder out of `folder` in one step, then remove it; where it cannot be moved, remove it in its place."""
    gone = beside(folder)
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        os.replace(part, gone)
    for left_over in (gone, part):
        shutil.rmtree(left_over, ignore_errors=True)


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


@contextmanager
def written_whole(folder: Path, *, overwrite: bool = False, replaces: str | None = None) -> Iterator[Path]:
    """A new folder to write into, which becomes `folder` at the end, or vanishes where anything fails.

    Args:
        folder: Absent or empty, or with `overwrite` of ours.
        overwrite: Replace what is there.
        replaces: The kind of folder (of `MARKS`) that may be replaced; None: every kind.

    Raises:
        FolderError: `folder` is not ours, holds something of ours and `overwrite` is not given or it is of another
            kind, has a person's own files beside an adapter, or is in use.
    """
    folder = folder.resolve()
    check_replaceable(folder, overwrite, replaces)
    made = beside(folder)
    with ExitStack() as owned:
        owned.enter_context(nothing_left_empty(folder.parent))
        if folder.exists():
            owned.enter_context(locked(folder))
        clear_beside(folder)
        owned.enter_context(locked(made))
        check_replaceable(folder, overwrite, replaces)
        try:
            yield made
            sync_tree(made)
            publish(made, folder)
        except safetensors.SafetensorError as error:
            raise cannot_write(folder, OSError(str(error))) from error
        except OSError as error:
            raise error if isinstance(error, FolderError) else cannot_write(folder, error) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)


def check_replaceable(folder: Path, overwrite: bool, replaces: str | None) -> None:
    """Refuse, before anything is made, what `written_whole` would refuse; with its arguments and errors."""
    state = state_of(folder)
    if state == "foreign":
        raise _not_ours(folder)
    _check_movable(folder)
    if unfinished(folder):
        raise FolderError(f"{folder} holds an unfinished run", "an absent or empty folder", "choose another -o")
    if state == "finished" and replaces and (kinds := kinds_of(folder)) != [replaces]:
        given = f"{folder} is {' and '.join(kinds)}"
        raise FolderError(given, f"an absent or empty folder, or {replaces} to replace", "choose another -o")
    if state == "finished" and not overwrite:
        raise FolderError(f"{folder} is taken", "an absent or empty folder", "use --overwrite or another -o")
    if state == "finished":
        _check_all_ours(folder)


def check_apart(folder: Path, sources: Iterable[str | Path]) -> None:
    """Refuse to write into what is read, which a folder that is replaced would lose.

    Raises:
        FolderError: One of the sources is `folder`, or lies in it.
    """
    place = os.path.realpath(folder)
    for source in sources:
        try:
            inside = Path(os.path.realpath(source)).is_relative_to(place)
        except ValueError:
            continue  # no path at all, which is refused where it is read
        if inside:
            raise FolderError(f"{folder} holds {source}, which is read", "another folder", "choose another -o")


def _check_movable(folder: Path) -> None:
    """Refuse a folder that no other can take the place of."""
    if os.path.ismount(folder):
        given = f"{folder} is where a file system is mounted, and cannot be replaced in one step"
        raise FolderError(given, "a folder inside it", "choose another -o")


def _check_all_ours(folder: Path) -> None:
    """Refuse a folder with a person's files in it, as far as the names of ours are fixed."""
    kinds = kinds_of(folder) or [ADAPTER]
    if EXPORTED in kinds:
        return
    ours = LEFT_BY_DESKTOPS.union(*(OWN[kind] for kind in kinds))
    own = sorted(path.name for path in folder.iterdir() if path.name.removesuffix(".part") not in ours)
    if own:
        given = f"{folder} also holds {own[0]}" + f" and {len(own) - 1} more" * (len(own) > 1)
        raise FolderError(given, "what ttctune wrote there, and nothing to lose", "move it away, or choose another -o")


def _not_ours(folder: Path) -> FolderError:
    return FolderError(f"{folder} is not ttctune's", "an absent or empty folder", "choose another -o")


def _in_use(folder: Path) -> FolderError:
    return FolderError(f"{folder} is in use by another run", "a folder of one's own", "wait, or choose another -o")


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(folder))
    except OSError:
        return False


def _holds_only(folder: Path, name: str) -> bool:
    return not folder.is_dir() or all(path.name == name for path in folder.iterdir())


def _has_mark(file: Path, mark: str) -> bool:
    try:
        values = json.loads(file.read_bytes()) if file.stat().st_size <= LARGEST_MARKED else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and mark in values


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
