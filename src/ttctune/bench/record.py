"""What one job of a benchmark leaves: one JSON file with all that a table, or a later comparison, needs.

Labels, predictions and the names of the scored images are kept for every image, packed, so that any two records of a
task, split and fold can be compared image by image.
"""

import base64
import hashlib
import json
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ttctune.errors import RecordError
from ttctune.files import cannot_write, write_atomically

FORMAT: Final = 1
#: A record is a few dozen kilobytes of one job; anything larger is not ours.
LARGEST = 64 << 20
#: Names that become folders and files.
NAME = r"^[^/\x00.][^/\x00]*$"

SuiteName = Literal["vtab", "folder"]
SplitName = Literal["val", "test", "cv"]
#: "recipe": as the method has them. "search on val": the best of `trials`. "given": by a file that says no more.
ChosenBy = Literal["recipe", "search on val", "given"]


class Normalisation(BaseModel):
    """What is subtracted from and what divides each colour, both for colours in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Protocol(BaseModel):
    """How a job was done, beyond its method and its settings.

    Attributes:
        image_size: Height and width in pixels.
        resize: "squash" (the whole picture) or "crop" (timm's).
        normalisation: Of the pictures.
        precision: "fp32", "bf16" or "fp16", as computed.
        threads: Of the CPU.
        device: "cpu", or the name of the GPU.
        epochs: In all, over both stages.
        model: Name of the backbone.
        backbone_digest: SHA-256 of its tensors.
        data_digest: Of the task's images and labels; a task's own, so it differs from task to task.
        versions: Of ttctune, python, and the libraries that a result may depend on.
        legacy: An old protocol that this one imitates, by its name; None for ours.
        shots: Images of each class that were trained on, drawn by the seed; None for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    image_size: tuple[int, int]
    resize: str
    normalisation: Normalisation
    precision: str
    threads: int = Field(ge=1)
    device: str
    epochs: int = Field(ge=1)
    model: str
    backbone_digest: str
    data_digest: str
    versions: dict[str, str]
    legacy: str | None = None
    shots: int | None = Field(None, ge=1)


class Record(BaseModel):
    """One job: a method on a task with a seed (and a fold), and what came of it.

    Attributes:
        format: Number of this format.
        suite: "vtab" or "folder".
        task: Its name.
        group: "natural", "specialised", "structured", or what the suite says.
        split: "val", "test" or "cv".
        fold: From 0; None unless `split` is "cv".
        method: Its name in `METHODS`, or that of a variant.
        seed: Of everything that is random.
        epochs: In all.
        trials: Settings that were tried to choose these; 0 without a search.
        settings: The resolved recipe, and settings beyond it.
        chosen_by: How the settings were.
        protocol: How it was done.
        classes: Their names, in label order.
        accuracy: Share of right answers, 0 to 1.
        parameters: Trained ones, head left out.
        head_parameters: Those of the head.
        seconds: Of training, on the wall clock.
        history: One row an epoch: stage, epoch, loss, accuracy, seconds.
        labels: Of the scored images, `packed` int16.
        predictions: Of the scored images, `packed` int16.
        losses: Cross-entropy of each scored image in nats, without label smoothing, `packed` float16; None in records
            of a time when it was not kept, and of a legacy protocol.
        files: Names of the scored images, by `packed_names`; None where they have none.
        importance: Site -> score of each channel, `packed` float16; None where nothing was scored.
        selection: Site -> chosen channels; None where none were chosen.
        failed: Why there is no result, in one line; what the job did not get to is None or empty then.
        diverged: Whether that is because its training diverged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = FORMAT
    suite: SuiteName
    task: str = Field(pattern=NAME)
    group: str
    split: SplitName
    fold: int | None = Field(None, ge=0)
    method: str = Field(pattern=NAME)
    seed: int = Field(ge=0)
    epochs: int = Field(ge=1)
    trials: int = Field(0, ge=0)
    settings: dict[str, Any] = {}
    chosen_by: ChosenBy = "recipe"
    protocol: Protocol | None = None
    classes: tuple[str, ...] = ()
    accuracy: float | None = Field(None, ge=0, le=1)
    parameters: int | None = Field(None, ge=0)
    head_parameters: int | None = Field(None, ge=0)
    seconds: float | None = Field(None, ge=0)
    history: tuple[dict[str, Any], ...] = ()
    labels: str | None = None
    predictions: str | None = None
    losses: str | None = None
    files: str | None = None
    importance: dict[str, str] | None = None
    selection: dict[str, tuple[int, ...]] | None = None
    failed: str | None = None
    diverged: bool = False

    @model_validator(mode="after")
    def _check_whole(self) -> "Record":
        result = (self.protocol, self.accuracy, self.parameters, self.head_parameters, self.seconds)
        if self.failed is not None:
            if self.accuracy is not None or self.predictions is not None:
                raise ValueError("a failed job with a result")
        elif any(value is None for value in (*result, self.labels, self.predictions)) or not self.classes:
            raise ValueError("neither a result nor a reason why there is none")
        if (self.split == "cv") != (self.fold is not None):
            raise ValueError("a fold without split cv, or none with it")
        return self

    @property
    def path(self) -> PurePosixPath:
        """Where its file lies in the results folder."""
        return path_of(self.task, self.method, self.seed, self.fold)


def path_of(task: str, method: str, seed: int, fold: int | None) -> PurePosixPath:
    """Where the file of a job lies in the results folder."""
    return PurePosixPath(task, method, f"seed{seed}{'' if fold is None else f'-fold{fold}'}.json")


def protocol_key(record: Record) -> str:
    """A short digest of what two records must share to stand in one table without a mark.

    That is suite, split, epochs and the protocol; but not threads, device and versions, which change a result by
    rounding at most, nor the data's digest, which is one task's own: compare it between records of that task.
    """
    own = {"threads", "device", "versions", "data_digest"}
    protocol = None if record.protocol is None else record.protocol.model_dump(mode="json", exclude=own)
    return _short_digest([record.suite, record.split, record.epochs, protocol])


def write_record(folder: Path, record: Record) -> None:
    """Write a record to its place in the results folder, whole or not at all.

    Raises:
        FolderError: The folder cannot be written.
    """
    path = folder / record.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    write_atomically(path, record.model_dump_json() + "\n")


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        RecordError: It is missing, damaged, or of another format.
    """
    values = read_json(path)
    if values.get("format") != FORMAT:
        advice = "use the version of ttctune that wrote it"
        raise RecordError(f"{path} has format {str(values.get('format'))[:40]}", f"format {FORMAT}", advice)
    try:
        record = Record.model_validate(values)
        if record.failed is None:
            answers = [unpacked(text) for text in (record.labels or "", record.predictions or "")]
            if len(answers[0]) != len(answers[1]) or not len(answers[0]):
                raise ValueError(f"{len(answers[0])} labels and {len(answers[1])} predictions")
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
        raise damaged(path, reason) from None
    except ValueError as error:
        raise damaged(path, str(error)) from None
    return record


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        RecordError: There is none.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"over {LARGEST} bytes")
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, getattr(error, "strerror", None) or str(error)) from None
    return values


def damaged(path: Path, reason: str) -> RecordError:
    """The error for a file of a results folder that is not as it was written."""
    return RecordError(f"{path} is damaged ({reason[:200]})", "a file that `ttctune bench` wrote", "remove the file")


def packed(values: "np.ndarray[Any, Any]", kind: str = "<i2") -> str:
    """Numbers as text: base64 of zlib of their little-endian bytes.

    Args:
        values: One axis.
        kind: numpy's name of their kind on disk: "<i2" (int16) or "<f2" (float16).
    """
    return base64.b64encode(zlib.compress(np.asarray(values).astype(kind).tobytes(), 9)).decode("ascii")


def unpacked(text: str, kind: str = "<i2") -> "np.ndarray[Any, Any]":
    """The numbers that `packed` wrote.

    Raises:
        ValueError: The text is something else.
    """
    return np.frombuffer(_bytes_of(text), kind)


def packed_names(names: list[str]) -> str:
    """Texts as one text: base64 of zlib of their JSON."""
    return base64.b64encode(zlib.compress(json.dumps(names).encode(), 9)).decode("ascii")


def unpacked_names(text: str) -> list[str]:
    """The texts that `packed_names` wrote.

    Raises:
        ValueError: The text is something else.
    """
    names: list[str] = json.loads(_bytes_of(text))
    return names


def _bytes_of(text: str) -> bytes:
    try:
        return zlib.decompress(base64.b64decode(text, validate=True))
    except (zlib.error, ValueError) as error:
        raise ValueError(f"a text that is not packed: {error}") from None


def _short_digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
