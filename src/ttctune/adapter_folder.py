"""The adapter on disk: what was trained, and all that is needed to use it again.

adapter.json            the record below, with the SHA-256 of the other files and of itself
adapter.safetensors     sites.<block>.<site>.{channels,map,bias | rows,bias}, gates.<block>.<site>.{log_scale,shift},
                        norms.<name>.*, head.*
importance.safetensors  <block>.<site> -> score of every channel (for `inspect`; not needed to load)
history.jsonl           one line an epoch
recipe.toml             every setting, as `ttctune fit --recipe` reads it
README.md               the model card
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from safetensors.torch import load, save
from torch import Tensor

from ttctune.backbone.description import InputDescription
from ttctune.backbone.model import Backbone
from ttctune.calibration import Calibration
from ttctune.errors import AdapterError
from ttctune.files import write_atomically
from ttctune.recipe import LARGEST_SIDE, Recipe
from ttctune.settings_file import RECIPE

FORMAT = 1
RECORD, TENSORS, IMPORTANCE = "adapter.json", "adapter.safetensors", "importance.safetensors"
HISTORY, CARD = "history.jsonl", "README.md"

#: A record is text about one model, and an adapter a few megabytes; anything larger than these is not ours.
LARGEST_RECORD, LARGEST_FILE = 16 << 20, 4 << 30
#: No layer is wider; the limit keeps a damaged folder from taking all memory.
WIDEST_LAYER = 1 << 20

#: Names of the tensors in the file.
NAMES = re.compile(
    r"sites\.\d{1,6}\.[a-z0-9]+\.(channels|map|rows|bias)|gates\.\d{1,6}\.[a-z0-9]+\.(log_scale|shift)|"
    r"norms\..+\.(weight|bias)|head.*\.(weight|bias)"
)


class BackboneRecord(BaseModel):
    """Which backbone the adapter belongs to."""

    model_config = ConfigDict(frozen=True)
    name: str
    digest: str

    def check(self, backbone: Backbone, adapter: str) -> None:
        """Refuse another backbone than the one that `adapter` was made on.

        Raises:
            AdapterError: Its digest differs.
        """
        if backbone.digest != self.digest:
            raise AdapterError(
                f"backbone {backbone.name} with digest {backbone.digest[:12]}",
                f"{self.name} with digest {self.digest[:12]}, on which {adapter} was made",
                "check --model and --weights",
            )


class WarmStartRecord(BaseModel):
    """The earlier adapter that a run began with.

    Attributes:
        folder: Its name, not its path.
        sha256: Of its tensors' file.
        kept: How many classes both know.
        new: Classes whose rows of the head were drawn anew.
        dropped: Classes that are gone.
        selection_kept: Whether its channels and maps were taken over.
        val_unseen: Whether neither it nor those before it can have trained on the new val, as far as records tell.
    """

    model_config = ConfigDict(frozen=True)
    folder: str
    sha256: str
    kept: int
    new: tuple[str, ...]
    dropped: tuple[str, ...]
    selection_kept: bool
    val_unseen: bool


class Record(BaseModel):
    """What adapter.json holds.

    Attributes:
        ttctune_format: Number of this format.
        backbone: Name, and digest of its tensors.
        classes: Class names in label order.
        input: Preprocessing: an `InputDescription`.
        recipe: Every setting of the run.
        settled: What the run decided itself: precision and why, parts of a batch, device, threads; and what it began
            with, a `WarmStartRecord`, where that was an earlier adapter.
        data: Where the images came from, how many, how val was made.
        parameters: Trained parameters of channels, norms and head.
        metrics: What was measured on val.
        calibration: Temperature and thresholds, from val; none in folders older than these.
        versions: Of ttctune, torch and timm.
        sha256: File -> digest.
        digest: SHA-256 of all of the above; see `digest_of`.
    """

    model_config = ConfigDict(frozen=True)
    ttctune_format: int = Field(ge=1)
    backbone: BackboneRecord
    classes: tuple[str, ...] = Field(min_length=1)
    input: dict[str, Any]
    recipe: dict[str, Any]
    settled: dict[str, Any]
    data: dict[str, Any]
    parameters: dict[str, int]
    metrics: dict[str, Any]
    calibration: Calibration = Calibration()
    versions: dict[str, str]
    sha256: dict[str, str]
    digest: str

    @field_validator("input")
    @classmethod
    def _check_input(cls, value: dict[str, Any]) -> dict[str, Any]:
        description = TypeAdapter(InputDescription).validate_python(value)
        if not 1 <= description.height <= LARGEST_SIDE or not 1 <= description.width <= LARGEST_SIDE:
            raise ValueError(f"pictures of {description.height} x {description.width} pixels")
        if not description.mean or len(description.mean) != len(description.std):
            raise ValueError(f"{len(description.mean)} means and {len(description.std)} standard deviations")
        return dataclasses.asdict(description)

    @field_validator("recipe")
    @classmethod
    def _check_recipe(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = {name: value[name] for name in value if name in Recipe.model_fields}
        known.setdefault("gates", [])  # absent before there were any
        Recipe(**known)
        return known

    @field_validator("settled")
    @classmethod
    def _check_settled(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "warm_start" in value:
            WarmStartRecord.model_validate(value["warm_start"])
        return value

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, value: dict[str, int]) -> dict[str, int]:
        if not {"channels", "norms", "head"} <= value.keys():
            raise ValueError("numbers of parameters without channels, norms or head")
        return value

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, value: dict[str, Any]) -> dict[str, Any]:
        numbers = [value.get(name) for name in ("accuracy", "balanced_accuracy", "ece", "images")]
        if value and not all(isinstance(number, int | float) and 0 <= number < 1 << 53 for number in numbers):
            raise ValueError("metrics without accuracy, balanced_accuracy, ece or images")
        return value

    @field_validator("data")
    @classmethod
    def _check_data(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "held_out" in value:
            held_out = value["held_out"]
            if not isinstance(held_out, dict) or not isinstance(held_out.get("digest"), str):
                raise ValueError("held_out without a digest")
            how = Recipe(val_fraction=held_out.get("val_fraction"), seed=held_out.get("seed"))
            return value | {"held_out": held_out | {"val_fraction": how.val_fraction, "seed": how.seed}}
        return value


def to_disk(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """As stored: channels as int16 where they fit, floats as `dtype` ("float32" or "float16")."""
    stored = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            kind = getattr(torch, dtype)
        else:
            kind = torch.int16 if int(tensor.max()) <= torch.iinfo(torch.int16).max else torch.int32
        stored[name] = tensor.detach().cpu().to(kind).contiguous()
    return stored


def write(
    folder: Path,
    record: dict[str, Any],
    tensors: Mapping[str, Tensor],
    importance: Mapping[str, Tensor],
    history: Sequence[Mapping[str, Any]],
    card: str,
) -> None:
    """Write the files, the record last: a folder with a record is whole.

    Args:
        folder: Exists, and is owned by this process.
        record: A `Record` without format number and digests.
        tensors: As stored.
        importance: Site name -> score; may be empty.
        history: One row an epoch.
        card: Text of README.md.

    Raises:
        FolderError: The folder cannot be written.
    """
    files = {TENSORS: save(dict(tensors)), HISTORY: _lines(history).encode()}
    if importance:
        files[IMPORTANCE] = save({k: v.float().contiguous() for k, v in importance.items()})
    for name, content in files.items():
        write_atomically(folder / name, content)
    # these two say it again for people: who edits them breaks nothing
    write_atomically(folder / RECIPE, Recipe(**record["recipe"]).to_toml())
    write_atomically(folder / CARD, card)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = Record(ttctune_format=FORMAT, sha256=digests, digest="", **record).model_dump(mode="json")
    whole["digest"] = digest_of(whole)
    write_atomically(folder / RECORD, json.dumps(whole, indent=2, sort_keys=True) + "\n")


def digest_of(record: Mapping[str, Any]) -> str:
    """SHA-256 of what adapter.json says, whatever its layout: of its JSON with sorted keys, no blanks, no digest."""
    said = {key: value for key, value in record.items() if key != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write history.jsonl, one line an epoch.

    Raises:
        FolderError: The folder cannot be written.
    """
    write_atomically(folder / HISTORY, _lines(history))


def _lines(history: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in history)


def read_record(folder: Path) -> Record:
    """Read and check adapter.json.

    Raises:
        AdapterError: It is missing, damaged, changed since it was written, or of a newer format.
    """
    file = _inside(folder, RECORD)
    try:
        if file.stat().st_size > LARGEST_RECORD:
            raise ValueError(f"{file.stat().st_size} bytes long")
        values = json.loads(file.read_text(encoding="utf-8"))
        number = values.get("ttctune_format") if isinstance(values, dict) else None
        if isinstance(number, int | float) and number > FORMAT:
            raise AdapterError(f"{file} of format {number}", f"format {FORMAT} or older", "install a newer ttctune")
        record = Record(**values)
        if record.digest != digest_of(values):
            raise ValueError("it was changed after it was written: its digest differs")
        return record
    except AdapterError:
        raise
    except (ValidationError, ValueError, TypeError, RecursionError, OSError) as error:
        problem = _problem(error)
        raise AdapterError(f"{file} is damaged ({problem})", "an adapter's record", "fetch the folder again") from error


def read_tensors(folder: Path, record: Record) -> dict[str, Tensor]:
    """Read adapter.safetensors; channels as int64, floats as float32.

    Raises:
        AdapterError: The file is missing, cut short, or not the one that the record describes.
    """
    if not {TENSORS} <= record.sha256.keys() <= {TENSORS, IMPORTANCE, HISTORY}:
        raise AdapterError(
            f"{folder / RECORD} names {', '.join(map(repr, record.sha256)) or 'no file'}",
            f"{TENSORS}, and {IMPORTANCE} and {HISTORY} at most",
            "fetch the folder again",
        )
    content = _verified(folder, TENSORS, record)
    try:
        tensors = load(content)
        for name, tensor in tensors.items():
            _check_tensor(name, tensor)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise AdapterError(
            f"{folder / TENSORS} is damaged ({error})", "an adapter's tensors", "fetch the folder again"
        ) from error
    return {k: v.float() if v.is_floating_point() else v.long() for k, v in tensors.items()}


def selection_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Site name -> chosen channels, from an adapter's tensors, in order of depth."""
    chosen = {
        name.removeprefix("sites.").removesuffix(".channels"): channels
        for name, channels in tensors.items()
        if name.startswith("sites.") and name.endswith(".channels")
    }
    return dict(sorted(chosen.items(), key=lambda item: (item[0].partition(".")[2], int(item[0].partition(".")[0]))))


def read_importance(folder: Path, record: Record) -> dict[str, Tensor]:
    """The scores of every channel, or nothing where they were not kept.

    Raises:
        AdapterError: The file is damaged, or not the one that the record describes.
    """
    if not (folder / IMPORTANCE).exists():
        return {}
    content = _verified(folder, IMPORTANCE, record)
    try:
        scores = load(content)
        for name, score in scores.items():
            if not re.fullmatch(r"\d{1,6}\.[a-z0-9]+", name) or score.ndim != 1 or not score.is_floating_point():
                raise ValueError(f"{name} is no score")
        return scores
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise AdapterError(
            f"{folder / IMPORTANCE} is damaged ({error})", "a safetensors file", "remove the file"
        ) from error


def read_history(folder: Path, record: Record) -> list[dict[str, Any]]:
    """The rows of history.jsonl; none where it is missing.

    Raises:
        AdapterError: The file is damaged, or not the one that the record describes.
    """
    file = folder / HISTORY
    if not file.exists():
        return []
    content = _verified(folder, HISTORY, record)
    try:
        rows = [json.loads(line) for line in content.splitlines()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no object")
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{file} is damaged ({error})", "one JSON object a line", "remove the file") from error
    return rows


def _verified(folder: Path, name: str, record: Record) -> bytes:
    """The content of a file, read into memory only if it is the one that the record describes."""
    file = _inside(folder, name)
    try:
        with file.open("rb") as opened:
            size = file.stat().st_size
            digest = hashlib.file_digest(opened, "sha256").hexdigest() if size <= LARGEST_FILE else None
            opened.seek(0)
            if digest is not None and digest == record.sha256.get(name):
                return opened.read()
    except OSError as error:
        raise AdapterError(f"{file} cannot be read ({error.strerror})", "a readable file", "check it") from error
    problem = "its SHA-256 differs" if digest else f"it is {size} bytes long"
    raise AdapterError(
        f"{file} is not the file that {RECORD} describes ({problem})",
        "the file as it was saved",
        "fetch the folder again",
    )


def _check_tensor(name: str, tensor: Tensor) -> None:
    if not NAMES.fullmatch(name):
        raise ValueError(f"{name!r} is no part of an adapter")
    if name.endswith(".channels") == tensor.is_floating_point():
        raise ValueError(f"{name} is of type {tensor.dtype}")
    if name.endswith(".channels"):
        ascending = tensor.ndim == 1 and bool((tensor.long().diff() > 0).all())
        if not ascending or not len(tensor) or not 0 <= int(tensor[0]) <= int(tensor[-1]) < WIDEST_LAYER:
            raise ValueError(f"{name} are not channels in ascending order")


def _problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].removeprefix('Value error, ')}"[:200]
    return str(error).replace("\n", " ")[:200]


def _inside(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise AdapterError(f"{folder}", "a folder made by `ttctune fit`", "check the path")
    file = folder / name
    if not file.is_file():
        if (folder / "checkpoint").exists():
            raise AdapterError(f"{folder} is unfinished", "a finished run", "go on with `ttctune fit --resume`")
        raise AdapterError(f"{folder} has no {name}", "a folder made by `ttctune fit`", "check the path")
    if file.resolve().parent != folder.resolve():
        raise AdapterError(f"{file} leads out of its folder", "a file in the folder", "fetch the folder again")
    return file
