"""Cost per image against 100 to 100,000 images: kept in memory, in a file, or streamed from a folder or shards.

    python benchmarks/streaming.py               # writes docs/results/streaming.md and streaming.svg
    python benchmarks/streaming.py --largest 1000 --out -

Small JPEGs (64 px, ten classes) are written once, as files in folders and as shards. Every row comes from a process of
its own with one thread: the time to open the images (find, read and decode them all once), the time of an epoch's
batches of 32 in random order, without a model (of its first 10,000 images where there are more), and the growth of the
peak memory over the loaded library. The second table compares threads with processes on pictures of 500 x 375 pixels.
Times are processor time, so that they can be read on a machine that is shared with other work.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ttctune.backbone.description import InputDescription
from ttctune.images import decode, epoch_order, open_images
from ttctune.images.decoding_ahead import decoded
from ttctune.training.memory import peak_memory

COUNTS = (100, 1_000, 10_000, 100_000)
CLASSES, SIDE, BATCH, SHARD, DIFFERENT, EPOCH = 10, 64, 32, 1_000, 200, 10_000
PHOTO, PHOTOS, INPUT = (500, 375), 200, 224
NORM = (0.5, 0.5, 0.5)
#: What each way is called, where it reads, and how it is opened.
WAYS = {
    "memory": ("kept in memory", "folder", {"cache_bytes": 1 << 40}),
    "file": ("kept in a file", "folder", {"cache_bytes": 0}),
    "folder": ("streamed from a folder", "folder", {"streaming": True}),
    "shards": ("streamed from shards", "shards", {"streaming": True}),
}


def jpeg(size: tuple[int, int], seed: int) -> bytes:
    """A picture with about as much detail as a photograph."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def write(folder: Path, count: int) -> None:
    """The same images as files in class folders, and as shards in the same order."""
    pictures = [jpeg((SIDE, SIDE), seed) for seed in range(DIFFERENT)]
    (folder / "shards").mkdir(parents=True)
    each = count // CLASSES
    for label in range(CLASSES):
        place = folder / "folder" / f"class{label}"
        place.mkdir(parents=True)
        for i in range(each):
            (place / f"{i:06d}.jpg").write_bytes(pictures[(label + i) % DIFFERENT])
    for start in range(0, count, SHARD):
        with tarfile.open(folder / "shards" / f"train-{start // SHARD:06d}.tar", "w") as tar:
            for i in range(start, min(start + SHARD, count)):
                label, number = divmod(i, each)
                add(tar, f"{i:06d}.jpg", pictures[(label + number) % DIFFERENT])
                add(tar, f"{i:06d}.cls", f"class{label}".encode())


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))


def measure(data: Path, way: str) -> dict[str, float]:
    """Microseconds an image to open and in an epoch, and MB at the peak, in this process."""
    torch.set_num_threads(1)
    description = InputDescription(SIDE, SIDE, NORM, NORM)
    _, place, settings = WAYS[way]
    before = peak_memory(torch.device("cpu"))
    start = time.process_time()
    train = open_images(data / place, description, val_fraction=0, threads=1, **settings).train
    opened = time.process_time()
    assert train is not None
    order = epoch_order(len(train), 0, 0)[:EPOCH]
    for _ in train.batches(BATCH, order=order):
        pass
    done = time.process_time()
    return {
        "open": 1e6 * (opened - start) / len(train),
        "epoch": 1e6 * (done - opened) / len(order),
        "memory": (peak_memory(torch.device("cpu")) - before) / 1e6,
    }


def measured(data: Path, way: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", way, str(data)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


class Photos(Dataset[Tensor]):
    def __init__(self, files: Sequence[Path]) -> None:
        self.files, self.description = files, InputDescription(INPUT, INPUT, NORM, NORM)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.files[index], self.description)


def compare(folder: Path) -> dict[str, float]:
    """Microseconds an image, by threads and by processes, with what these take to start."""
    folder.mkdir()
    for seed in range(PHOTOS):
        (folder / f"{seed}.jpg").write_bytes(jpeg(PHOTO, seed % 20))
    photos = Photos(sorted(folder.iterdir()))
    costs = {}
    for workers in (1, 2):
        start = spent()
        for _ in decoded(photos.files, photos.description, threads=workers):
            pass
        between = spent()
        for _ in DataLoader(photos, BATCH, num_workers=workers):
            pass
        costs[f"{workers} threads"] = 1e6 * (between - start) / PHOTOS
        costs[f"{workers} processes"] = 1e6 * (spent() - between) / PHOTOS
    return costs


def spent() -> float:
    """Processor time of this process and of the processes that it has ended, in seconds."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def table(results: dict[int, dict[str, dict[str, float]]]) -> list[str]:
    lines = ["| images | way | opening, µs an image | epoch, µs an image | peak memory, MB |", "|---|---|---|---|---|"]
    for count, ways in results.items():
        for way, row in ways.items():
            lines.append(
                f"| {count:,} | {WAYS[way][0]} | {row['open']:.0f} | {row['epoch']:.0f} | {row['memory']:.0f} |"
            )
    return lines


def report(results: dict[int, dict[str, dict[str, float]]], costs: dict[str, float], command: str) -> str:
    lines = [
        "# Cost per image, from 100 to 100,000 images",
        "",
        f"`{command}`",
        "",
        f"JPEGs of {SIDE} px, decoded to {SIDE} px; batches of {BATCH} in random order, no model; one thread; one "
        "process a row. Processor time, because the machine was shared with other work. Opening finds, reads and "
        f"decodes every image once, whether it is kept or not. Of an epoch, the first {EPOCH:,} images are timed. Peak "
        "memory is the growth over the loaded library; for images kept in a file it counts the pages that were "
        "touched, which the system takes back when something else needs them.",
        "",
        "![curves](streaming.svg)",
        "",
        *table(results),
        "",
        f"Threads or processes, for {PHOTOS} pictures of {PHOTO[0]} x {PHOTO[1]} pixels decoded to {INPUT} px; "
        "processor time, with what it takes to start them (processes are the workers of torch's DataLoader):",
        "",
        "| workers | threads, µs an image | processes, µs an image |",
        "|---|---|---|",
        *(f"| {n} | {costs[f'{n} threads']:.0f} | {costs[f'{n} processes']:.0f} |" for n in (1, 2)),
        "",
    ]
    return "\n".join(lines)


def draw(results: dict[int, dict[str, dict[str, float]]], file: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ttctune"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    titles = {"open": "opening, µs an image", "epoch": "an epoch's batches, µs an image", "memory": "peak memory, MB"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for way, (name, _, _) in WAYS.items():
            values = [ways[way][key] for ways in results.values()]
            axis.plot(list(results), values, marker="o", markersize=4, label=name)
        axis.set(title=title, xscale="log", xlabel="images")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[2].set_yscale("symlog", linthresh=10)
    axes[2].legend(fontsize="small")
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=COUNTS[-1])
    parser.add_argument("--out", default="docs/results/streaming.md")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, data = arguments.measure
        print(json.dumps(measure(Path(data), way)))
        return
    results: dict[int, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        costs = compare(Path(folder) / "photos")
        for count in (count for count in COUNTS if count <= arguments.largest):
            data = Path(folder) / str(count)
            write(data, count)
            results[count] = {way: measured(data, way) for way in WAYS}
            print("\n".join(table({count: results[count]})), file=sys.stderr)
    text = report(results, costs, "python benchmarks/streaming.py")
    print(text)
    if arguments.out != "-":
        Path(arguments.out).write_text(text)
        draw(results, Path(arguments.out).with_suffix(".svg"))


if __name__ == "__main__":
    main()
