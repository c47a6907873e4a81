"""From a task and a split to the images to train on and those to score on."""

import torch

from ttctune.bench.suites.task import SPLITS, Split, Task, TaskData, check_unicode
from ttctune.errors import DataError
from ttctune.images import PartSource, Source, open_source, picture_name
from ttctune.images.batches import mixed_generator
from ttctune.images.sources.labels import number_names

FOLDS = 5
#: Which parts of a task a split touches.
_TOUCHED = {"val": ("train", "val"), "test": ("train", "val", "test"), "cv": ("train", "val")}
#: Held out of train for split "val" where a task of unknown layout has no val part; a fifth, as VTAB's 200 of 1,000.
_VAL_FRACTION = 0.2


def data_of(
    task: Task,
    split: Split,
    fold: int | None = None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    shots: int | None = None,
    draw: int = 0,
) -> TaskData:
    """The images of one job.

    Args:
        task: From `tasks_of`.
        split: "val", "test" or "cv".
        fold: With "cv", the fold that is left out and scored, from 0; None with the others.
        folds: With "cv", how many there are; each has the same share of every class, to one image.
        seed: Decides which image is in which fold, and what is held out of a train part without val.
        shots: Images of each class to train on; None takes all.
        draw: Decides which ones these are.

    Raises:
        DataError: The split is unknown, the fold is not one of the folds, or the task lacks a part, cannot be read, has
            a class whose name is no Unicode, which no record can hold, or would be trained on a file that it is scored
            on.
    """
    _check(split, fold, folds)
    names = None if task.classes is None else number_names(task.classes)
    held_out = _VAL_FRACTION if split == "val" and names is None else 0.0
    source = open_source(task.path, val_fraction=held_out, seed=seed, parts=_TOUCHED[split], classes=names)
    for name in source.classes:
        check_unicode(name, f"task {task.name} has a class")
    parts = source.parts
    scored_part = {"val": "val", "test": "test", "cv": "train"}[split]
    if scored_part not in parts:
        raise DataError(f"task {task.name} has no {scored_part} part", "one to score on", "choose another split")
    train, scored = parts["train"], parts[scored_part]
    if split != "val" and "val" in parts:
        train = train.joined(parts["val"])
    if fold is not None:
        train, scored = _left_out(train, fold_of_each(train.labels, folds, seed), fold)
    _check_apart(task, train, scored)
    if shots is not None:
        train = train.choose(few_of_each(train.labels, shots, draw))
    return TaskData(
        Source({"train": train}, source.classes), Source({"test": scored}, source.classes), parts, task.path
    )


def fold_of_each(labels: list[int], folds: int, seed: int) -> list[int]:
    """The fold of each image, stratified: images of a class are shuffled, and dealt out like cards, class by class.

    So every fold has the same number of images and of images of each class, to one.
    """
    dealt = [index for members in _shuffled(labels, seed) for index in members]
    fold = [0] * len(labels)
    for turn, index in enumerate(dealt):
        fold[index] = turn % folds
    return fold


def few_of_each(labels: list[int], shots: int, draw: int) -> list[int]:
    """The first `shots` images of each class in an order drawn for it, or all of a class that has no more.

    So with the same draw, fewer shots are some of the images of more.
    """
    return sorted(index for members in _shuffled(labels, draw) for index in members[:shots])


def _shuffled(labels: list[int], seed: int) -> list[list[int]]:
    """The images of each class in an order drawn for it; classes ascending."""
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    orders = {c: torch.randperm(len(by_class[c]), generator=mixed_generator(seed, c)) for c in sorted(by_class)}
    return [[by_class[c][i] for i in order.tolist()] for c, order in orders.items()]


def _left_out(images: PartSource, fold_of: list[int], fold: int) -> tuple[PartSource, PartSource]:
    left_out = [index for index, its in enumerate(fold_of) if its == fold]
    if not left_out or len(left_out) == len(fold_of):
        raise DataError(f"{len(fold_of)} images", "at least one a fold", "take fewer folds")
    return images.without(left_out), images.choose(left_out)


def _check_apart(task: Task, train: PartSource, scored: PartSource) -> None:
    """Lists have been mixed up before, and nothing shows it but an accuracy that is too good."""
    trained = {picture_name(train.pictures, index) for index in range(len(train))}
    both = [name for i in range(len(scored)) if (name := picture_name(scored.pictures, i)) in trained]
    if both:
        given = f"task {task.name} trains on {len(both)} of the files that it scores on, such as {both[0]}"
        raise DataError(given, "none", "correct its lists")


def _check(split: str, fold: int | None, folds: int) -> None:
    if split not in SPLITS:
        raise DataError(f"split {split!r}", ", ".join(SPLITS), "choose one of them")
    if split != "cv" and fold is not None:
        raise DataError(f"fold {fold} of split {split}", "folds with split cv alone", "leave the fold out")
    if split == "cv" and (folds < 2 or fold is None or not 0 <= fold < folds):
        raise DataError(f"fold {fold} of {folds}", "two folds or more, numbered from 0", "correct the fold")
