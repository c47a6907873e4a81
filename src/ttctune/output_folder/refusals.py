"""What is never written into, never moved and never removed."""

import os
from collections.abc import Iterable
from pathlib import Path

from ttctune.errors import FolderError
from ttctune.output_folder.contents import ADAPTER, CHECKPOINT, EXPORTED, MERGED, kinds_of

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


def check_movable(folder: Path) -> None:
    """Refuse a folder that no other can take the place of."""
    if os.path.ismount(folder):
        given = f"{folder} is where a file system is mounted, and cannot be replaced in one step"
        raise FolderError(given, "a folder inside it", "choose another -o")


def check_all_ours(folder: Path) -> None:
    """Refuse a folder with a person's files in it, as far as the names of ours are fixed."""
    kinds = kinds_of(folder) or [ADAPTER]
    if EXPORTED in kinds:
        return
    ours = LEFT_BY_DESKTOPS.union(*(OWN[kind] for kind in kinds))
    own = sorted(path.name for path in folder.iterdir() if path.name.removesuffix(".part") not in ours)
    if own:
        given = f"{folder} also holds {own[0]}" + f" and {len(own) - 1} more" * (len(own) > 1)
        raise FolderError(given, "what ttctune wrote there, and nothing to lose", "move it away, or choose another -o")


def not_ours(folder: Path) -> FolderError:
    """The error of a folder in which something else lies."""
    return FolderError(f"{folder} is not ttctune's", "an absent or empty folder", "choose another -o")
