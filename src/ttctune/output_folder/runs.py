"""The folder of a run, from its claim to its end."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ttctune.errors import FolderError
from ttctune.files import cannot_write, write_atomically
from ttctune.output_folder.contents import CHECKPOINT, EXPORTED, RUN, beside, kinds_of, state_of, unfinished
from ttctune.output_folder.ownership import locked, nothing_left_empty, remove_empty
from ttctune.output_folder.refusals import check_all_ours, check_movable, not_ours
from ttctune.output_folder.replacement import clear_beside, discard, publish, put_back


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
        put_back(folder)
        absent = not folder.exists()
        stack.enter_context(locked(folder))
        if absent:
            stack.callback(remove_empty, folder)  # by its owner alone: to others it may look empty too soon
        clear_beside(folder)
        working = _working_folder(folder, resume, overwrite)
        if working != folder:
            stack.enter_context(locked(working))
        yield working


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


def _working_folder(folder: Path, resume: bool, overwrite: bool) -> Path:
    state = state_of(folder)
    if state == "foreign":
        raise not_ours(folder)
    if resume:
        if working := unfinished(folder):
            return working
        raise FolderError(f"{folder} holds no unfinished run", "one to resume", "leave --resume out")
    if state == "empty" and (overwrite or not unfinished(folder)):
        return folder
    if overwrite:
        if EXPORTED in kinds_of(folder):
            raise FolderError(f"{folder} is {EXPORTED}", "a run, an adapter or a merged model", "choose another -o")
        check_all_ours(folder)
        check_movable(folder)
        return beside(folder)
    if state == "finished":
        raise FolderError(f"{folder} is finished", "an absent or empty folder", "use --overwrite or another -o")
    raise FolderError(
        f"{folder} holds an unfinished run",
        "an absent or empty folder",
        "add --resume to go on, or --overwrite",
    )
