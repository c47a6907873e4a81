"""Small tasks in folders, and a grid over them that runs in this process."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.records import protocol, record
from tests.images.pictures import write_image_tree

from ttctune.bench.engine import Advanced, Done, Engine, Event
from ttctune.bench.grid import Conditions, Job
from ttctune.bench.record import Record


def write_tasks(folder: Path, names: tuple[str, ...] = ("ants", "bees"), classes: int = 3) -> Path:
    """Write a folder of tasks, each with a few pictures in train, val and test, and an index.csv."""
    for seed, name in enumerate(names):
        root = write_image_tree(folder / name, classes, parts={"train": 4, "val": 3, "test": 2}, seed=seed)
        with (root / "index.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "split", "label", "class"])
            for path in sorted(root.rglob("*.png")):
                part, name_of_class, _ = path.relative_to(root).parts
                writer.writerow([path.relative_to(root), part, name_of_class.removeprefix("class"), name_of_class])
    return folder


def conditions(model: str, **changes: object) -> Conditions:
    """Two epochs in float32 on one thread."""
    values: dict[str, object] = {"suite": "folder", "model": model, "weights": None, "epochs": 2, "device": "cpu"}
    return Conditions(**(values | changes))  # type: ignore[arg-type]


class Here(Engine):
    """Says at once what becomes of a job, in this process and in the order in which they come.

    Args:
        conditions: What all jobs share.
        slots: How many may be waiting.
        instead: Returns what happens to a job; None does it, by `do`.
        do: Makes a record of a job; by default without any training.
    """

    title = "here"

    def __init__(
        self,
        conditions: Conditions,
        slots: int = 1,
        instead: Callable[[Job], Event | None] = lambda job: None,
        do: Callable[[Job, Conditions], Record] | None = None,
    ) -> None:
        self.conditions, self.slots, self.instead = conditions, slots, instead
        self.do = do or imagined
        self.waiting: list[Job] = []
        self.started: list[Job] = []

    def start(self, job: Job) -> None:
        assert len(self.waiting) < self.slots
        self.started.append(job)
        self.waiting.append(job)

    def wait(self) -> Sequence[Event]:
        job = self.waiting.pop(0)
        event = self.instead(job) or Done(job, self.do(job, self.conditions))
        if isinstance(event, Advanced):
            self.waiting.insert(0, job)
        return [event]

    def close(self) -> None:
        self.waiting = []


def imagined(job: Job, conditions: Conditions) -> Record:
    """A record of a job that nobody did, with its real settings."""
    return record(
        task=job.task.name,
        method=job.method,
        seed=job.seed,
        split=job.split,
        fold=job.fold,
        epochs=conditions.epochs,
        trials=job.trials,
        chosen_by=job.chosen_by,
        settings=conditions.settings(job),
        accuracy=0.5 + job.seed / 100,
        protocol=protocol(data_digest=conditions.data(job).digest),
    )
