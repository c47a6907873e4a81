"""A plain model as a folder in timm's format: `timm.create_model("local-dir:FOLDER", pretrained=True)` opens it."""

from pathlib import Path
from typing import Any

from torch import nn

import ttctune.torchvision_operators  # noqa: F401  (before timm)
from ttctune.backbone import embedded

import timm.models  # isort: skip

from ttctune.backbone.description import InputDescription
from ttctune.version import __version__


def write_timm_folder(folder: Path, model: nn.Module, description: InputDescription, classes: tuple[str, ...]) -> None:
    """Write config.json (architecture, sizes, preprocessing, class names) and model.safetensors.

    Args:
        folder: Exists, and is owned by this process.
        model: A merged model.
        description: Of the pictures it takes.
        classes: Class names in label order.
    """
    config: dict[str, Any] = {"label_names": list(classes), "merged_by_ttctune": __version__}
    if model.pretrained_cfg["architecture"] == embedded.NAME:  # type: ignore[index]
        config["pretrained_cfg"] = {"architecture": embedded.GENERIC}
        config["model_args"] = {**embedded.SHAPE, "img_size": (description.height, description.width)}
    timm.models.save_for_hf(
        model,
        str(folder),
        model_config=config,
        safe_serialization=True,
        data_config={
            "input_size": (description.channels, description.height, description.width),
            "mean": description.mean,
            "std": description.std,
            "interpolation": description.interpolation,
            "crop_pct": 1.0 if description.resize == "squash" else description.crop_share,
            "crop_mode": "squash" if description.resize == "squash" else description.crop_mode,
        },
    )
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)  # else its owner alone could read it
