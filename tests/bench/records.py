"""Records of jobs that nobody ran."""

from typing import Any

import numpy as np

from ttctune.bench.record import Normalisation, Protocol, Record, packed


def protocol(**changes: Any) -> Protocol:
    """A protocol, with changes."""
    values: dict[str, Any] = {
        "image_size": (64, 64),
        "resize": "squash",
        "normalisation": Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3),
        "precision": "fp32",
        "threads": 1,
        "device": "cpu",
        "epochs": 5,
        "model": "vit",
        "backbone_digest": "b1",
        "data_digest": "d1",
        "versions": {"torch": "2"},
    }
    return Protocol(**(values | changes))


def record(**changes: Any) -> Record:
    """A record with a result, or without one where `failed` is among the changes."""
    values: dict[str, Any] = {
        "suite": "folder",
        "task": "digits",
        "group": "none",
        "split": "val",
        "method": "norm",
        "seed": 0,
        "epochs": 5,
    }
    result: dict[str, Any] = {
        "settings": {"learning_rate": 0.01},
        "protocol": protocol(),
        "classes": ("a", "b"),
        "accuracy": 0.75,
        "parameters": 10,
        "head_parameters": 4,
        "seconds": 1.5,
        "history": ({"stage": "norms", "epoch": 1, "loss": 0.5, "accuracy": 0.5, "seconds": 1.5},),
        "labels": packed(np.array([0, 1, 0, 1])),
        "predictions": packed(np.array([0, 1, 1, 1])),
    }
    return Record(**(values | ({} if "failed" in changes else result) | changes))
