"""Settings in a TOML file: read within bounds, with the line that each stands in; and written."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttctune.errors import RecipeError

#: A file of settings is a page of text; anything larger is something else.
LARGEST = 1 << 16
#: What the folder of a run calls its settings.
RECIPE = "recipe.toml"


@dataclass(frozen=True)
class SettingsFile:
    """What a TOML file sets.

    Attributes:
        path: Where it lies.
        values: Setting -> value, unchecked.
        lines: Setting -> line in the file, from 1, where it can be told.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]

    def located(self, error: RecipeError) -> RecipeError:
        """The same error, with the place it comes from; one that comes from elsewhere as it is."""
        ours = [name for name in error.settings if name in self.values]
        if not ours:
            return error
        line = f", line {self.lines[ours[0]]}" if len(error.settings) == 1 and ours[0] in self.lines else ""
        return RecipeError(f"{self.path}{line}: {error.given}", error.expected, error.advice, error.settings)


def read_settings(path: Path) -> SettingsFile:
    """Read a file of settings.

    Raises:
        RecipeError: It is missing, no file, too large, not UTF-8 or not TOML; the message names file, line and reason.
    """
    content = _bytes_of(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}, line {line}: not UTF-8", "a text file", "save it as UTF-8") from error
    if path.suffix == ".json" or text.lstrip().startswith("{"):
        advice = f"give the {RECIPE} that lies beside an adapter.json, or see `ttctune fit --help`"
        raise RecipeError(f"{path} is JSON", "a TOML file of settings", advice)
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not all of them TOMLDecodeErrors: a number of too many digits
        reason, _, place = str(error).removesuffix(")").partition(" (at ")
        where = f", {place}" if place else ""
        raise RecipeError(f"{path}{where}: {reason[:200]}", "a line like learning_rate = 0.01", "correct it") from error
    return SettingsFile(path, values, _lines_of(values, text))


def write_settings(values: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """A TOML text with a line and a comment for each setting; those that are None, which TOML cannot say, left out.

    Args:
        values: Setting -> a number, a switch, a word, or a list of those; JSON and TOML write these alike.
        comments: Setting -> what it is.
    """
    lines = {name: f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None}
    width = max(map(len, lines.values()), default=0)
    return "".join(f"{line:<{width}}  # {comments[name]}\n" for name, line in lines.items())


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except IsADirectoryError as error:
        advice = f"give {path / RECIPE}" if (path / RECIPE).is_file() else "give the file"
        raise RecipeError(f"recipe {path}: a folder", "a TOML file of settings", advice) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise RecipeError(f"recipe {path}: {reason}", "a TOML file of settings", "check the path") from error
    if len(content) > LARGEST:
        raise RecipeError(f"recipe {path}: over {LARGEST} bytes", "a TOML file of settings", "check the path")
    return content


def _lines_of(names: Iterable[str], text: str) -> dict[str, int]:
    """The line that sets each name, or opens a table of that name; names that are written in another way left out."""
    lines = {}
    for name in names:
        word = rf"[\"']?{re.escape(name)}[\"']?"
        found = re.search(rf"^[ \t]*({word}[ \t]*[=.]|\[+[ \t]*{word}[ \t]*[\].])", text, re.MULTILINE)
        if found:
            lines[name] = text.count("\n", 0, found.start()) + 1
    return lines
