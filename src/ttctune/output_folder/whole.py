"""A folder that is written whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import safetensors

from ttctune.errors import FolderError
from ttctune.files import cannot_write, sync_tree
from ttctune.output_folder.contents import beside, kinds_of, state_of, unfinished
from ttctune.output_folder.ownership import locked, nothing_left_empty
from ttctune.output_folder.refusals import check_all_ours, check_movable, not_ours
from ttctune.output_folder.replacement import clear_beside, publish


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
        raise not_ours(folder)
    check_movable(folder)
    if unfinished(folder):
        raise FolderError(f"{folder} holds an unfinished run", "an absent or empty folder", "choose another -o")
    if state == "finished" and replaces and (kinds := kinds_of(folder)) != [replaces]:
        given = f"{folder} is {' and '.join(kinds)}"
        raise FolderError(given, f"an absent or empty folder, or {replaces} to replace", "choose another -o")
    if state == "finished" and not overwrite:
        raise FolderError(f"{folder} is taken", "an absent or empty folder", "use --overwrite or another -o")
    if state == "finished":
        check_all_ours(folder)
