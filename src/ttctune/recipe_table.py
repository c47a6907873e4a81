"""The page of the documentation on recipes: `python -m ttctune.recipe_table > docs/recipe.md`."""

import json
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from ttctune.recipe import PRESETS, Recipe, words_of

INTRODUCTION = """\
# The recipe

A recipe is every setting of a run. A TOML file sets those that it names:

```toml
# mine.toml
preset = "paper"
learning_rate = 0.02
sites = ["attn", "mlp"]
```

```bash
ttctune fit --data flowers/ --model deit_tiny_patch16_224 --recipe mine.toml --seed 1
```

What comes later wins: the defaults, the preset (`preset` in the file, or `--preset`, which replaces it), the file, the
flags. Each setting is a flag too: `learning_rate` is `--learning-rate`; a switch such as `flip` is `--flip` or
`--no-flip`. `--dry-run` prints the whole of it, and every run saves it as `recipe.toml` beside the adapter, to be given
again with `--recipe`. In Python: `Recipe.from_toml("mine.toml", seed=1)` and `recipe.to_toml()`.

| setting | default | `paper` | values | what it is |
|---|---|---|---|---|
"""

#: Kind of a value -> what people call it.
KINDS = {int: "whole number", float: "number", bool: "true, false"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def page() -> str:
    """The page as Markdown."""
    rows = (_row(name, field) for name, field in Recipe.model_fields.items())
    return INTRODUCTION + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(name: str, field: FieldInfo) -> tuple[str, ...]:
    paper = PRESETS["paper"]
    default = "" if field.default is None else f"`{json.dumps(field.default)}`"
    differs = f"`{json.dumps(paper[name])}`" if name in paper else ""
    return f"`{name}`", default, differs, _values(name, field), field.description or ""


def _values(name: str, field: FieldInfo) -> str:
    if words := words_of(name):
        several = "a list of " if get_origin(field.annotation) is tuple else ""
        return several + ", ".join(f"`{word}`" for word in words)
    found = ((said, getattr(bound, key, None)) for bound in field.metadata for key, said in BOUNDS.items())
    bounds = ", ".join(f"{said} {number:,}" for said, number in found if number is not None)
    return f"{_kind(field.annotation)} {bounds}".strip()


def _kind(annotation: Any) -> str:
    if annotation in KINDS:
        return KINDS[annotation]
    if get_origin(annotation) is tuple:
        return "`[height, width]`"
    return " or ".join(_kind(kind) for kind in get_args(annotation) if kind is not type(None))


if __name__ == "__main__":
    print(page(), end="")
