r"""Writes the demo's four tasks as folders with an index.csv, for `ttctune bench --suite folder`.

    python benchmarks/demo_tasks.py DIR
    ttctune bench --suite folder --root DIR --model ttctune_vit_patch8_64 --image-size 48 --epochs 8 --precision fp32 \
        --seeds 3 --methods linear,norm,bitfit,full,lora,lora+norm,ssf,sct,ttc,ttc-random --jobs 2 -o results/demo
    ttctune report results/demo --images DIR -o report.html

Without --train and --val, sizes are those of `make demo`. Pictures of train and val are those that the demo makes with
seed 0; of the drawn tasks (--tasks) there are as many as one likes, and fewer are the first of more.
"""

import argparse
import csv
from pathlib import Path

from PIL import Image

from ttctune.demo.comparison import SMALL
from ttctune.demo.tasks import TASKS


def write(task: str, folder: Path, train: int, val: int) -> None:
    """One task: PNG files, and an index.csv."""
    parts = TASKS[task](train, val, 0)
    classes = sorted({name for _, names in parts.values() for name in names})
    folder.mkdir(parents=True)
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "split", "label", "class"])
        for part, (images, names) in parts.items():
            (folder / part).mkdir()
            for number, (image, name) in enumerate(zip(images, names, strict=True)):
                path = f"{part}/{number:04d}.png"
                Image.fromarray(image).save(folder / path)
                rows.writerow([path, part, classes.index(name), name])


def main() -> None:
    """Write all four, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="absent or empty")
    parser.add_argument("--tasks", default=",".join(TASKS), help="those to write; default: %(default)s")
    parser.add_argument("--train", type=int, default=SMALL.train, help="images to train on; default: %(default)s")
    parser.add_argument("--val", type=int, default=SMALL.val, help="images to score on; default: %(default)s")
    given = parser.parse_args()
    for task in given.tasks.split(","):
        write(task, given.folder / task, given.train, given.val)


if __name__ == "__main__":
    main()
