"""A tree of VTAB's 19 tasks in the community's layout, with drawn images, a few a task."""

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ttctune.bench.suites.vtab import BOTH, LISTS, VTAB

#: Images of each part; far from VTAB's own numbers, as `ttctune vtab check` will say.
COUNTS = {"train": 16, "val": 8, "test": 12}


def write_vtab_tree(
    root: Path,
    *,
    counts: dict[str, int] | None = None,
    classes: int = 4,
    side: int = 16,
    tasks: Iterable[str] = tuple(VTAB),
    ending: str = "png",
) -> Path:
    """Write the lists and images of some or all of the 19.

    No two images of a task are equal, and their colour tells the label.

    Args:
        root: The folder around the tasks; made if needed.
        counts: Images of train, val and test; None is `COUNTS`.
        classes: Labels that occur, from 0; fewer where a task has fewer.
        side: Pixels of a side.
        tasks: Names of the tasks to write.
        ending: Of the files, which says their format.

    Returns:
        The root.
    """
    for task in tasks:
        write_vtab_task(root / task, counts or COUNTS, min(classes, VTAB[task].classes), side, ending)
    return root


def write_vtab_task(folder: Path, counts: dict[str, int], classes: int, side: int = 16, ending: str = "png") -> Path:
    """Write the lists and images of one task; labels take turns."""
    random = np.random.default_rng(zlib.crc32(folder.name.encode()))
    lists: dict[str, str] = {}
    for part, count in counts.items():
        inside = folder / "images" / LISTS[part]
        inside.mkdir(parents=True)
        lists[part] = ""
        for number in range(count):
            label = number % classes
            pixels = random.integers(0, 100, (side, side, 3), dtype=np.uint8)
            pixels[..., label % 3] += np.uint8(100 + 50 * (label // 3 % 2))
            Image.fromarray(pixels).save(inside / f"{number:06d}.{ending}")
            lists[part] += f"images/{LISTS[part]}/{number:06d}.{ending} {label}\n"
        (folder / f"{LISTS[part]}.txt").write_text(lists[part])
    (folder / f"{BOTH}.txt").write_text(lists["train"] + lists["val"])
    return folder
