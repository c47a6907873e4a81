"""Every setting of a run: its default, unit and bounds, in one place.

The command line's flags, the presets, the files of settings and the saved record are all made from `Recipe`.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ttctune.errors import RecipeError
from ttctune.settings_file import read_settings, write_settings

SiteKind = Literal["attn", "mlp", "qkv", "fc1", "stream"]
GateKind = Literal["attn", "mlp", "qkv", "fc1"]
Form = Literal["map", "rows"]
Importance = Literal[
    "taylor",
    "taylor_tokens",
    "taylor_signed",
    "taylor_squared",
    "taylor_class",
    "taylor_weight",
    "taylor_map",
    "gradient",
    "l2",
    "random",
    "lowest",
]
Tokens = Literal["all", "patches", "cls"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
StageTwo = Literal["trained", "slower", "frozen"]

SITE_KINDS: tuple[str, ...] = get_args(SiteKind)
IMPORTANCES: tuple[str, ...] = get_args(Importance)
#: Settings that decide where and which channels are tuned, and how.
SELECTION = ("sites", "channels", "budget", "form", "gates", "importance", "tokens")
#: Learning rate of what `tune_norms` or `tune_head` calls "slower", as a share of the usual one.
SLOWER = 0.1
#: Whole numbers beyond this are no TOML, and no JSON that others read.
LARGEST_NUMBER = 2**63
#: No picture has more pixels a side, in a recipe or in an adapter's record.
LARGEST_SIDE = 4096
#: A seed is below this.
SEEDS = 2**31
#: Characters of a value that a message shows.
LONGEST_SHOWN = 100


class Recipe(BaseModel):
    """Settings of one adaptation; immutable, checked when made, unknown names refused.

    Raises:
        RecipeError: A value is out of bounds or a name is unknown; the message names the nearest setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    align_epochs: int = Field(2, ge=0, description="epochs of stage 1; 0 scores after one epoch of the head alone")
    tune_epochs: int = Field(18, ge=0, description="epochs of stage 2; 0 stops after the alignment")
    sites: tuple[SiteKind, ...] = Field(("attn", "mlp"), description="layers whose output channels are tuned")
    channels: int | float = Field(
        0.125, description="channels a site: a number, or a share of the site's own width below 1"
    )
    budget: int | None = Field(
        None, ge=1, description="parameters of maps or rows over all sites, spent by score; replaces --channels"
    )
    form: Form = Field("map", description="K x K map of the channels, or their own weight rows")
    gates: tuple[GateKind, ...] = Field(
        ("qkv", "fc1"), description='layers all of whose channels get a scale and a shift too; none: ""'
    )
    importance: Importance = Field("taylor", description="how channels are scored")
    tokens: Tokens = Field("all", description="tokens that the score sees")
    tune_norms: StageTwo = Field("trained", description="norms in stage 2; slower = a tenth of their rate")
    tune_head: StageTwo = Field("trained", description="head in stage 2; slower = a tenth of its rate")

    learning_rate: float = Field(1e-2, gt=0, le=10, description="AdamW, for maps, rows and gates")
    norm_learning_rate: float | None = Field(None, gt=0, le=10, description="for norms; default: as for maps")
    head_learning_rate: float | None = Field(
        None, gt=0, le=10, description="for the head; default: half of that for maps"
    )
    weight_decay: float = Field(1e-2, ge=0, le=10, description="AdamW, on matrices: maps, rows, the head's weight")
    warmup_epochs: float = Field(1.0, ge=0, description="linear warm-up of each stage, at most half of it")
    batch_size: int = Field(32, ge=1, description="images a step")
    accumulation: int = Field(1, ge=1, description="parts a batch is computed in, to save memory")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target spread over all classes")
    class_weights: bool = Field(False, description="weigh the loss by 1 / class frequency")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth, rate at the last block")
    gradient_clip: float = Field(0.0, ge=0, description="largest gradient norm; 0: no clipping")

    image_size: int | tuple[int, int] | None = Field(
        None,
        description=f"input size in pixels, a number or HEIGHTxWIDTH, at most {LARGEST_SIDE}; default: the model's own",
    )
    resize: Literal["squash", "crop"] = Field("squash", description="whole picture, or timm's centre crop")
    flip: bool = Field(False, description="random mirror images; hurts left/right, text, digits, signs, orientation")
    crop: bool = Field(False, description="random shifts by up to 1/8; hurts position, count, distance")
    randaugment: int = Field(
        0, ge=0, le=30, description="RandAugment magnitude, 0: off; hurts colour, orientation, pose, position"
    )
    val_fraction: float = Field(0.2, ge=0, lt=1, description="share of train held out where the data has no val part")
    skip_bad: bool = Field(False, description="leave unreadable images out, and count them")
    cache_mb: int = Field(4096, ge=1, description="decoded images kept in memory up to this; beyond it on disk")
    streaming: bool = Field(False, description="keep no decoded images, decode them anew in every epoch")

    precision: Precision = Field("auto", description="auto measures a few steps and keeps the fastest safe one")
    compile: bool = Field(False, description="use torch.compile where a compiler is found (C++, on CUDA C)")
    adapter_dtype: Literal["float32", "float16"] = Field("float32", description="of the adapter's file")
    seed: int = Field(0, ge=0, lt=SEEDS, description="of everything that is random")

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _as_recipe_error(error, values) from None

    @field_validator("*", mode="before")
    @classmethod
    def _check_kind(cls, value: Any, field: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(field.field_name)].annotation is not bool:
            raise ValueError("something else than a switch")
        return cls._check_number(value)

    @field_validator("sites", "gates", mode="before")
    @classmethod
    def _split_sites(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",")) if value.strip() else ()

    @field_validator("sites")
    @classmethod
    def _check_sites(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("at least one site, each named once")
        return value

    @field_validator("gates")
    @classmethod
    def _check_gates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each site named once")
        return value

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, value: float) -> float:
        if value <= 0 or (value >= 1 and value != int(value)):
            raise ValueError("a whole number of at least 1, or a share between 0 and 1")
        return value if 0 < value < 1 else int(value)

    @field_validator("image_size", mode="before")
    @classmethod
    def _split_size(cls, value: Any) -> Any:
        if isinstance(value, str) and "x" in value:
            return tuple(value.split("x"))
        return value

    @field_validator("image_size")
    @classmethod
    def _check_size(cls, value: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
        sides = () if value is None else value if isinstance(value, tuple) else (value,)
        if not all(1 <= side <= LARGEST_SIDE for side in sides):
            raise ValueError(f"1 to {LARGEST_SIDE} pixels a side")
        return value

    @field_validator("*")
    @classmethod
    def _check_number(cls, value: Any) -> Any:
        """Once more: flags arrive as text."""
        if isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
            raise ValueError("a number that fits into 64 bits")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> "Recipe":
        for setting, value, needs_weights in (
            ("form", self.form, "rows"),
            ("importance", self.importance, "taylor_weight"),
        ):
            if "stream" in self.sites and value == needs_weights:
                raise RecipeError(
                    f"{setting} = {value} at stream", "sites that have weights", "change --sites", (setting, "sites")
                )
        if self.accumulation > self.batch_size:
            raise RecipeError(
                f"accumulation = {self.accumulation} with batch_size = {self.batch_size}",
                "at least one image in each part of a batch",
                "lower --accumulation",
                ("accumulation", "batch_size"),
            )
        return self

    @classmethod
    def preset(cls, name: str = "default", /, **changes: Any) -> "Recipe":
        """The recipe called `name`, with `changes` on top.

        Raises:
            RecipeError: No preset of that name, or a bad value among the changes.
        """
        if not isinstance(name, str) or name not in PRESETS:
            raise RecipeError(f"preset {name!r}", " or ".join(PRESETS), "choose one of these", ("preset",))
        return cls(**{**PRESETS[name], **changes})

    @classmethod
    def from_toml(cls, path: str | Path, /, **changes: Any) -> "Recipe":
        """The recipe that a TOML file sets apart from the defaults, with `changes` on top.

        Args:
            path: A file of lines like `learning_rate = 0.02`; its key `preset` names the preset it starts from.
            changes: Settings, or `preset`, that win over the file.

        Raises:
            RecipeError: The file cannot be read, or a name or value in it or among the changes is wrong; the message
                names file and line where the file is to blame.
        """
        file = read_settings(Path(path))
        values = {**file.values, **changes}
        try:
            for name in file.values.keys() - {*cls.model_fields, "preset"}:
                raise _unknown(name, [*cls.model_fields, "preset"])
            return cls.preset(values.pop("preset", "default"), **values)
        except RecipeError as error:
            if set(error.settings) & changes.keys():
                raise
            raise file.located(error) from None

    def to_toml(self) -> str:
        """Every setting as a TOML text, which `from_toml` reads back to an equal recipe; None by leaving it out."""
        return write_settings(
            self.model_dump(mode="json"), {name: description_of(name) for name in Recipe.model_fields}
        )

    @property
    def norm_rate(self) -> float:
        """Learning rate of the norms."""
        return self.norm_learning_rate or self.learning_rate

    @property
    def head_rate(self) -> float:
        """Learning rate of the head."""
        return self.head_learning_rate or self.learning_rate / 2

    def channels_of(self, width: int) -> int:
        """K, the channels to tune, of a site that is `width` channels wide."""
        if isinstance(self.channels, int):
            return self.channels
        return max(1, round(self.channels * width))

    def continuing(self, earlier: "Recipe") -> "Recipe":
        """These settings for a warm start: those that were not set here are the earlier run's, but for `WARM_START`."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**earlier.model_dump(), **WARM_START, **given})

    def change(self, **changes: Any) -> "Recipe":
        """A checked copy with other values."""
        return type(self)(**{**self.model_dump(), **changes})


#: What a warm start sets apart from the earlier run: no alignment, which keeps its selection, and few epochs.
WARM_START: Mapping[str, Any] = {"align_epochs": 0, "tune_epochs": 6}

#: Named recipes: what each sets apart from the defaults above.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "paper": {
        "align_epochs": 10,
        "tune_epochs": 10,
        "sites": ("attn",),
        "channels": 0.125,
        "gates": (),
        "tune_norms": "frozen",
    },
}


def flag_of(setting: str) -> str:
    """`learning_rate` -> `--learning-rate`."""
    return "--" + setting.replace("_", "-")


def words_of(setting: str) -> tuple[str, ...]:
    """The words that a setting can be, or be a list of; none where it is something else."""
    kind = Recipe.model_fields[setting].annotation
    words = get_args(get_args(kind)[0] if get_origin(kind) is tuple else kind)
    return words if all(isinstance(word, str) for word in words) else ()


def description_of(setting: str) -> str:
    """What a setting is, in one line, with the words that it can be."""
    *words, last = words_of(setting) or ("",)
    several = get_origin(Recipe.model_fields[setting].annotation) is tuple
    choices = f"{', '.join(words)} {'and' if several else 'or'} {last}: " if last else ""
    return choices + (Recipe.model_fields[setting].description or "")


def _as_recipe_error(error: ValidationError, values: Mapping[str, Any]) -> RecipeError:
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RecipeError):
        return cause
    name = str(first["loc"][0]) if first["loc"] else "recipe"
    if first["type"] == "extra_forbidden":
        return _unknown(name, Recipe.model_fields)
    expected = first["msg"].removeprefix("Value error, ")
    expected = expected[:1].lower() + expected[1:]
    expected = expected.removeprefix("input should be ").removeprefix("input should ")
    return RecipeError(f"{name} = {_shown(values[name])}", expected, f"change {flag_of(name)}", (name,))


def _unknown(name: str, known: Iterable[str]) -> RecipeError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    advice = f"did you mean {' or '.join(near)}?" if near else "see `ttctune fit --help`"
    return RecipeError(f"unknown setting {_shown(name)}", "a setting of the recipe", advice, (name,))


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
