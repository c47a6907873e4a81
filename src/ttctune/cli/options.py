"""Options that several verbs share, and the flags made from the recipe.

Values are read as text and checked here or by the recipe, so that a bad value is one line and exit code 1.
"""

import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from ttctune.errors import RecipeError
from ttctune.machine import MOST_THREADS
from ttctune.recipe import PRESETS, SEEDS, Recipe, description_of, flag_of

Weights = Annotated[
    Path | None, typer.Option(help="File of the backbone's weights, instead of timm's hub.", metavar="FILE")
]
Model = Annotated[
    str | None, typer.Option(help="The backbone, where it has moved; default: by its name.", metavar="NAME")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Threads = Annotated[
    str | None,
    typer.Option(
        help="Threads of the CPU; on a busy machine fewer are often faster. Default: torch's choice.", metavar="N"
    ),
]
Workers = Annotated[
    str | None, typer.Option(help="Threads that decode images. Default: one a core, 8 at most.", metavar="N")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no hints, fewer tables.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Seed = Annotated[str, typer.Option(help="Of everything that is random.", metavar="N")]
FormatOption = Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16; auto is fp32 here.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe", help="TOML file of settings; flags win over it.", metavar="FILE", rich_help_panel="Recipe"
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(help=f"{' or '.join(PRESETS)}; what the other settings start from.", rich_help_panel="Recipe"),
]
Adapter = Annotated[Path, typer.Argument(help="Folder made by `ttctune fit`.", metavar="FOLDER")]

FORMATS = ("fp32", "bf16", "fp16")


def whole_number(flag: str, text: str, least: int = 1, most: int | None = None) -> int:
    """Read a whole number.

    Raises:
        RecipeError: It is none, or out of bounds.
    """
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise RecipeError(f"{flag} {text}", f"a whole number {bounds}", f"change {flag}")
    return value


def probability(flag: str, text: str | None) -> float | None:
    """Read a number between 0 and 1; None where none was given.

    Raises:
        RecipeError: It is none, or out of bounds.
    """
    return None if text is None else number_up_to(1, flag, text, "a probability between 0 and 1")


def number_up_to(most: float, flag: str, text: str, expected: str) -> float:
    """Read a number from 0 to `most`.

    Raises:
        RecipeError: It is none, or out of bounds.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise RecipeError(f"{flag} {text}", expected, f"change {flag}")
    return value


def threads_of(text: str | None) -> int | None:
    """The value of --threads."""
    return None if text is None else whole_number("--threads", text, most=MOST_THREADS)


def workers_of(text: str | None) -> int | None:
    """The value of --workers."""
    return None if text is None else whole_number("--workers", text, most=MOST_THREADS)


def seed_of(text: str) -> int:
    """The value of --seed."""
    return whole_number("--seed", text, least=0, most=SEEDS - 1)


def start(precision: str, threads: str | None, seed: str) -> str:
    """Set threads and seed, and return the number format for using a model.

    Raises:
        RecipeError: A value is not as expected.
    """
    if precision not in ("auto", *FORMATS):
        raise RecipeError(f"--precision {precision}", f"auto, {', '.join(FORMATS)}", "change --precision")
    chosen, number = seed_of(seed), threads_of(threads)
    import torch

    torch.manual_seed(chosen)
    if number is not None:
        torch.set_num_threads(number)
    return "fp32" if precision == "auto" else precision


def with_recipe(command: Callable[..., None]) -> Callable[..., None]:
    """Give a verb one flag for each setting of the recipe; it gets them, checked, as its argument `recipe`.

    Its argument `from_file` says whether some of them came from a file.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name not in ("recipe", "from_file")]
    flags = [_flag(name) for name in Recipe.model_fields]
    bases = [_keyword(name, annotation) for name, annotation in (("recipe", RecipeFile), ("preset", Preset))]

    def wrapped(**values: Any) -> None:
        given = {n: values.pop(n) for n in ("preset", *Recipe.model_fields)}
        changes = {n: v for n, v in given.items() if v is not None}
        file = values.pop("recipe")
        recipe = (
            Recipe.from_toml(file, **changes) if file else Recipe.preset(changes.pop("preset", "default"), **changes)
        )
        command(recipe=recipe, from_file=file is not None, **values)

    parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *bases, *flags]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapped.__doc__ = command.__doc__
    return wrapped


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag(name: str) -> inspect.Parameter:
    field = Recipe.model_fields[name]
    kind = field.annotation
    default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    says_default = default is None or "default:" in (field.description or "")
    text = description_of(name) + ("" if says_default else f" (default: {str(default).lower()})")
    flag = flag_of(name)
    if kind is bool:
        option = typer.Option(f"{flag}/--no-{flag[2:]}", help=text, rich_help_panel="Recipe", show_default=False)
        annotation: Any = Annotated[bool | None, option]
    else:
        option = typer.Option(flag, help=text, metavar=_metavar(kind), rich_help_panel="Recipe", show_default=False)
        annotation = Annotated[str | None, option]
    return _keyword(name, annotation)


def _metavar(kind: Any) -> str:
    """A word -> "NAME", words -> "NAME,...", int -> "N", float -> "X"."""
    if get_origin(kind) is Literal:
        return "NAME"
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        return "NAME,..."
    if get_origin(kind) in (types.UnionType, typing.Union):
        members = [k for k in get_args(kind) if k is not type(None)]
        return "|".join(dict.fromkeys(_metavar(k) for k in members))
    return {int: "N", float: "X"}.get(kind, "HxW")
