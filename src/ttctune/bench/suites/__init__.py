"""Tasks to compare methods on: the 19 of VTAB-1k, or any folders; how they are split; whether a copy is right."""

from ttctune.bench.suites.splits import FOLDS, data_of
from ttctune.bench.suites.suites import SUITES, tasks_of
from ttctune.bench.suites.task import SPLITS, Split, Task, TaskData
from ttctune.bench.suites.vtab import VTAB, VtabTask

__all__ = [
    "FOLDS",
    "SPLITS",
    "SUITES",
    "VTAB",
    "Split",
    "Task",
    "TaskData",
    "VtabTask",
    "data_of",
    "tasks_of",
]
