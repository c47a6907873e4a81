"""What stands in an output folder, told by its marks."""

import json
from pathlib import Path

CHECKPOINT = "checkpoint"
RUN = f"{CHECKPOINT}/run.json"
ADAPTER, MERGED, EXPORTED = "an adapter", "a merged model", "an exported task"
#: Kind of a finished folder of ours -> file, and key in it, that show it.
MARKS = {
    ADAPTER: ("adapter.json", "ttctune_format"),
    MERGED: ("config.json", "merged_by_ttctune"),
    EXPORTED: ("export.json", "exported_by_ttctune"),
}
#: A marked file is text about one model; anything larger is not ours.
LARGEST_MARKED = 16 << 20


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


def _holds_only(folder: Path, name: str) -> bool:
    return not folder.is_dir() or all(path.name == name for path in folder.iterdir())


def _has_mark(file: Path, mark: str) -> bool:
    try:
        values = json.loads(file.read_bytes()) if file.stat().st_size <= LARGEST_MARKED else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and mark in values
