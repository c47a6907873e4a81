"""Settings that were chosen beforehand: a TOML file with a table for each method that departs from its recipe.

[lora]
learning_rate = 0.003
rank = 16
trials = 4            # how many were tried on val; left out where nobody tried any

["lora@wide"]         # a variant: LoRA again, beside the first, with other settings
rank = 64
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ttctune.bench.methods import METHODS, VARIANT, method_of
from ttctune.errors import RecipeError
from ttctune.settings_file import read_settings

#: Settings that are the grid's, the same for every method: the command's own options.
OF_THE_GRID = ("seed", "tune_epochs", "val_fraction", "image_size", "precision")


def read_chosen(path: Path, methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Method -> what its jobs have beside task, split and seed: `settings`, `dial`, `trials`, `chosen_by`.

    Raises:
        RecipeError: The file cannot be read, is no table of tables of these methods, or sets what is the grid's; the
            settings themselves are checked where recipes are made of them.
    """
    chosen = {}
    known = tuple(methods)
    for name, table in read_settings(path).values.items():
        if name.partition(VARIANT)[0] not in METHODS or not isinstance(table, dict):
            raise RecipeError(f"{path}: {name[:100]}", f"a table [METHOD], of {', '.join(METHODS)}", "correct it")
        if name in known:
            chosen[name] = _of_jobs(path, name, table)
    return chosen


def check_variants(methods: Iterable[str], chosen: Mapping[str, Any]) -> None:
    """Every variant needs settings of its own, or it would be its method under another name.

    Raises:
        RecipeError: One has none.
    """
    for name in methods:
        own = chosen.get(name, {})
        if VARIANT in name and not own.get("settings") and own.get("dial") is None:
            raise RecipeError(f"{name} without settings", f'a table ["{name}"] in --settings FILE', "add it")


def _of_jobs(path: Path, method: str, table: dict[str, Any]) -> dict[str, Any]:
    dial = method_of(method).dial
    settings = dict(table)
    for name in OF_THE_GRID:
        if name in settings:
            raise RecipeError(f"{path}: {name} of {method}", "what is the same for all methods left out", "remove it")
    trials = settings.pop("trials", 0)
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 0:
        raise RecipeError(f"{path}: trials = {trials!r} of {method}", "a whole number of at least 0", "correct it")
    value = None if dial is None else settings.pop(dial.name, None)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise RecipeError(f"{path}: {dial and dial.name} = {value!r} of {method}", "a number", "correct it")
    return {
        "settings": settings,
        "dial": value,
        "trials": trials,
        "chosen_by": "search on val" if trials else "given" if settings or value is not None else "recipe",
    }
