"""Writing a task in the community's layout: three lists, and every picture as a PNG, which loses nothing."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ttctune.bench.suites.origins import Origin
from ttctune.bench.suites.vtab import BOTH, LISTS, OFFICIAL, TRAIN, VAL, Piece, Rule, VtabTask
from ttctune.errors import DataError
from ttctune.files import write_atomically
from ttctune.output_folder import written_whole
from ttctune.version import __version__

RECORD = "export.json"

#: Positions of a split of the origin, in the order in which they are written.
Chosen = tuple[str, Sequence[int]]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        task: Its name.
        folder: Where.
        images: Part -> number of images.
        rule: How the parts were cut out of the origin, in words.
        notes: What makes the result another data set than VTAB-1k's.
    """

    task: str
    folder: str
    images: dict[str, int]
    rule: str
    notes: tuple[str, ...]


def export(
    row: VtabTask,
    origin: Origin,
    root: Path,
    *,
    seed: int = 0,
    keep_order: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write a task below `root`, whole or not at all.

    Args:
        row: The task.
        origin: Where its pictures come from.
        root: The folder around the tasks; made where it is absent.
        seed: Shuffles what is cut by share, since data sets are often sorted by class; the benchmark's own source is
            shuffled already and stays as it is.
        keep_order: Do not shuffle.
        overwrite: Replace what was exported there before.
        progress: Called with (done, total) after each picture.

    Returns:
        What was written.

    Raises:
        DataError: The origin lacks a split, images or classes, or a picture or label is not as expected.
        FolderError: The task's folder is taken or cannot be written.
    """
    if origin.classes is not None and len(origin.classes) != row.classes:
        given = f"{origin.name} has {len(origin.classes)} classes"
        raise DataError(given, f"the {row.classes} of {row.name}", "give the data of that task, or another --task")
    chosen, rule = choose(row, origin, seed, keep_order)
    images = {part: len(positions) for part, (_, positions) in chosen.items()}
    notes = _notes(row, origin, images)
    folder = root / row.name
    with _made_if_needed(root), written_whole(folder, overwrite=overwrite) as made:
        lists = _write_images(row, origin, chosen, made, progress)
        for part, lines in lists.items():
            write_atomically(made / f"{LISTS[part]}.txt", "".join(lines))
        write_atomically(made / f"{BOTH}.txt", "".join(lists["train"] + lists["val"]))
        done = Exported(row.name, str(folder), images, rule, notes)
        record = {"exported_by_ttctune": __version__, "origin": origin.name, "classes": origin.classes, **asdict(done)}
        write_atomically(made / RECORD, json.dumps({**record, "folder": row.name}, indent=2) + "\n")
        os.sync()  # thousands of small files: one call, not one each
    return done


def choose(row: VtabTask, origin: Origin, seed: int, keep_order: bool) -> tuple[dict[str, Chosen], str]:
    """Which pictures of the origin become train, val and test, and how that was decided, in words.

    What is divided into 800, 200 and a test part already is taken as it is. Else VTAB's own rule for the task decides
    where the origin has just the splits that it speaks of, and the official splits where it has those.

    Raises:
        DataError: Neither fits, or there are too few pictures.
    """
    sizes = {split: size for split, size in origin.sizes.items() if split in ("train", "validation", "test")}
    if sizes.get("train") == TRAIN and sizes.get("validation") == VAL and "test" in sizes:
        return _cut(OFFICIAL, sizes, None, origin.name), "divided into 800, 200 and test already"
    if origin.is_benchmarks or row.rule.splits == sizes.keys():
        rule, name = row.rule, f"VTAB's rule for {row.name}"
    elif sizes.keys() == OFFICIAL.splits:
        rule, name = OFFICIAL, "the official splits"
    else:
        wanted = " or ".join(sorted({", ".join(_in_order(row.rule.splits)), ", ".join(_in_order(OFFICIAL.splits))}))
        has = ", ".join(_in_order(frozenset(sizes))) or "none of them"
        raise DataError(f"{origin.name} has the splits {has}", wanted, "bring it into one of these")
    if origin.is_benchmarks or keep_order:
        return _cut(rule, sizes, None, origin.name), f"{name}, in the order of the source"
    return _cut(rule, sizes, seed, origin.name), f"{name}, shuffled with seed {seed}"


def _cut(rule: Rule, sizes: dict[str, int], seed: int | None, name: str) -> dict[str, Chosen]:
    orders: dict[str, Sequence[int]] = {split: range(size) for split, size in sizes.items()}
    if seed is not None:
        orders = {split: np.random.default_rng(seed).permutation(size).tolist() for split, size in sizes.items()}

    def cut(piece: Piece, count: int | None) -> Chosen:
        places = piece.of(sizes[piece.split])
        if len(places) < (count or 1):
            given = f"{name} has {len(places)} images in {piece.start} to {piece.stop} % of {piece.split}"
            raise DataError(given, f"at least {count or 1}", "give all of the data set")
        stop = places.stop if count is None else places.start + count
        return piece.split, orders[piece.split][places.start : stop]

    return {"train": cut(rule.train, TRAIN), "val": cut(rule.val, VAL), "test": cut(rule.test, None)}


@contextmanager
def _made_if_needed(root: Path) -> Iterator[None]:
    """Where nothing comes of it, a folder that was not there is not left behind."""
    known = root.exists()
    try:
        yield
    except BaseException:
        if not known:
            with suppress(OSError):
                root.rmdir()
        raise


def _write_images(
    row: VtabTask,
    origin: Origin,
    chosen: dict[str, Chosen],
    made: Path,
    progress: Callable[[int, int], None] | None,
) -> dict[str, list[str]]:
    """Write the pictures, and return the lines of the lists."""
    total, done = sum(len(positions) for _, positions in chosen.values()), 0
    lists: dict[str, list[str]] = {}
    for part, (split, positions) in chosen.items():
        inside = f"images/{LISTS[part]}"
        (made / inside).mkdir(parents=True)
        lists[part] = []
        for number, (image, label) in enumerate(origin.read(split, positions)):
            if not 0 <= label < row.classes:
                given = f"{split} {positions[number]} of {origin.name} has the label {label}"
                raise DataError(given, f"0 to {row.classes - 1}", f"choose the labels of {row.name}")
            name = f"{inside}/{number:06d}.png"
            image.save(made / name, "PNG")
            lists[part].append(f"{name} {label}\n")
            done += 1
            if progress is not None:
                progress(done, total)
    return lists


def _notes(row: VtabTask, origin: Origin, images: dict[str, int]) -> tuple[str, ...]:
    notes = []
    if origin.is_benchmarks and row.remark:
        notes.append(row.remark)
    if not origin.is_benchmarks:
        notes.append("not from TFDS: another choice of 800 and 200 than VTAB-1k's, unless the source has made it")
    if images["test"] != row.test:
        notes.append(f"{images['test']:,} test images, not the {row.test:,} of VTAB-1k")
    return tuple(notes)


def _in_order(splits: frozenset[str]) -> list[str]:
    return [split for split in ("train", "validation", "test") if split in splits]
