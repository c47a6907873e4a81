"""Tiny models in folders, tiny recipes and command lines: what the tests of whole runs share."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import ttctune.torchvision_operators  # noqa: F401  isort: skip  (before timm)

import timm.models
import torch
from safetensors.torch import load_file
from tests.models import tiny
from torch import nn

from ttctune.adapter_folder import digest_of
from ttctune.recipe import Recipe

SIDE = 32
MODEL_ARGS = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
PIXELS = {
    "input_size": (3, SIDE, SIDE),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "center",
}


def vit(seed: int = 0) -> nn.Module:
    """A random vision transformer of 32 pixels, two blocks, 32 channels, without a head."""
    return tiny("vit", seed=seed, num_classes=0)


def save_model(folder: Path, model: nn.Module | None = None, architecture: str = "vit_tiny_patch16_224") -> str:
    """Write a model as timm's local folder; returns the name that opens it."""
    model = vit() if model is None else model
    folder.mkdir(parents=True, exist_ok=True)
    model.pretrained_cfg = {"architecture": architecture, "num_classes": 0, **PIXELS}
    config = {"model_args": MODEL_ARGS | {"num_classes": 0}, "num_classes": 0, "num_features": 32}
    timm.models.save_for_hf(model, str(folder), model_config=config, safe_serialization=True)
    return f"local-dir:{folder}"


def short(**changes: object) -> Recipe:
    """One epoch a stage, batches of 6, float32."""
    settings: dict[str, object] = {"align_epochs": 1, "tune_epochs": 1, "batch_size": 6, "precision": "fp32"}
    return Recipe(**(settings | changes))


def short_flags(**changes: object) -> list[str]:
    """The flags of `short()`."""
    settings: dict[str, object] = {"align_epochs": 1, "tune_epochs": 1, "batch_size": 6, "precision": "fp32"}
    return [
        text for name, value in (settings | changes).items() for text in (f"--{name.replace('_', '-')}", str(value))
    ]


def arrays(per_class: int = 6, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 pictures whose mean colour tells their class, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(per_class * classes) % classes
    pictures = random.integers(0, 90, (len(labels), SIDE, SIDE, 3), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        picture[..., label % 3] += 120
    return pictures, labels


def sha(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_record(folder: Path, record: dict, files: Iterable[str] = ()) -> None:
    """Write adapter.json as one would who knows its digests: its own, and those of `files`."""
    if isinstance(record.get("sha256"), dict):
        record["sha256"] |= {name: sha(folder / name) for name in files}
    (folder / "adapter.json").write_text(json.dumps(record | {"digest": digest_of(record)}))


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every tensor of a model."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter's file."""
    return load_file(folder / "adapter.safetensors")
