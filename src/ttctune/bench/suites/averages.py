"""The two averages in use; papers print either, and the second is 2 to 3 points higher, so both are named and shown."""

from collections.abc import Callable, Mapping
from statistics import fmean

from ttctune.bench.suites.vtab import VTAB
from ttctune.errors import DataError

#: Task -> group, of the 19.
VTAB_GROUPS: Mapping[str, str] = {name: row.group for name, row in VTAB.items()}


def mean_of_tasks(values: Mapping[str, float], groups: Mapping[str, str] = VTAB_GROUPS) -> float:
    """The mean over all tasks, each counting the same.

    Args:
        values: Task -> value.
        groups: Task -> group, of every task of the suite; VTAB's by default.

    Raises:
        DataError: A task has no value, or is none of the suite's: an average over some tasks is not this average.
    """
    _check(values, groups)
    return fmean(values[task] for task in groups)


def mean_of_groups(values: Mapping[str, float], groups: Mapping[str, str] = VTAB_GROUPS) -> float:
    """The mean over groups of the mean over each group's tasks; arguments and errors as in `mean_of_tasks`."""
    _check(values, groups)
    return fmean(group_means(values, groups).values())


def group_means(values: Mapping[str, float], groups: Mapping[str, str] = VTAB_GROUPS) -> dict[str, float]:
    """Group -> the mean over its tasks; arguments and errors as in `mean_of_tasks`."""
    _check(values, groups)
    names = dict.fromkeys(groups.values())
    return {name: fmean(values[task] for task, group in groups.items() if group == name) for name in names}


#: What a report calls them on VTAB.
AVERAGES: Mapping[str, Callable[[Mapping[str, float]], float]] = {
    "mean of 19 tasks": mean_of_tasks,
    "mean of 3 groups": mean_of_groups,
}


def _check(values: Mapping[str, float], groups: Mapping[str, str]) -> None:
    missing, foreign = [task for task in groups if task not in values], [task for task in values if task not in groups]
    if missing or foreign or not groups:
        given = f"values that lack {', '.join(missing)}" if missing else f"a value of {', '.join(foreign) or 'no task'}"
        raise DataError(given, f"one for each of the {len(groups)} tasks", "leave no task out of an average")
