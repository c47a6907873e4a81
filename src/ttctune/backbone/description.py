"""What a backbone says about itself: plain data, no model."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class InputDescription:
    """The pictures a model wants.

    Attributes:
        height: Rows, in pixels.
        width: Columns, in pixels.
        mean: Mean of each colour channel, in [0, 1]; its length is the number of channels.
        std: Standard deviation of each channel, same scale.
        interpolation: Name of the resampling filter, as timm spells it ("bicubic", "bilinear", "nearest", ...).
        crop_share: Share of the shorter side that the centre crop keeps (timm's `crop_pct`), in (0, 1].
        crop_mode: "center", "squash" or "border", as timm defines them; used with `resize = "crop"` only.
        resize: "squash" resizes the whole picture to height x width; "crop" is timm's evaluation transform.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_share: float = 1.0
    crop_mode: str = "center"
    resize: str = "squash"

    @property
    def channels(self) -> int:
        """Colour channels of the input."""
        return len(self.mean)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "InputDescription":
        """Rebuild from the mapping that `dataclasses.asdict` gives, after a trip through JSON."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
