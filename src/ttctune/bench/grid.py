"""The grid: tasks x methods x seeds (x folds), each cell one independent job."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from ttctune.bench.methods import METHODS, VARIANT, Method, method_of, recipe_for
from ttctune.bench.record import ChosenBy, Record, SplitName, SuiteName, path_of, read_record
from ttctune.bench.suites import FOLDS, Task, TaskData, data_of
from ttctune.errors import RecipeError, RecordError
from ttctune.recipe import SELECTION, Recipe

#: What settings were in effect before they could be set, for records of that time.
ONCE: Mapping[str, Any] = {"gates": []}

NAME_OF_VARIANT = r"[\w.=-]+"


@dataclass(frozen=True, eq=False)
class Job:
    """One method on one task with one seed; equal to itself alone.

    Attributes:
        task: The task.
        split: What is trained on, and what is scored.
        method: A key of `METHODS`, or a variant of it.
        seed: Of everything that is random.
        fold: Of split "cv".
        settings: What differs from the method's own recipe.
        dial: Of the method's own dial; None leaves it.
        trials: Settings that were tried to choose these.
        chosen_by: How these were chosen.
        trial: Its number in the search for settings, where it is no cell of the grid but a trial.
    """

    task: Task
    split: SplitName
    method: str
    seed: int
    fold: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    dial: float | None = None
    trials: int = 0
    chosen_by: ChosenBy = "recipe"
    trial: int | None = None

    @property
    def title(self) -> str:
        """For people."""
        if self.trial is not None:
            return f"{self.method} on {self.task.name}, trial {self.trial}"
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.method} on {self.task.name}, seed {self.seed}{fold}"

    @property
    def study(self) -> str:
        """The search that chooses its settings: one for a method on a task."""
        return f"{self.task.name}/{self.method}"

    def path(self, folder: Path) -> Path:
        """Its file in a results folder."""
        return folder / path_of(self.task.name, self.method, self.seed, self.fold)


@dataclass(frozen=True)
class Conditions:
    """What all jobs of a grid share.

    Attributes:
        suite: "vtab" or "folder".
        model: timm name or local-dir:FOLDER.
        weights: File of its weights, instead of timm's hub.
        epochs: In all, the same for every method.
        image_size: Side of the pictures in pixels; None for the model's own.
        precision: "fp32", "bf16", "fp16" or "auto".
        device: "auto", "cpu", "cuda" or "mps".
        threads: Of the CPU, for each job.
        features: Folder in which jobs find the features of frozen layers, and keep them; None keeps none.
        legacy: An old protocol to imitate, a key of `LEGACY`; None for ours.
        shots: Images of each class that are trained on, drawn by the job's seed; None for all.
    """

    suite: SuiteName
    model: str
    weights: Path | None
    epochs: int
    image_size: int | None = None
    precision: str = "fp32"
    device: str = "auto"
    threads: int = 1
    features: Path | None = None
    legacy: str | None = None
    shots: int | None = None

    def method(self, job: Job) -> Method:
        """The method of a job, with its dial as the job has it, and with the features that there are."""
        method = method_of(job.method)
        method = method if job.dial is None else method.at(job.dial)
        return method if self.features is None else method.with_features(self.features)

    def recipe(self, job: Job) -> Recipe:
        """The recipe of a job.

        Raises:
            RecipeError: A setting is out of bounds or unknown.
        """
        shared = {"image_size": self.image_size, "precision": self.precision, "seed": job.seed, "val_fraction": 0.0}
        return recipe_for(self.method(job), self.epochs, **{**shared, **job.settings})

    def data(self, job: Job) -> TaskData:
        """The images of a job; none is read yet.

        Raises:
            DataError: Its task lacks what the split needs.
        """
        return data_of(job.task, job.split, job.fold, shots=self.shots, draw=job.seed)

    def settings(self, job: Job) -> dict[str, Any]:
        """Recipe and dial of a job, for its record; without the settings of a selection where its method has none.

        Raises:
            RecipeError: A setting is out of bounds or unknown.
        """
        method = method_of(job.method)
        dial = method.dial
        own = {} if dial is None else {dial.name: dial.default if job.dial is None else job.dial}
        unused = set() if method.selects else set(SELECTION)
        return own | self.recipe(job).model_dump(mode="json", exclude=unused)


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """The methods and variants named, each once.

    Raises:
        RecipeError: One is unknown, or there is none.
    """
    names = tuple(dict.fromkeys(names))
    if not names:
        raise RecipeError("no methods", f"some of {', '.join(METHODS)}", "name one or more with --methods")
    for name in names:
        base, at, variant = name.partition(VARIANT)
        if at and not re.fullmatch(NAME_OF_VARIANT, variant):
            raise RecipeError(f"variant {name[:100]!r}", "METHOD@NAME, of letters, digits and . - = _", "rename it")
        if base not in METHODS:
            near = difflib.get_close_matches(name, METHODS, n=3, cutoff=0.4) or tuple(METHODS)
            raise RecipeError(f"method {name[:100]!r}", f"some of {', '.join(METHODS)}", f"try {' or '.join(near)}")
    return names


def jobs_of(
    tasks: Iterable[Task],
    methods: Iterable[str],
    seeds: int,
    split: SplitName,
    chosen: Mapping[str, Mapping[str, Any]] | None = None,
    folds: int = FOLDS,
) -> list[Job]:
    """Every job, seed by seed, so that a grid that is stopped early is a whole table of fewer seeds.

    Args:
        tasks: The tasks.
        methods: Keys of `METHODS`, or variants of them.
        seeds: How many, from 0.
        split: Of every job; "cv" makes a job of each fold.
        chosen: Method -> what else its jobs have, by `read_chosen`.
        folds: With "cv", how many each seed has. Seed s begins with fold s, so few folds of some seeds are spread over
            the images.
    """
    chosen = chosen or {}
    turns = range(folds) if split == "cv" else (None,)
    return [
        Job(task, split, method, seed, None if turn is None else (seed + turn) % FOLDS, **chosen.get(method, {}))
        for seed, turn, task, method in product(range(seeds), turns, tasks, methods)
    ]


def done_before(job: Job, folder: Path) -> Record | None:
    """The record that an earlier call left of a job; None where there is none, or the job failed.

    Raises:
        RecordError: The record is damaged.
    """
    path = job.path(folder)
    if not path.is_file():
        return None
    record = read_record(path)
    return record if record.failed is None else None


def check_group(record: Record, job: Job, path: Path) -> None:
    """Refuse a task that is of another group than its records say.

    Raises:
        RecordError: It is.
    """
    if record.group != job.task.group:
        given = f"{path} says that {record.task} is of the group {record.group!r}"
        advice = 'correct index.csv beside the tasks, or the "group" of the records'
        raise RecordError(given, f"{job.task.group!r}, as the suite has it", advice)


def check_data(record: Record, digest: str, job: Job, path: Path) -> None:
    """Refuse to count a record as done that was made with other images.

    Raises:
        RecordError: The digest of its task is not that of the images that are there now.
    """
    if record.protocol is not None and record.protocol.data_digest != digest:
        given = f"{path} was made with other images"
        raise RecordError(given, f"those of {job.task.path}", "give its --root, choose another -o, or remove the file")


def check_settings(record: Record, now: Mapping[str, Any], path: Path) -> None:
    """Refuse to count a record as done that was made with other settings.

    Raises:
        RecordError: A setting differs, other than default sites and gates of which the family has only some.
    """
    for name, then in changed_settings(record.settings, now):
        raise RecordError(
            f"{path} was made with {name} = {then}",
            f"{now[name]}, as the method has it now",
            "choose another -o, or remove the file",
        )


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each setting that is not what it was, with what that was; one that `before` does not state was as it once was.

    Default sites and gates of which the family has only some are no change.
    """
    for name, value in now.items():
        stated = name in before
        then = before[name] if stated else ONCE.get(name, value)
        if then != value and not (stated and _is_default(name, value) and set(then) < set(value)):
            yield name, then


def _is_default(name: str, value: Any) -> bool:
    """Whether it is what a run may take less of, where the family has no more."""
    return name in ("sites", "gates") and tuple(value) == Recipe.model_fields[name].default
