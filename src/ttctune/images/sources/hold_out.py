"""A val part taken out of train, class by class."""

import math

import torch

from ttctune.errors import DataError
from ttctune.images.batches import mixed_generator
from ttctune.images.sources.source import PartSource


def hold_out(
    train: PartSource, classes: tuple[str, ...], fraction: float, seed: int, *, strict: bool
) -> tuple[PartSource, PartSource]:
    """Split train into train and val, stratified.

    Each class gives round(fraction x its images), but never its last image. Where that leaves val empty, each
    class with two images or more gives one. Both parts keep train's order.

    Args:
        train: The part to split.
        classes: Class names in label order.
        fraction: Share held out, in (0, 1).
        seed: Decides which images; the same seed always gives the same split.
        strict: Refuse classes with a single image.

    Returns:
        What stays in train, and val (empty when no class can give an image).

    Raises:
        DataError: A class with one image, when strict.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(train.labels):
        members.setdefault(label, []).append(index)
    for label, indices in sorted(members.items()):
        if strict and len(indices) == 1:
            given = f"class {classes[label]!r} has one image"
            expected = f"at least 2, because a share of {fraction:g} of train is held out as val"
            raise DataError(given, expected, "add images, give a val part, or set val_fraction 0")
    counts = {
        label: min(math.floor(fraction * len(indices) + 0.5), len(indices) - 1) for label, indices in members.items()
    }
    if not any(counts.values()):
        counts = {label: min(1, len(indices) - 1) for label, indices in members.items()}
    held: set[int] = set()
    for label, indices in members.items():
        order = torch.randperm(len(indices), generator=mixed_generator(seed, label))
        held.update(indices[i] for i in order[: counts[label]].tolist())
    every = range(len(train))
    return train.choose([i for i in every if i not in held]), train.choose([i for i in every if i in held])
