"""The folder of results: one `suite.json` that owns it, and a file a job.

suite.json                             what every record in it has in common
<task>/<method>/seed<n>[-fold<k>].json a record
search.journal                         trials of the searches, where there were any
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ttctune.bench.record import FORMAT, Record, SplitName, SuiteName, damaged, read_json, read_record
from ttctune.errors import FolderError, RecordError
from ttctune.files import cannot_write, write_atomically
from ttctune.output_folder import locked

SUITE = "suite.json"


class Header(BaseModel):
    """What suite.json says: what all records of a folder share.

    Attributes:
        format: Number of the format of folder and records.
        suite: "vtab" or "folder".
        split: "val", "test" or "cv".
        model: Name of the backbone.
        backbone_digest: SHA-256 of its tensors.
        epochs: In all.
        image_size: Side of the pictures in pixels; None for the model's own.
        precision: As asked for.
        trials: Of the search, for each method on each task.
        legacy: The old protocol that is imitated; None for ours.
        shots: Images of each class that are trained on; None for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = FORMAT
    suite: SuiteName
    split: SplitName
    model: str
    backbone_digest: str
    epochs: int = Field(ge=1)
    image_size: int | None = Field(None, ge=1)
    precision: str = "fp32"
    trials: int = Field(0, ge=0)
    legacy: str | None = None
    shots: int | None = Field(None, ge=1)


@contextmanager
def results_folder(folder: Path, header: Header) -> Iterator[Path]:
    """Own a results folder while jobs write into it: a new or empty one, or one with the same header.

    Raises:
        FolderError: Another runner owns it, it is not ours, or it holds results of another suite, split, model, ...
        RecordError: Its suite.json is damaged or of another format.
    """
    if folder.exists():
        _check(folder, header)  # what is refused is refused before a folder is made or locked
    with locked(folder):
        _check(folder, header)
        if not (folder / SUITE).exists():
            write_atomically(folder / SUITE, header.model_dump_json(indent=2) + "\n")
        yield folder


def read_header(folder: Path) -> Header:
    """What suite.json says.

    Raises:
        RecordError: It is missing, damaged, or of another format.
    """
    path = folder / SUITE
    if not path.is_file():
        raise RecordError(f"{folder} has no {SUITE}", "a folder that `ttctune bench` made", "check the path")
    values = read_json(path)
    if values.get("format") != FORMAT:
        advice = "use the version of ttctune that wrote it"
        raise RecordError(f"{path} has format {str(values.get('format'))[:40]}", f"format {FORMAT}", advice)
    try:
        return Header.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read_records(folder: Path) -> tuple[Record, ...]:
    """Every record of a results folder, failed ones among them, ordered by their path.

    Raises:
        RecordError: The folder is none of results, or a file is damaged, in a wrong place, or of another suite.
    """
    header = read_header(folder)
    records = []
    for path in sorted(folder.glob("*/*/seed*.json")):
        record = read_record(path)
        if folder / record.path != path:
            raise damaged(path, f"it says that it is {record.path}")
        for what in ("suite", "split", "epochs"):
            own, common = getattr(record, what), getattr(header, what)
            if own != common:
                raise damaged(path, f"its {what} is {own}, but {SUITE} says {common}")
        records.append(record)
    return tuple(records)


def _check(folder: Path, header: Header) -> None:
    if not folder.is_dir():
        raise FolderError(f"{folder} is a file", "a folder", "choose another -o")
    try:
        if not (folder / SUITE).exists() and any(path.name != f"{SUITE}.part" for path in folder.iterdir()):
            raise FolderError(f"{folder} holds no results of ttctune", "an absent or empty folder", "choose another -o")
    except PermissionError as error:
        raise cannot_write(folder, error) from error
    if not (folder / SUITE).exists():
        return
    before, now = read_header(folder).model_dump(), header.model_dump()
    different = [name for name in now if now[name] != before[name]]
    if different:
        first = different[0]
        name, (given, expected) = first.replace("_", " "), (now[first], before[first])
        raise FolderError(
            f"no {name}" if given is None else f"{name} {given}",
            f"{f'no {name}' if expected is None else expected}, as the results in {folder} have",
            f"{'leave it out' if expected is None else 'give that'}, or choose another -o",
        )
