"""Accuracies that others have published on VTAB-1K, with source and protocol marks: `published.toml`, read."""

import tomllib
from functools import cache
from importlib import resources
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Row(BaseModel):
    """What was published of one method.

    Attributes:
        method: Its name.
        year: Of publication; None for what has none.
        parameters: In millions, as text; None where they were not found.
        sources: Keys of `Published.sources`.
        marks: Keys of `Published.marks`: what is particular about its protocol.
        accuracy: In %, one for each task; None where only means are known.
        mean_of_tasks: In %, over all tasks.
        mean_of_groups: In %, of the means of the groups.
        stated: The means that are as printed; the others are computed from the numbers of the tasks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: str
    year: int | None = None
    parameters: str | None = None
    sources: tuple[str, ...] = Field(min_length=1)
    marks: tuple[str, ...] = ()
    accuracy: tuple[float, ...] | None = None
    mean_of_tasks: float | None = None
    mean_of_groups: float | None = None
    stated: tuple[str, ...] = ()


class Published(BaseModel):
    """The data file.

    Attributes:
        groups: Group -> its tasks, in the order of `Row.accuracy`.
        sources: Key -> where numbers were read.
        marks: Key -> what is particular about a protocol.
        row: The methods.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    groups: dict[str, tuple[str, ...]]
    sources: dict[str, str]
    marks: dict[str, str]
    row: tuple[Row, ...]

    @model_validator(mode="after")
    def _check(self) -> "Published":
        for row in self.row:
            unknown = {*row.sources} - {*self.sources} | {*row.marks} - {*self.marks}
            if unknown or (row.accuracy is not None and len(row.accuracy) != len(self.tasks)):
                raise ValueError(f"{row.method}: unknown {sorted(unknown)}, or not {len(self.tasks)} numbers")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, group after group."""
        return tuple(task for tasks in self.groups.values() for task in tasks)

    def means(self, row: Row) -> tuple[float | None, float | None]:
        """Mean over tasks, and mean over the means of groups, in %; None where it is not known."""
        if row.accuracy is None:
            return row.mean_of_tasks, row.mean_of_groups
        by_task = dict(zip(self.tasks, row.accuracy, strict=True))
        by_group = [fmean(by_task[task] for task in tasks) for tasks in self.groups.values()]
        return fmean(row.accuracy), fmean(by_group)


@cache
def published() -> Published:
    """What `published.toml` holds."""
    text = resources.files("ttctune.bench").joinpath("published.toml").read_text("utf-8")
    return Published.model_validate(tomllib.loads(text))
