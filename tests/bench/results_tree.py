"""A results folder that nobody ran: tasks x methods x seeds, from a seeded generator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tests.bench.records import protocol, record

from ttctune.bench.record import Record, packed, packed_names, write_record
from ttctune.bench.results_folder import SUITE, Header

TASKS = {"flowers": "natural", "lungs": "specialised", "rooms": "structured", "shapes": "structured"}
#: Method -> share of right answers that it tends to, parameters, seconds.
METHODS = {
    "linear": (0.45, 0, 3.0),
    "norm": (0.6, 640, 12.0),
    "full": (0.62, 50_000, 30.0),
    "ttc": (0.8, 2_800, 14.0),
}
SEEDS, IMAGES, CLASSES, EPOCHS = 3, 120, 5, 6
WIDTH, BLOCKS, CHOSEN = 32, 3, 8


def write_results(
    folder: Path,
    tasks: Mapping[str, str] = TASKS,
    methods: Any = METHODS,
    seeds: int = SEEDS,
    split: Any = "val",
    trials: int = 0,
) -> Path:
    """Write a whole results folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUITE).write_text(
        Header(suite="folder", split=split, model="vit", backbone_digest="b1", epochs=EPOCHS).model_dump_json()
    )
    for task, group in tasks.items():
        for method in methods:
            for seed in range(seeds):
                write_record(folder, made(task, method, seed, group=group, split=split, trials=trials))
    return folder


def made(task: str, method: str, seed: int, **changes: Any) -> Record:
    """The record of one job; the same arguments give the same record."""
    share, parameters, seconds = METHODS[method]
    place, images = list(TASKS).index(task), np.random.default_rng(list(TASKS).index(task))
    labels, difficulty = images.integers(0, CLASSES, IMAGES), images.random(IMAGES)
    chance = np.random.default_rng([place, list(METHODS).index(method), seed])
    right = difficulty + chance.normal(0, 0.1, IMAGES) < share - 0.04 * place
    predictions = np.where(right, labels, (labels + chance.integers(1, CLASSES, IMAGES)) % CLASSES)
    scores = {
        f"{b}.{kind}": chance.random(WIDTH) * images.random(WIDTH) for b in range(BLOCKS) for kind in ("attn", "mlp")
    }
    two_stage = method == "ttc"
    values: dict[str, Any] = {
        "task": task,
        "group": TASKS[task],
        "method": method,
        "seed": seed,
        "epochs": EPOCHS,
        "protocol": protocol(epochs=EPOCHS, data_digest=f"digest of {task}"),
        "classes": tuple(f"{task} {number}" for number in range(CLASSES)),
        "accuracy": float((labels == predictions).mean()),
        "parameters": parameters,
        "head_parameters": 165,
        "seconds": seconds + seed,
        "history": tuple(_history(two_stage, chance)),
        "labels": packed(labels),
        "predictions": packed(predictions),
        "files": packed_names([f"{number:03}.png" for number in range(IMAGES)]),
        "importance": {site: packed(score, "<f2") for site, score in scores.items()} if two_stage else None,
        "selection": {s: tuple(sorted(map(int, v.argsort()[-CHOSEN:]))) for s, v in scores.items()}
        if two_stage
        else None,
    }
    return record(**(values | changes))


def failed(task: str, method: str, seed: int, reason: str) -> Record:
    """The record of a job that failed."""
    return record(task=task, group=TASKS[task], method=method, seed=seed, epochs=EPOCHS, failed=reason)


def _history(two_stage: bool, chance: np.random.Generator) -> list[dict[str, Any]]:
    stages = ["norms"] * 2 + ["channels"] * (EPOCHS - 2) if two_stage else ["head"] * EPOCHS
    losses = 1.6 * 0.7 ** np.arange(EPOCHS) + chance.random(EPOCHS) * 0.05
    return [
        {
            "stage": stage,
            "epoch": stages[: place + 1].count(stage),
            "loss": float(loss),
            "accuracy": None,
            "seconds": 1.0,
        }
        for place, (stage, loss) in enumerate(zip(stages, losses, strict=True))
    ]
