"""Stand-ins for `datasets` and `tensorflow_datasets`: what ttctune uses of them, over pictures in memory."""

import sys
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image


def pixels(number: int, channels: int = 3) -> np.ndarray:
    """A picture of 6 x 5 that no other number has."""
    return np.random.default_rng(number).integers(0, 256, (5, 6, channels), dtype=np.uint8)


class ClassLabel:
    """A column of numbers with names."""

    def __init__(self, classes: int) -> None:
        self.names = [f"c{i}" for i in range(classes)]


class Value:
    """A column of anything else."""


class Rows(list):
    """A split: rows as mappings, and the kinds of its columns."""

    features: dict[str, Any]


def hugging_face(sizes: Mapping[str, int], classes: int) -> ModuleType:
    """`datasets` with one data set, "me/set", whose labels take turns; picture i of split s is `pixels(i + 1000 s)`."""
    kinds = {"img": type("Image", (), {})(), "fine_label": ClassLabel(classes), "id": Value()}

    def split(offset: int, size: int) -> Rows:
        rows = Rows(
            {"img": Image.fromarray(pixels(i + offset)), "fine_label": i % classes, "id": f"{i}"} for i in range(size)
        )
        rows.features = kinds
        return rows

    def load_dataset(name: str, config: str | None = None) -> dict[str, Rows]:
        if name != "me/set":
            raise FileNotFoundError(f"Couldn't find any data file at\n{name}")
        return {name: split(1000 * number, size) for number, (name, size) in enumerate(sizes.items())}

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    return module


def tensorflow_datasets(
    sizes: Mapping[str, int], example: Callable[[int], dict[str, Any]], asked: list[str]
) -> ModuleType:
    """`tensorflow_datasets` whose examples come from their number; what it is asked for is noted in `asked`."""

    class Builder:
        def __init__(self, name: str, data_dir: str | None) -> None:
            asked.append(f"{name} in {data_dir}")
            splits = {split: SimpleNamespace(num_examples=size) for split, size in sizes.items()}
            self.info = SimpleNamespace(splits=splits, full_name=name.replace("*", "0"))

        def download_and_prepare(self) -> None:
            asked.append("prepared")

        def as_dataset(self, split: str) -> list[dict[str, Any]]:
            asked.append(split)
            start, _, stop = split[split.index("[") + 1 : -1].partition(":")
            return [example(number) for number in range(int(start), int(stop))]

    module = ModuleType("tensorflow_datasets")
    module.builder = lambda name, data_dir=None: Builder(name, data_dir)  # type: ignore[attr-defined]
    module.as_numpy = lambda dataset: dataset  # type: ignore[attr-defined]
    return module


def install(monkeypatch: Any, module: ModuleType | None, name: str) -> None:
    """Let `import name` find the stand-in; None makes it fail as a package that is not installed does."""
    monkeypatch.setitem(sys.modules, name, module)
